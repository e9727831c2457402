//! All sessions of one UDP socket, driven from outside: datagrams and time go in, events, frames and datagrams come out.
//!
//! Invariants: a call costs as much as there are sessions with something to do, never as many as there are sessions.
//! Every [`Event::Opened`] is followed by exactly one [`Event::Closed`] of the same session. A [`SessionId`] names one
//! connection only: its slot's generation grows each time the slot is reused. What one peer does wrong ends its own
//! session and no other.
//!
//! Deliberately absent: sockets, clocks, the meaning of frames, who may send which.

use bytes::BytesMut;
use quinn_proto::{ConnectionError, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Incoming, StreamEvent, VarInt};
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};
use tickwheel_wire::{SessionId, planted::Mistake};

use crate::{
    close::{Close, CloseCode, CloseReason},
    config::{ConfigError, EndpointConfig},
    identity::Identity,
    lane::{FrameReader, FrameRules, LANE_COUNT, Lane, LaneReader},
    session::{Phase, Session, lane_closed},
    timeouts::Timeouts,
    tls::ServerTls,
    worklist::WorkList,
};

/// Answers to unknown peers that may wait to be sent; beyond, they are dropped, as the network may drop any datagram.
const RESPONSES_MAX: usize = 256;
/// Failed handshakes that may wait to be reported; beyond, they are only counted.
const REJECTIONS_MAX: usize = 256;

/// What happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is done and the certificate says who the peer is.
    Opened {
        /// The session, valid until its `Closed`.
        session: SessionId,
        /// Who the peer is.
        identity: Identity,
        /// Where it is.
        remote: SocketAddr,
    },
    /// The session is over. Frames not read and bytes not sent are gone.
    Closed {
        /// The session, not valid any more.
        session: SessionId,
        /// Why it ended.
        reason: CloseReason,
    },
    /// A send was refused with [`SendError::Backlog`] and at least half of the room is free again.
    Writable {
        /// The session.
        session: SessionId,
    },
    /// A connection attempt failed before it became a session.
    Rejected {
        /// Where it came from.
        remote: SocketAddr,
        /// Why.
        reason: CloseReason,
    },
}

/// Why bytes were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The session is closed or never was.
    #[error("the session is closed")]
    Closed,
    /// The peer reads too slowly: its buffers are full. An [`Event::Writable`] follows when there is room.
    #[error("{backlog_bytes} bytes wait for the peer, {refused_bytes} more exceed the bound")]
    Backlog {
        /// What waits already.
        backlog_bytes: usize,
        /// What was refused.
        refused_bytes: usize,
    },
}

/// A datagram, or several of equal size, to be sent as they stand in the buffer of [`Endpoint::poll_transmit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: SocketAddr,
    /// ECN mark for the IP header.
    pub ecn: Option<EcnCodepoint>,
    /// Size of each datagram in bytes, the last may be shorter; `None`: the buffer is one datagram.
    pub segment_bytes: Option<usize>,
    /// Address to send from, where the socket has several.
    pub source_ip: Option<IpAddr>,
}

/// What one call of [`Endpoint::read_frames`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadSummary {
    /// The session that was read.
    pub session: SessionId,
    /// Stream bytes taken from it.
    pub bytes: usize,
}

/// Counters since the endpoint was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointStats {
    /// Datagrams handed in.
    pub datagrams_received: u64,
    /// Calls of [`Endpoint::poll_transmit`] that gave datagrams.
    pub transmits: u64,
    /// Times that a session was asked for datagrams to send: the cost of a turn.
    pub sessions_polled: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions closed.
    pub sessions_closed: u64,
    /// Connection attempts refused or dropped for a bound.
    pub attempts_refused: u64,
    /// Connection attempts that failed in the handshake or for their certificate.
    pub attempts_rejected: u64,
}

#[derive(Default)]
struct Slot {
    /// Of the session in the slot, or of the last one. The first is 1.
    generation: u32,
    session: Option<Box<Session>>,
}

/// The sessions of one socket.
///
/// One turn of a shard's loop calls, in this order:
///
/// 1. [`Endpoint::handle_datagram`] for every datagram received, [`Endpoint::handle_timeout`] if
///    [`Endpoint::next_timeout`] has passed;
/// 2. [`Endpoint::poll_event`] until `None`;
/// 3. [`Endpoint::read_frames`] until `None` or until its own budget is used up;
/// 4. [`Endpoint::send`] or [`Endpoint::send_with`] for each answer, then [`Endpoint::flush`] once;
/// 5. [`Endpoint::poll_transmit`] until `None` or until the socket is full;
/// 6. [`Endpoint::next_timeout`], and, unless [`Endpoint::has_work`], sleep.
pub struct Endpoint {
    config: EndpointConfig,
    rules: FrameRules,
    quic: quinn_proto::Endpoint,
    /// By the index of quinn-proto's connection handles, which it reuses.
    slots: Vec<Slot>,
    /// Latest time handed in.
    now: Instant,
    open_count: usize,
    handshake_count: usize,
    /// Sessions whose QUIC state may have events.
    touched: WorkList,
    /// Sessions with bytes to read.
    readable: WorkList,
    /// Sessions with bytes that QUIC may take.
    unflushed: WorkList,
    /// Sessions that may have datagrams to send.
    transmitting: WorkList,
    timeouts: Timeouts,
    events: VecDeque<Event>,
    rejections_waiting: usize,
    responses: VecDeque<(Transmit, Vec<u8>)>,
    stats: EndpointStats,
}

impl Endpoint {
    /// An endpoint without sessions.
    ///
    /// # Errors
    /// When a setting is outside its range.
    pub fn new(config: EndpointConfig, tls: &ServerTls, now: Instant) -> Result<Self, ConfigError> {
        config.validate()?;
        let server = Arc::new(config.quic_server(tls));
        let quic = quinn_proto::Endpoint::new(Arc::new(config.quic_endpoint(tls)), Some(server), true, None);
        let rules = FrameRules { frame_bytes_max: config.frame_bytes_max, is_known_frame: config.is_known_frame };
        Ok(Self {
            config,
            rules,
            quic,
            slots: Vec::new(),
            now,
            open_count: 0,
            handshake_count: 0,
            touched: WorkList::default(),
            readable: WorkList::default(),
            unflushed: WorkList::default(),
            transmitting: WorkList::default(),
            timeouts: Timeouts::default(),
            events: VecDeque::new(),
            rejections_waiting: 0,
            responses: VecDeque::new(),
            stats: EndpointStats::default(),
        })
    }

    /// Takes one received datagram (already split, where the kernel coalesced several).
    ///
    /// `local_ip` is the address that it was sent to, if the socket tells.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local_ip: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        data: BytesMut,
    ) {
        self.advance(now);
        self.stats.datagrams_received += 1;
        let mut response = Vec::new();
        match self.quic.handle(self.now, remote, local_ip, ecn, data, &mut response) {
            None => {}
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let slot = slot_of(handle);
                if let Some(session) = session_in(&mut self.slots, slot) {
                    session.connection.handle_event(event);
                    self.touched.push(slot);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(incoming),
            Some(DatagramEvent::Response(transmit)) => self.respond(transmit, response),
        }
    }

    /// Does what is due. Call it when [`Endpoint::next_timeout`] has passed; earlier calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        while let Some(slot) = self.timeouts.pop_due(self.now) {
            let Some(session) = session_in(&mut self.slots, slot) else { continue };
            session.connection.handle_timeout(self.now);
            let is_late = matches!(session.phase, Phase::Handshaking { deadline } if deadline <= self.now);
            self.touched.push(slot);
            if is_late {
                self.end(slot, Close::new(CloseCode::HandshakeTimeout, "the handshake took too long"));
            }
        }
    }

    /// When [`Endpoint::handle_timeout`] is to be called next, valid once [`Endpoint::poll_transmit`] gave `None`.
    /// Costs nothing.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timeouts.next()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.settle();
        let event = self.events.pop_front()?;
        if matches!(event, Event::Rejected { .. }) {
            self.rejections_waiting -= 1;
        }
        Some(event)
    }

    /// Reads the session that has waited longest with unread bytes, every lane of it from the most urgent on, and hands
    /// each complete frame to `reader`; `None` when no session has any.
    ///
    /// Takes at most twice `lane_bytes_max` from each lane; a session with more goes to the end of the queue, so a
    /// busy peer delays others by one such portion only. An error of `reader` closes the session, and the frames behind
    /// the faulty one are dropped; so do frames that break the rules of framing.
    ///
    /// # Panics
    /// If `lane_bytes_max` is 0.
    pub fn read_frames(&mut self, lane_bytes_max: usize, reader: &mut impl FrameReader) -> Option<ReadSummary> {
        assert!(lane_bytes_max > 0, "a read has to make progress");
        self.settle();
        while let Some(slot) = self.readable.pop() {
            let Some(session) = session_in(&mut self.slots, slot).filter(|session| session.is_open()) else { continue };
            let id = session.id;
            let (mut bytes, mut should_transmit, mut fault) = (0, false, None);
            for lane in Lane::ALL {
                if !session.lanes[lane.index()].is_readable {
                    continue;
                }
                let mut sink = LaneReader { reader, session: id, lane };
                match session.read_lane(lane, lane_bytes_max, self.rules, &mut sink) {
                    Ok(read) => {
                        bytes += read.bytes;
                        should_transmit |= read.should_transmit;
                    }
                    Err(close) => {
                        fault = Some(close);
                        break;
                    }
                }
            }
            let has_more = session.lanes.iter().any(|lane| lane.is_readable);
            match fault {
                Some(close) => self.end(slot, close),
                None if has_more => self.readable.push(slot),
                None => {}
            }
            if should_transmit {
                self.transmitting.push(slot);
            }
            return Some(ReadSummary { session: id, bytes });
        }
        None
    }

    /// Queues `frames` (one or more whole encoded frames) on a lane; [`Endpoint::flush`] moves them on. A lane that the
    /// client has not opened yet keeps them until it does.
    ///
    /// # Errors
    /// When the session is closed, or its backlog would exceed the bound; then nothing was taken.
    pub fn send(&mut self, session: SessionId, lane: Lane, frames: &[u8]) -> Result<(), SendError> {
        self.send_with(session, lane, |out| out.extend_from_slice(frames))
    }

    /// Like [`Endpoint::send`], for frames that `encode` appends to the lane's buffer itself, which saves a copy.
    ///
    /// # Errors
    /// When the session is closed, or its backlog would exceed the bound; then nothing was taken.
    ///
    /// # Panics
    /// If `encode` shortens the buffer.
    pub fn send_with(
        &mut self,
        session: SessionId,
        lane: Lane,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendError> {
        let room_bytes_max = self.config.backlog_bytes_max;
        let (slot, session) = open_session(&mut self.slots, session).ok_or(SendError::Closed)?;
        let backlog_bytes = session.backlog_bytes;
        let outbox = &mut session.lanes[lane.index()].outgoing;
        match outbox.append(room_bytes_max.saturating_sub(backlog_bytes), encode) {
            Ok(added_bytes) => session.backlog_bytes += added_bytes,
            Err(refused_bytes) => {
                session.owes_writable = true;
                return Err(SendError::Backlog { backlog_bytes, refused_bytes });
            }
        }
        self.unflushed.push(slot);
        Ok(())
    }

    /// Hands queued bytes to QUIC, as much as its windows take. Once per turn is enough and gives the largest chunks.
    pub fn flush(&mut self, now: Instant) {
        self.advance(now);
        self.settle();
        while let Some(slot) = self.unflushed.pop() {
            let Some(session) = session_in(&mut self.slots, slot).filter(|session| session.is_open()) else { continue };
            match session.write_lanes(self.config.send_window_bytes) {
                Ok(0) => {}
                Ok(_) => {
                    if session.owes_writable && session.backlog_bytes <= self.config.backlog_bytes_max / 2 {
                        session.owes_writable = false;
                        self.events.push_back(Event::Writable { session: session.id });
                    }
                    self.transmitting.push(slot);
                }
                Err(close) => self.end(slot, close),
            }
        }
    }

    /// Writes the next datagrams to be sent into `buffer`, which is cleared before: up to `segments_max` of equal
    /// size to one destination. `None` when nothing is to be sent now. Sessions take turns.
    ///
    /// What cannot be sent may be dropped, as the network may drop it; a probe for a larger MTU that the interface
    /// refuses as too long has to be. The socket must not let datagrams be fragmented.
    ///
    /// # Panics
    /// If `segments_max` is 0.
    pub fn poll_transmit(&mut self, now: Instant, segments_max: usize, buffer: &mut Vec<u8>) -> Option<Transmit> {
        assert!(segments_max > 0, "a transmit has at least one datagram");
        self.advance(now);
        self.settle();
        buffer.clear();
        if let Some((transmit, bytes)) = self.responses.pop_front() {
            buffer.extend_from_slice(&bytes);
            self.stats.transmits += 1;
            return Some(transmit);
        }
        while let Some(slot) = self.transmitting.pop() {
            let Some(session) = session_in(&mut self.slots, slot) else { continue };
            self.stats.sessions_polled += 1;
            let segments_max = segments_max.min(EndpointConfig::segments_max(session.connection.current_mtu()));
            if let Some(transmit) = session.connection.poll_transmit(self.now, segments_max, buffer) {
                self.transmitting.push(slot);
                self.stats.transmits += 1;
                return Some(transmit.into());
            }
            self.timeouts.set(slot, session.deadline());
        }
        None
    }

    /// Closes a session: its peer is told code and reason, an [`Event::Closed`] follows, and bytes that QUIC has not
    /// taken are dropped. Does nothing if it is closed already.
    pub fn close(&mut self, now: Instant, session: SessionId, close: Close) {
        self.advance(now);
        if let Some((slot, _)) = open_session(&mut self.slots, session) {
            self.end(slot, close);
        }
    }

    /// Closes every session and gives up every handshake.
    pub fn close_all(&mut self, now: Instant, close: &Close) {
        self.advance(now);
        for index in 0..self.slots.len() {
            let slot = slot_of(ConnectionHandle(index));
            if session_in(&mut self.slots, slot).is_some() {
                self.end(slot, close.clone());
            }
        }
    }

    /// Bytes that wait for the peer of `session` and that QUIC has not taken; `None` once it is closed.
    pub fn backlog_bytes(&self, session: SessionId) -> Option<usize> {
        let (slot, generation) = slot_and_generation(session);
        let slot = self.slots.get(slot as usize).filter(|slot| slot.generation == generation)?;
        slot.session.as_ref().filter(|session| session.is_open()).map(|session| session.backlog_bytes)
    }

    /// Open sessions.
    pub fn session_count(&self) -> usize {
        self.open_count
    }

    /// Connections in any state, those that shake hands or drain included.
    pub fn connection_count(&self) -> usize {
        self.quic.open_connections()
    }

    /// Sessions with unread bytes, as far as [`Endpoint::poll_event`] has found out.
    pub fn readable_count(&self) -> usize {
        self.readable.len()
    }

    /// Whether another turn now would do something without a new datagram or timeout.
    pub fn has_work(&self) -> bool {
        let lists = [&self.touched, &self.readable, &self.unflushed, &self.transmitting];
        !self.events.is_empty() || !self.responses.is_empty() || lists.into_iter().any(|list| !list.is_empty())
    }

    /// Counters.
    pub fn stats(&self) -> EndpointStats {
        self.stats
    }
}

/// What happens inside.
impl Endpoint {
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Accepts, refuses or drops a connection attempt.
    fn accept(&mut self, incoming: Incoming) {
        let remote = incoming.remote_address();
        let mut response = Vec::new();
        if self.quic.open_connections() >= self.config.sessions_max {
            self.stats.attempts_refused += 1;
            let transmit = self.quic.refuse(incoming, &mut response);
            return self.respond(transmit, response);
        }
        if self.handshake_count >= self.config.handshakes_max {
            self.stats.attempts_refused += 1;
            return self.quic.ignore(incoming);
        }
        match self.quic.accept(incoming, self.now, &mut response, None) {
            Ok((handle, connection)) => {
                let slot = slot_of(handle);
                if self.slots.len() <= handle.0 {
                    self.slots.resize_with(handle.0 + 1, Slot::default);
                }
                let place = &mut self.slots[handle.0];
                assert!(place.session.is_none(), "quinn-proto reused the handle of a live connection");
                let step = u32::from(!Mistake::SessionNumberReused.is_made());
                place.generation = place.generation.wrapping_add(step).max(1);
                let id = SessionId(u64::from(place.generation) << 32 | u64::from(slot));
                let deadline = self.now + self.config.handshake_timeout;
                place.session = Some(Box::new(Session::new(id, connection, deadline)));
                self.handshake_count += 1;
                self.touched.push(slot);
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(transmit, response);
                }
                self.reject(remote, reason_of(error.cause));
            }
        }
    }

    fn respond(&mut self, transmit: quinn_proto::Transmit, mut bytes: Vec<u8>) {
        if self.responses.len() < RESPONSES_MAX {
            bytes.truncate(transmit.size);
            self.responses.push_back((transmit.into(), bytes));
        }
    }

    fn reject(&mut self, remote: SocketAddr, reason: CloseReason) {
        self.stats.attempts_rejected += 1;
        if self.rejections_waiting < REJECTIONS_MAX {
            self.rejections_waiting += 1;
            self.events.push_back(Event::Rejected { remote, reason });
        }
    }

    /// Takes everything that QUIC has to say about the sessions that something happened to.
    fn settle(&mut self) {
        while let Some(slot) = self.touched.pop() {
            let is_drained = self.exchange_endpoint_events(slot);
            while let Some(event) = session_in(&mut self.slots, slot).and_then(|session| session.connection.poll()) {
                self.handle_connection_event(slot, event);
            }
            if is_drained {
                self.release(slot);
            } else {
                self.transmitting.push(slot);
            }
        }
    }

    /// Passes messages between a connection and quinn-proto's endpoint; true when the connection is gone.
    fn exchange_endpoint_events(&mut self, slot: u32) -> bool {
        let Some(session) = session_in(&mut self.slots, slot) else { return false };
        let handle = ConnectionHandle(slot as usize);
        let mut is_drained = false;
        while let Some(event) = session.connection.poll_endpoint_events() {
            is_drained |= event.is_drained();
            if let Some(answer) = self.quic.handle_event(handle, event) {
                session.connection.handle_event(answer);
            }
        }
        is_drained
    }

    fn handle_connection_event(&mut self, slot: u32, event: quinn_proto::Event) {
        use quinn_proto::Event as Quic;
        match event {
            Quic::Connected => self.open(slot),
            Quic::ConnectionLost { reason } => self.finish(slot, reason_of(reason)),
            Quic::Stream(event) => {
                if let Err(close) = self.handle_stream_event(slot, event) {
                    self.end(slot, close);
                }
            }
            Quic::HandshakeDataReady | Quic::DatagramReceived | Quic::DatagramsUnblocked => {}
        }
    }

    fn handle_stream_event(&mut self, slot: u32, event: StreamEvent) -> Result<(), Close> {
        let Some(session) = session_in(&mut self.slots, slot).filter(|session| session.is_open()) else {
            return Ok(());
        };
        match event {
            StreamEvent::Opened { dir } => {
                while let Some(stream) = session.connection.streams().accept(dir) {
                    session.open_lane(lane_of(stream)?)?;
                }
                self.readable.push(slot);
                self.unflushed.push(slot);
            }
            StreamEvent::Readable { id } => {
                session.lanes[lane_of(id)?.index()].is_readable = true;
                self.readable.push(slot);
            }
            StreamEvent::Writable { id } => {
                session.lanes[lane_of(id)?.index()].is_blocked = false;
                self.unflushed.push(slot);
            }
            StreamEvent::Stopped { id, .. } | StreamEvent::Finished { id } => return Err(lane_closed(lane_of(id)?)),
            StreamEvent::Available { .. } => {}
        }
        Ok(())
    }

    /// The handshake is done: reads the identity and announces the session.
    fn open(&mut self, slot: u32) {
        let Some(session) = session_in(&mut self.slots, slot) else { return };
        if !matches!(session.phase, Phase::Handshaking { .. }) {
            return;
        }
        match session.identity() {
            Ok(identity) => {
                session.phase = Phase::Open;
                let (session, remote) = (session.id, session.remote);
                self.handshake_count -= 1;
                self.open_count += 1;
                self.stats.sessions_opened += 1;
                self.events.push_back(Event::Opened { session, identity, remote });
            }
            Err(error) => self.end(slot, Close::new(CloseCode::InvalidIdentity, error.to_string())),
        }
    }

    /// Closes from this side.
    fn end(&mut self, slot: u32, close: Close) {
        let Some(session) = session_in(&mut self.slots, slot).filter(|session| session.phase != Phase::Closed) else {
            return;
        };
        let reason = close.wire_reason().as_bytes().to_vec().into();
        session.connection.close(self.now, VarInt::from_u32(close.code.number().into()), reason);
        self.finish(slot, CloseReason::Local(close));
        self.transmitting.push(slot);
    }

    /// Announces the end of a session, once.
    fn finish(&mut self, slot: u32, reason: CloseReason) {
        let Some(session) = session_in(&mut self.slots, slot) else { return };
        let (id, remote, phase) = (session.id, session.remote, session.phase);
        session.retire();
        match phase {
            Phase::Closed => {}
            Phase::Handshaking { .. } => {
                self.handshake_count -= 1;
                self.reject(remote, reason);
            }
            Phase::Open => {
                self.open_count -= 1;
                self.stats.sessions_closed += 1;
                if Mistake::EndNotAnnounced.is_made() && reason == CloseReason::TimedOut {
                    return;
                }
                self.events.push_back(Event::Closed { session: id, reason });
            }
        }
    }

    /// Frees the slot of a connection that QUIC has forgotten.
    fn release(&mut self, slot: u32) {
        self.finish(slot, CloseReason::Reset);
        self.timeouts.set(slot, None);
        self.slots[slot as usize].session = None;
    }
}

impl From<quinn_proto::Transmit> for Transmit {
    fn from(transmit: quinn_proto::Transmit) -> Self {
        Self {
            destination: transmit.destination,
            ecn: transmit.ecn,
            segment_bytes: transmit.segment_size,
            source_ip: transmit.src_ip,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the number of connections is bounded far below")]
fn slot_of(handle: ConnectionHandle) -> u32 {
    handle.0 as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of the id")]
fn slot_and_generation(session: SessionId) -> (u32, u32) {
    (session.0 as u32, (session.0 >> 32) as u32)
}

fn session_in(slots: &mut [Slot], slot: u32) -> Option<&mut Session> {
    slots.get_mut(slot as usize)?.session.as_deref_mut()
}

/// The open session with exactly this id.
fn open_session(slots: &mut [Slot], id: SessionId) -> Option<(u32, &mut Session)> {
    let (slot, _) = slot_and_generation(id);
    let session = session_in(slots, slot)?;
    (session.id == id && session.is_open()).then_some((slot, session))
}

/// The lane that a stream carries. Streams beyond [`LANE_COUNT`] are refused by QUIC until a lane was closed, which
/// ends the session.
fn lane_of(stream: quinn_proto::StreamId) -> Result<Lane, Close> {
    let lane = if stream.dir() == Dir::Bi { Lane::from_index(stream.index()) } else { None };
    lane.ok_or_else(|| {
        Close::new(CloseCode::ProtocolViolation, format!("{stream} is not one of the {LANE_COUNT} lanes"))
    })
}

fn reason_of(error: ConnectionError) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseReason::Peer {
            number: close.error_code.into_inner(),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::TimedOut => CloseReason::TimedOut,
        ConnectionError::Reset => CloseReason::Reset,
        other => CloseReason::Transport(other.to_string()),
    }
}

//! From a session's frame to the core that owns what it concerns.
//!
//! The router answers what needs no core: the handshake, and frames that belong nowhere. Everything else goes to this shard's core or, over the queues, to a sibling's.
//!
//! Invariants: a frame of a session that has not been welcomed reaches no core; every request gets exactly one answer or the
//! session ends; a peer's mistake ends its own session at most.

use super::peers::{Envelope, ForwardedFrame, Peers};
use crate::runtime::counters::ShardCounters;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use tickwheel_engine::partition::{Counters as Counted, Partition};
use tickwheel_engine::shard::{Directory, Effects, Identity, Input, Shard as Core};
use tickwheel_net::{Close, CloseCode, Frame as NetFrame, FrameReader, Glance, Lane};
use tickwheel_wire::{
    Now, PartitionCount, PartitionId, Reader, SessionId, SessionRef, ShardId,
    frame::{
        self, Frame, FrameType,
        request::{Counters, ReadCounters},
        session::{Hello, PROTOCOL_VERSION, RefusalCode, Refused, Welcome},
        work::{Complete, CompleteHead, Completed, Reattach, Reattached, Verdict},
    },
};

/// How long a new session may take to say hello.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// What the node tells every session at its beginning.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// The cluster's id.
    pub cluster: u128,
    /// Number of partitions.
    pub partition_count: PartitionCount,
    /// Longest body accepted, in bytes.
    pub frame_bytes_max: u32,
    /// Longest payload accepted, in bytes.
    pub payload_bytes_max: u32,
    /// UDP port of each shard.
    pub shard_ports: Vec<u16>,
}

impl NodeFacts {
    /// The shard that owns a partition: they are dealt out in turn.
    pub fn shard_of(&self, partition: PartitionId) -> ShardId {
        let shard_count = u16::try_from(self.shard_ports.len()).expect("shards are few");
        ShardId(partition.0 % shard_count)
    }
}

struct Session {
    id: SessionId,
    identity: Arc<Identity>,
    tenant: String,
    welcomed: bool,
}

/// A frame for a session of this shard that need not wait for the log.
pub struct Reply {
    /// The session.
    pub session: SessionId,
    /// The lane.
    pub lane: Lane,
    /// The encoded frame.
    pub frame: Vec<u8>,
}

/// Routes frames. Owns the core, its effects, and the way to the siblings.
pub struct Router {
    shard: ShardId,
    facts: Arc<NodeFacts>,
    directory: Arc<Directory>,
    sessions: Vec<Option<Session>>,
    /// Until when new sessions have to say hello, in their order.
    hellos: VecDeque<(Instant, SessionId)>,
    counters: Arc<ShardCounters>,
    /// The core.
    pub core: Core,
    /// What the core did and the log has not taken yet.
    pub effects: Effects,
    /// The siblings.
    pub peers: Peers,
    /// Answers that need not wait.
    pub replies: Vec<Reply>,
    /// Sessions welcomed since the loop last looked.
    pub welcomed: Vec<SessionId>,
}

impl Router {
    /// The router of `shard`.
    pub fn new(
        shard: ShardId,
        facts: Arc<NodeFacts>,
        directory: Arc<Directory>,
        counters: Arc<ShardCounters>,
        core: Core,
        effects: Effects,
        peers: Peers,
    ) -> Self {
        Self {
            shard,
            facts,
            directory,
            sessions: Vec::new(),
            hellos: VecDeque::new(),
            counters,
            core,
            effects,
            peers,
            replies: Vec::new(),
            welcomed: Vec::new(),
        }
    }

    /// Notes a new session. An identity that the node does not know is refused with the close to send.
    ///
    /// # Errors
    /// The close that tells the peer why.
    pub fn opened(
        &mut self,
        instant: Instant,
        session: SessionId,
        identity: &tickwheel_net::Identity,
    ) -> Result<(), Close> {
        let role = match identity.role {
            tickwheel_net::Role::Admin => tickwheel_engine::shard::Role::Admin,
            tickwheel_net::Role::Client => tickwheel_engine::shard::Role::Client,
            tickwheel_net::Role::Worker => tickwheel_engine::shard::Role::Worker,
        };
        let pools: Vec<&str> = identity.pools.iter().map(String::as_str).collect();
        let known = self
            .directory
            .identify(&identity.name, role, identity.tenant.as_deref(), &pools)
            .map_err(|error| Close::new(CloseCode::UnknownTenant, error.to_string()))?;
        let index = slot_of(session);
        if index >= self.sessions.len() {
            self.sessions.resize_with(index + 1, || None);
        }
        let tenant = identity.tenant.clone().unwrap_or_default();
        self.sessions[index] = Some(Session { id: session, identity: Arc::new(known), tenant, welcomed: false });
        self.hellos.push_back((instant + HELLO_MAX, session));
        Ok(())
    }

    /// When the oldest session that may not have said hello yet has to have done so.
    pub fn next_hello(&self) -> Option<Instant> {
        self.hellos.front().map(|(until, _)| *until)
    }

    /// A session that has not said hello in time, and why it is to be closed. To be asked until there is none.
    pub fn overdue_hello(&mut self, instant: Instant) -> Option<(SessionId, Close)> {
        // Every round takes an entry away, and each session has one.
        while let Some(&(_, session)) = self.hellos.front().filter(|(until, _)| *until <= instant) {
            self.hellos.pop_front();
            let found = self.sessions.get(slot_of(session)).and_then(Option::as_ref);
            if found.is_some_and(|found| found.id == session && !found.welcomed) {
                let message = format!("no `hello` came within {} s", HELLO_MAX.as_secs());
                return Some((session, Close::new(CloseCode::HelloExpected, message)));
            }
        }
        None
    }

    /// Notes that a session has ended.
    pub fn closed(&mut self, now: Now, session: SessionId) {
        let Some(slot) = self.sessions.get_mut(slot_of(session)) else { return };
        if slot.as_ref().is_some_and(|found| found.id == session) && slot.take().is_some_and(|found| found.welcomed) {
            let session = SessionRef { shard: self.shard, session };
            self.core.handle(now, Input::SessionClosed { session }, &mut self.effects);
        }
    }

    /// The sessions that were welcomed.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().flatten().filter(|session| session.welcomed).map(|session| session.id)
    }

    /// How many executions of this shard are in flight.
    pub fn in_flight_count(&self) -> usize {
        self.core.partitions().map(Partition::execution_count).sum()
    }

    /// Takes one frame of one of this shard's sessions.
    ///
    /// # Errors
    /// The close that ends the session.
    #[inline]
    pub fn frame(&mut self, now: Now, session: SessionId, lane: Lane, frame: &NetFrame<'_>) -> Result<(), Close> {
        let Some(found) =
            self.sessions.get(slot_of(session)).and_then(Option::as_ref).filter(|found| found.id == session)
        else {
            return Ok(());
        };
        if !found.welcomed {
            return self.hello(session, lane, frame);
        }
        let identity = &found.identity;
        let from = SessionRef { shard: self.shard, session };
        match self.owner(frame)? {
            Owner::Core(partition) if partition.0 >= self.facts.partition_count.count() => {
                let message = format!("there are {} partitions", self.facts.partition_count.count());
                self.refuse(session, lane, frame, RefusalCode::NotOwner, &message);
            }
            Owner::Core(partition) => {
                let shard = self.facts.shard_of(partition);
                if shard == self.shard {
                    self.core.handle(now, input_of(from, identity, lane, frame), &mut self.effects);
                } else if self
                    .peers
                    .forward(shard, from, identity, lane_number(lane), frame.frame_type, frame.body)
                    .is_err()
                {
                    self.refuse(session, lane, frame, RefusalCode::Overloaded, "the owning shard is busy");
                }
            }
            Owner::Counters if identity.role != tickwheel_engine::shard::Role::Admin => {
                self.refuse(session, lane, frame, RefusalCode::WrongRole, "counters are for admins");
            }
            Owner::Counters => {
                let counters = self.count();
                let request_id = ReadCounters::decode_body(frame.body).map_err(malformed)?.request_id;
                let mut bytes = Vec::new();
                Counters { request_id, shard: self.shard.0, counters: &counters }.encode(&mut bytes);
                self.replies.push(Reply { session, lane, frame: bytes });
            }
            Owner::Here => self.core.handle(now, input_of(from, identity, lane, frame), &mut self.effects),
        }
        Ok(())
    }

    /// Takes the frames of this shard's sessions that are read at `now`.
    pub const fn intake(&mut self, now: Now) -> Intake<'_> {
        Intake { router: self, now }
    }

    /// Lets the core fetch what a report will need.
    #[inline]
    fn foresee(&self, glance: Glance, frame_type: u16, body: &[u8]) {
        if frame_type != FrameType::Complete.number() {
            return;
        }
        match (frame::work_job(body), glance) {
            (Ok(job), Glance::First) => self.core.foresee(job),
            (Ok(job), Glance::Second) => self.core.foresee_execution(job),
            (Err(_), _) => {}
        }
    }

    /// Takes what siblings sent, up to `envelopes_max` envelopes; deliveries are handed to `deliver`. How many there were.
    pub fn peers(&mut self, now: Now, envelopes_max: usize, mut deliver: impl FnMut(SessionId, u8, &[u8])) -> usize {
        for count in 0..envelopes_max {
            let Some((from, envelope)) = self.peers.receive() else { return count };
            match envelope {
                Envelope::Backlogged(session) => {
                    self.core.handle(now, Input::SessionBacklogged { session }, &mut self.effects);
                }
                Envelope::Core(message) => self.core.handle(now, Input::Peer { from, message }, &mut self.effects),
                Envelope::Frames(batch) => {
                    for glance in [Glance::First, Glance::Second] {
                        for (frame, body) in batch.iter() {
                            self.foresee(glance, frame.frame_type, body);
                        }
                    }
                    for (frame, body) in batch.iter() {
                        let ForwardedFrame { session, identity, lane, frame_type, .. } = frame;
                        let (session, lane, frame_type) = (*session, *lane, *frame_type);
                        let input = Input::Frame { session, identity, lane, frame_type, body };
                        self.core.handle(now, input, &mut self.effects);
                    }
                }
                Envelope::Deliveries(deliveries) => {
                    for (output, frames) in deliveries.iter() {
                        deliver(output.session.session, output.lane, frames);
                    }
                }
            }
        }
        envelopes_max
    }

    /// Ends the watches of a session of this shard, wherever they are.
    pub fn backlogged(&mut self, now: Now, session: SessionRef) {
        self.core.handle(now, Input::SessionBacklogged { session }, &mut self.effects);
        self.peers.tell_backlogged(session);
    }

    /// Moves the core's messages to its siblings into their queues.
    pub fn take_core_messages(&mut self) {
        let peers = &mut self.peers;
        self.core.send_to_peers(|to, message| {
            peers.tell(to, message);
            Ok(())
        });
    }

    /// What the shard has counted, as the frame carries it.
    fn count(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut push = |name, value| Counters::push(&mut out, name, value);
        let shard = &self.counters;
        push("turns", shard.turns.count());
        push("system_calls", shard.system_calls.count());
        push("sleeps", shard.sleeps.count());
        push("wakes", shard.wakes.count());
        push("datagrams_received", shard.datagrams_received.count());
        push("sends", shard.sends.count());
        push("device_writes", shard.device_writes.count());
        let allocations_quic = shard.allocations_quic.count();
        push("allocations", shard.allocations.count().saturating_sub(allocations_quic));
        push("allocations_quic", allocations_quic);
        let mut totals =
            [("fired", 0), ("succeeded", 0), ("failed_attempts", 0), ("dead", 0), ("skipped", 0), ("misfired", 0)];
        for counters in self.core.partitions().map(Partition::counters) {
            let Counted { fired, succeeded, failed_attempts, dead, skipped, misfired, .. } = counters;
            for (total, count) in totals.iter_mut().zip([fired, succeeded, failed_attempts, dead, skipped, misfired]) {
                total.1 += count;
            }
        }
        for (name, total) in totals {
            push(name, total);
        }
        push("jobs", self.core.partitions().map(|partition| u64::from(partition.job_count())).sum());
        push("rescheduled", self.core.rescheduled_count());
        push("executions_in_flight", self.in_flight_count() as u64);
        push("memory_bytes", self.core.memory_bytes() as u64);
        out
    }

    /// Which core a frame belongs to.
    #[inline]
    fn owner(&self, frame: &NetFrame<'_>) -> Result<Owner, Close> {
        match FrameType::from_number(frame.frame_type) {
            Some(FrameType::Complete | FrameType::Heartbeat | FrameType::Reattach) => {
                frame::work_job(frame.body).map(|job| Owner::Core(job.partition())).map_err(malformed)
            }
            Some(FrameType::Attach | FrameType::Capacity) => Ok(Owner::Here),
            Some(FrameType::ReadCounters) => Ok(Owner::Counters),
            Some(other) if is_request(other) => {
                frame::request_head(frame.body).map(|(_, partition)| Owner::Core(partition)).map_err(malformed)
            }
            Some(FrameType::Hello) => Err(Close::new(CloseCode::ProtocolViolation, "a session says hello only once")),
            Some(other) => Err(Close::new(CloseCode::ProtocolViolation, format!("`{other}` is for nodes to send"))),
            // net skips unknown frames or ends the session before they come here.
            None => Err(Close::new(CloseCode::UnknownFrame, "unknown frame")),
        }
    }

    fn hello(&mut self, session: SessionId, lane: Lane, frame: &NetFrame<'_>) -> Result<(), Close> {
        if frame.frame_type != FrameType::Hello.number() || lane != Lane::Control {
            return Err(Close::new(CloseCode::HelloExpected, "the first frame must be `hello` on the control lane"));
        }
        let hello = Hello::decode_body(frame.body)
            .map_err(|error| Close::new(CloseCode::MalformedFrame, format!("hello: {error}")))?;
        if !(hello.version_min..=hello.version_max).contains(&PROTOCOL_VERSION) {
            let message = format!(
                "this node speaks protocol version {PROTOCOL_VERSION}, the peer {} to {}",
                hello.version_min, hello.version_max
            );
            return Err(Close::new(CloseCode::UnsupportedVersion, message));
        }
        let Some(found) = self.sessions.get_mut(slot_of(session)).and_then(Option::as_mut) else { return Ok(()) };
        found.welcomed = true;
        self.welcomed.push(session);
        let shards =
            (0..self.facts.partition_count.count()).map(|partition| self.facts.shard_of(PartitionId(partition)).0);
        let partition_shards: Vec<u8> = shards.flat_map(u16::to_le_bytes).collect();
        let shard_ports: Vec<u8> = self.facts.shard_ports.iter().flat_map(|port| port.to_le_bytes()).collect();
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            cluster: self.facts.cluster,
            shard: self.shard.0,
            frame_bytes_max: self.facts.frame_bytes_max,
            payload_bytes_max: self.facts.payload_bytes_max,
            tenant: &found.tenant,
            shard_ports: &shard_ports,
            partition_shards: &partition_shards,
        };
        let mut bytes = Vec::new();
        welcome.encode(&mut bytes);
        self.replies.push(Reply { session, lane, frame: bytes });
        Ok(())
    }

    /// Refuses a frame in the way its sender understands.
    fn refuse(&mut self, session: SessionId, lane: Lane, frame: &NetFrame<'_>, code: RefusalCode, message: &str) {
        let mut bytes = Vec::new();
        let verdict = if code == RefusalCode::NotOwner { Verdict::UnknownJob } else { Verdict::Overloaded };
        match FrameType::from_number(frame.frame_type) {
            Some(FrameType::Complete) => {
                let Ok(Complete { head, .. }) = Complete::decode_body(frame.body) else { return };
                let CompleteHead { job, fire_sequence, token, .. } = head;
                Completed { job, fire_sequence, token, verdict }.encode(&mut bytes);
            }
            Some(FrameType::Reattach) => {
                let Ok(Reattach { job, fire_sequence, token }) = Reattach::decode_body(frame.body) else { return };
                Reattached { job, fire_sequence, token, verdict }.encode(&mut bytes);
            }
            // The one is repeated by the worker in any case, the other has no answer.
            Some(FrameType::Heartbeat | FrameType::ReportStatus) => return,
            _ => {
                // Whatever is refused here begins with its request id.
                let request_id = Reader::new(frame.body).u64("request_id").unwrap_or_default();
                Refused { request_id, code, detail: 0, field: "", message }.encode(&mut bytes);
            }
        }
        self.replies.push(Reply { session, lane, frame: bytes });
    }
}

/// The router at a moment, as the reader of its shard's sessions.
pub struct Intake<'a> {
    router: &'a mut Router,
    now: Now,
}

impl FrameReader for Intake<'_> {
    #[inline]
    fn take(&mut self, session: SessionId, lane: Lane, frame: NetFrame<'_>) -> Result<(), Close> {
        self.router.frame(self.now, session, lane, &frame)
    }

    #[inline]
    fn foresee(&mut self, glance: Glance, frame: NetFrame<'_>) {
        self.router.foresee(glance, frame.frame_type, frame.body);
    }
}

fn malformed(error: tickwheel_wire::DecodeError) -> Close {
    Close::new(CloseCode::MalformedFrame, error.to_string())
}

enum Owner {
    /// The core that owns this partition.
    Core(PartitionId),
    /// The core of the session's own shard.
    Here,
    /// No core: the loop answers.
    Counters,
}

const fn is_request(frame_type: FrameType) -> bool {
    matches!(frame_type.number() >> 8, 1)
}

#[inline]
const fn input_of<'a>(session: SessionRef, identity: &'a Identity, lane: Lane, frame: &NetFrame<'a>) -> Input<'a> {
    let lane = lane_number(lane);
    Input::Frame { session, identity, lane, frame_type: frame.frame_type, body: frame.body }
}

const fn lane_number(lane: Lane) -> u8 {
    lane as u8
}

#[expect(clippy::cast_possible_truncation, reason = "the slot is the low half of the id")]
const fn slot_of(session: SessionId) -> usize {
    (session.0 as u32) as usize
}

//! One shard of the server: the loop that joins core, sessions, log and siblings.
//!
//! A turn: drain the socket, read frames and the siblings' envelopes, let the core handle and fire ([`ShardLoop::decide`]); append
//! what happened to the log, release what has become durable, send ([`ShardLoop::settle`]). With nothing left to do, [`runner`] sleeps
//! until the socket, the log, a sibling or the next deadline calls.
//!
//! Log, snapshot device and socket are parameters and time is passed in, so that the simulator turns the very same loop.
//!
//! Invariants: nothing leaves before its commit is durable ([`outbox`]); a failed log ends the shard; every loop of a turn has a bound,
//! and while the log cannot take more, no more frames are read, so that what waits in memory is bounded too.
//!
//! Deliberately absent: decisions about jobs (the core's), system calls (those of [`crate::runtime`]), clocks, start-up ([`start`]).

pub mod outbox;
mod pacing;
pub mod peers;
pub mod router;
pub mod runner;
mod snapshots;
pub mod start;

use crate::{
    fatal::Fatal,
    node::Control,
    runtime::{
        clock::Reading,
        counters::ShardCounters,
        socket::{DatagramSocket, Outgoing, Sent},
    },
};
use outbox::Outbox;
use pacing::Pace;
use router::{Reply, Router};
use snapshots::Snapshots;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tickwheel_engine::shard::{Effects, Gate, Rescheduled, Shard as Core};
use tickwheel_net::{Close, CloseCode, Endpoint, Event, Lane, SendError, Transmit};
use tickwheel_storage::{Admission, AppendError, CommitLog, CommitSequence, Device, Log, Section, SpaceState};
use tickwheel_wire::{
    Now, PartitionId, SessionId, SessionRef, ShardId,
    frame::{Frame as _, session::GoAway},
};

/// Stream bytes read of one lane before the next session gets its turn.
const LANE_BYTES_MAX: usize = 64 << 10;
/// Sessions read in one turn.
const READS_MAX: usize = 64;
/// Envelopes taken from siblings in one turn.
const ENVELOPES_MAX: usize = 64;
/// Sends in one turn, so that receiving gets its turn again.
const SENDS_MAX: usize = 256;
/// Bytes that wait for a session above which its watches end.
const SLOW_BYTES: usize = 4 << 20;
/// How often a shard whose disk is full asks for space.
const SPACE_RETRY: Duration = Duration::from_millis(100);
/// How long a drained shard goes on turning so that the last frames reach their peers.
const LINGER: Duration = Duration::from_millis(300);

/// What a shard asks of its log besides commits.
pub trait ShardLog: CommitLog {
    /// How much room is left.
    fn space_state(&self) -> SpaceState;

    /// Tries again to get room, after there was none.
    fn retry_space(&mut self);

    /// Notes that a durable snapshot of `partition` covers everything up to `sequence`.
    fn snapshot_taken(&mut self, partition: PartitionId, sequence: u64);
}

impl<D: Device> ShardLog for Log<D> {
    fn space_state(&self) -> SpaceState {
        Self::space_state(self)
    }

    fn retry_space(&mut self) {
        Self::retry_space(self);
    }

    fn snapshot_taken(&mut self, partition: PartitionId, sequence: u64) {
        Self::snapshot_taken(self, partition, sequence);
    }
}

/// The parts of a running shard: over log `L`, snapshot device `D` and socket `S`.
pub struct ShardLoop<L, D, S> {
    id: ShardId,
    control: Arc<Control>,
    router: Router,
    outbox: Outbox,
    endpoint: Endpoint,
    socket: S,
    /// A transmit that the socket could not take.
    blocked: Option<Transmit>,
    send_buffer: Vec<u8>,
    log: L,
    appended: CommitSequence,
    durable: CommitSequence,
    pace: Pace,
    /// Events that wait for the log above which no more is decided; also what closes a batch.
    batch_bytes: usize,
    space_retry_at: Instant,
    snapshots: Snapshots<D>,
    counters: Arc<ShardCounters>,
    gate: Gate,
    takes_reports: bool,
    drain: Drain,
}

/// How far the shard is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// Waits for what runs, at most until then.
    Finishing {
        until: Instant,
    },
    /// Says good-bye.
    Lingering {
        until: Instant,
    },
}

impl<L: ShardLog, D: Device, S: DatagramSocket> ShardLoop<L, D, S> {
    /// One turn; whether it did anything.
    ///
    /// # Errors
    /// [`Fatal`] when the shard cannot go on; everything acknowledged is in the log.
    pub fn turn(&mut self, reading: &Reading) -> Result<bool, Fatal> {
        Ok(self.decide(reading)? | self.settle(reading)?)
    }

    /// The first half of a turn: takes in what came, and lets the core act. What it decided waits in [`ShardLoop::effects`].
    ///
    /// # Errors
    /// As for [`ShardLoop::turn`].
    pub fn decide(&mut self, reading: &Reading) -> Result<bool, Fatal> {
        self.counters.turn();
        let now = reading.now;
        let mut worked = self.receive(reading)?;
        worked |= self.session_events(reading);
        self.judge_space(reading.instant);
        if self.router.effects.event_bytes() < self.batch_bytes {
            worked |= self.read_frames(now);
            worked |= self.read_peers(reading);
            self.router.core.fire(now, &mut self.router.effects);
            for Rescheduled { partition, job_count } in self.router.core.take_rescheduled() {
                let partition = partition.0;
                tracing::info!(
                    partition,
                    job_count,
                    "next firings were computed with the zones at hand; so many have moved"
                );
            }
        }
        self.router.take_core_messages();
        Ok(worked)
    }

    /// The second half of a turn: hands to the log what was decided, and lets leave what is durable.
    ///
    /// # Errors
    /// As for [`ShardLoop::turn`].
    pub fn settle(&mut self, reading: &Reading) -> Result<bool, Fatal> {
        let mut worked = self.commit(reading.instant)?;
        worked |= self.release(reading)?;
        // What is decided but not appended yet will be in the next commits.
        let decided = CommitSequence(self.appended.0 + self.router.effects.commit_count() as u64);
        self.snapshots.advance(&mut self.router.core, &mut self.log, (decided, self.durable), &self.control);
        worked |= self.transmit(reading.instant);
        let system_calls = self.router.peers.flush();
        self.counters.system_calls.add(system_calls);
        Ok(worked)
    }

    /// What was decided and is not with the log yet.
    pub const fn effects(&self) -> &Effects {
        &self.router.effects
    }

    /// The newest commit that was appended, and the newest that the log has reported durable.
    pub const fn commits(&self) -> (CommitSequence, CommitSequence) {
        (self.appended, self.durable)
    }

    /// The sessions that were welcomed and have not ended.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.router.sessions()
    }

    /// Bytes that wait for sessions to take them.
    pub fn backlog_bytes(&self) -> usize {
        self.sessions().filter_map(|session| self.endpoint.backlog_bytes(session)).sum()
    }

    /// The core.
    pub const fn core(&self) -> &Core {
        &self.router.core
    }

    /// The log.
    pub const fn log_mut(&mut self) -> &mut L {
        &mut self.log
    }

    /// The device that snapshots are written through.
    pub const fn snapshot_device_mut(&mut self) -> &mut D {
        self.snapshots.device_mut()
    }

    /// The socket.
    pub const fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Whether the next turn has something to do without anything from outside. May be asked right before a sleep: what a
    /// sibling sent without waking this shard is seen.
    pub fn has_work(&self) -> bool {
        self.router.core.has_work()
            || self.router.peers.has_messages()
            || self.endpoint.has_work()
            || self.snapshots.is_walking()
    }

    fn receive(&mut self, reading: &Reading) -> Result<bool, Fatal> {
        let Self { socket, endpoint, counters, .. } = self;
        let instant = reading.instant;
        let mut received = false;
        socket
            .receive(|datagram| {
                received = true;
                counters.in_quic(|| {
                    endpoint.handle_datagram(instant, datagram.remote, datagram.local_ip, datagram.ecn, datagram.bytes);
                });
            })
            .map_err(|error| Fatal::Shard { shard: self.id.0, reason: format!("its socket is broken: {error}") })?;
        if endpoint.next_timeout().is_some_and(|timeout| timeout <= instant) {
            counters.in_quic(|| endpoint.handle_timeout(instant));
            received = true;
        }
        Ok(received)
    }

    fn session_events(&mut self, reading: &Reading) -> bool {
        let mut worked = false;
        while let Some(event) = self.counters.in_quic(|| self.endpoint.poll_event()) {
            worked = true;
            match event {
                Event::Opened { session, identity, remote } => {
                    tracing::debug!(shard = self.id.0, %remote, name = identity.name, role = %identity.role, "session opened");
                    if let Err(close) = self.router.opened(reading.instant, session, &identity) {
                        self.endpoint.close(reading.instant, session, close);
                    }
                }
                Event::Closed { session, reason } => {
                    tracing::debug!(shard = self.id.0, %reason, "session closed");
                    self.router.closed(reading.now, session);
                }
                Event::Rejected { remote, reason } => {
                    tracing::info!(shard = self.id.0, %remote, %reason, "connection refused");
                }
                _ => {}
            }
        }
        while let Some((session, close)) = self.router.overdue_hello(reading.instant) {
            self.endpoint.close(reading.instant, session, close);
            worked = true;
        }
        worked
    }

    /// Closes the core's gate while the log lives on its reserve, and lets nothing be reported once that is used up.
    fn judge_space(&mut self, instant: Instant) {
        let space = self.log.space_state();
        let takes_reports = space != SpaceState::UsedUp;
        if std::mem::replace(&mut self.takes_reports, takes_reports) && !takes_reports {
            tracing::error!(shard = self.id.0, "the reserve is used up: what workers report has to wait for space");
        }
        self.router.core.take_reports(takes_reports);
        match (space, self.gate) {
            (SpaceState::Reserve { .. } | SpaceState::UsedUp, Gate::Open) => {
                tracing::error!(shard = self.id.0, "the disk is full: submissions are refused, nothing fires");
                self.set_gate(Gate::OutOfSpace);
            }
            (SpaceState::Ample, Gate::OutOfSpace) => {
                tracing::info!(shard = self.id.0, "there is space again: submissions are accepted");
                self.set_gate(Gate::Open);
            }
            _ => {}
        }
        if self.gate == Gate::OutOfSpace && self.space_retry_at <= instant {
            self.space_retry_at = instant + SPACE_RETRY;
            self.log.retry_space();
        }
    }

    fn set_gate(&mut self, gate: Gate) {
        self.gate = gate;
        self.router.core.set_gate(gate);
    }

    fn read_frames(&mut self, now: Now) -> bool {
        let Self { endpoint, router, batch_bytes, .. } = self;
        let mut worked = false;
        for _ in 0..READS_MAX {
            let read = endpoint.read_frames(LANE_BYTES_MAX, &mut router.intake(now));
            if read.is_none() || router.effects.event_bytes() >= *batch_bytes {
                break;
            }
            worked = true;
        }
        let goodbye = (self.gate == Gate::Draining).then(drain_notice);
        for session in router.welcomed.drain(..) {
            if let Some(goodbye) = &goodbye {
                router.replies.push(Reply { session, lane: Lane::Control, frame: goodbye.clone() });
            }
        }
        for reply in router.replies.drain(..) {
            // A session that is gone, or that does not read, needs no answer.
            let _ = endpoint.send(reply.session, reply.lane, &reply.frame);
        }
        worked
    }

    fn read_peers(&mut self, reading: &Reading) -> bool {
        let Self { endpoint, router, .. } = self;
        let mut slow = Vec::new();
        let count = router.peers(reading.now, ENVELOPES_MAX, |session, lane, frames| {
            send(endpoint, reading.instant, session, lane, frames, &mut slow);
        });
        self.warn_slow(reading.now, &slow);
        count > 0
    }

    /// Appends what happened, batch by batch. While the log is busy, or was given something a moment ago, the rest stays where it is,
    /// and the last batch grows with the next turn.
    fn commit(&mut self, instant: Instant) -> Result<bool, Fatal> {
        let mut worked = false;
        while !self.router.effects.is_empty() {
            if self.router.effects.oldest().event_bytes() > 0 && !self.append_oldest(instant)? {
                break;
            }
            self.outbox.hold(self.router.effects.oldest_mut(), self.appended);
            self.router.effects.drop_oldest();
            worked = true;
        }
        Ok(worked)
    }

    /// Appends the oldest batch; whether it was time, and the log took it.
    fn append_oldest(&mut self, instant: Instant) -> Result<bool, Fatal> {
        let batch = self.router.effects.oldest();
        if !self.pace.allows(instant, batch.event_bytes(), self.durable < self.appended) {
            return Ok(false);
        }
        let sections = batch.sections().map(|section| Section {
            partition: section.partition,
            first_sequence: section.first_sequence,
            event_count: section.event_count,
            bytes: section.bytes,
        });
        // Whether there is room was judged before anything was decided; what is decided has to be logged.
        match self.log.append(sections, Admission::Reserve) {
            Ok(commit) => {
                self.appended = commit;
                self.pace.appended(instant);
            }
            Err(AppendError::Full | AppendError::OutOfSpace) => return Ok(false),
            Err(error) => return Err(Fatal::LogFailed { shard: self.id.0, reason: error.to_string() }),
        }
        self.snapshots.logged(batch.sections().map(|section| (section.partition, section.bytes.len())));
        Ok(true)
    }

    /// Sends what has become durable.
    fn release(&mut self, reading: &Reading) -> Result<bool, Fatal> {
        let durable =
            self.log.poll().map_err(|error| Fatal::LogFailed { shard: self.id.0, reason: error.to_string() })?;
        let advanced = durable > std::mem::replace(&mut self.durable, durable);
        let Self { outbox, endpoint, router, id, .. } = self;
        let mut slow = Vec::new();
        let released = outbox.release(durable, |output, frames| {
            if output.session.shard == *id {
                send(endpoint, reading.instant, output.session.session, output.lane, frames, &mut slow);
            } else {
                router.peers.deliver(output.session, output.lane, frames);
            }
        });
        self.warn_slow(reading.now, &slow);
        Ok(released || advanced)
    }

    /// Ends the watches of sessions that read too slowly, on every shard, before their backlog ends the sessions themselves.
    fn warn_slow(&mut self, now: Now, slow: &[SessionId]) {
        for session in slow {
            self.router.backlogged(now, SessionRef { shard: self.id, session: *session });
        }
    }

    fn transmit(&mut self, instant: Instant) -> bool {
        self.counters.in_quic(|| self.endpoint.flush(instant));
        let mut worked = false;
        for _ in 0..SENDS_MAX {
            let segments_max = self.socket.segments_max(1_200);
            let next = match self.blocked.take() {
                Some(transmit) => Some(transmit),
                None => {
                    let Self { endpoint, counters, send_buffer, .. } = self;
                    counters.in_quic(|| endpoint.poll_transmit(instant, segments_max, send_buffer))
                }
            };
            let Some(transmit) = next else { break };
            let outgoing = Outgoing {
                destination: transmit.destination,
                source_ip: transmit.source_ip,
                ecn: transmit.ecn,
                contents: &self.send_buffer,
                segment_bytes: transmit.segment_bytes,
            };
            if self.socket.try_send(&outgoing) == Sent::WouldBlock {
                self.blocked = Some(transmit);
                break;
            }
            worked = true;
        }
        worked
    }

    /// Moves the shard towards its end once the node drains; whether it is over. To be asked after each turn.
    pub fn is_over(&mut self, reading: &Reading) -> bool {
        let instant = reading.instant;
        match self.drain {
            Drain::No => {
                if let Some(limit) = self.control.drain_limit() {
                    self.begin_drain(instant + limit);
                }
                false
            }
            Drain::Finishing { until } => {
                let finished = self.router.in_flight_count() == 0;
                self.control.report_finished(self.id, finished);
                if (self.control.all_finished() || instant >= until) && self.is_settled() {
                    let goodbye = Close::new(CloseCode::ShuttingDown, "the server stops");
                    self.endpoint.close_all(instant, &goodbye);
                    self.drain = Drain::Lingering { until: instant + LINGER };
                }
                false
            }
            Drain::Lingering { until } => instant >= until,
        }
    }

    fn begin_drain(&mut self, until: Instant) {
        self.set_gate(Gate::Draining);
        let frame = drain_notice();
        for session in self.router.sessions() {
            // A session that is gone needs no warning.
            let _ = self.endpoint.send(session, Lane::Control, &frame);
        }
        self.drain = Drain::Finishing { until };
    }

    /// Whether everything that was decided is durable and on its way.
    fn is_settled(&self) -> bool {
        self.router.effects.is_empty()
            && self.outbox.is_empty()
            && self.durable == self.appended
            && !self.router.peers.has_backlog()
            && !self.router.peers.has_messages()
    }

    /// When the next turn must come at the latest.
    pub fn deadline(&self, reading: &Reading) -> Option<Instant> {
        let core = self.router.core.next_deadline().map(|at| {
            let delay = at.saturating_since(reading.now.wall);
            reading.instant + delay.min(Duration::from_secs(3_600))
        });
        let retry = (self.gate == Gate::OutOfSpace).then_some(self.space_retry_at);
        let drain = match self.drain {
            Drain::No => None,
            Drain::Finishing { .. } => Some(reading.instant + Duration::from_millis(5)),
            Drain::Lingering { until } => Some(until),
        };
        let backlog = (self.blocked.is_some() || self.router.peers.has_backlog())
            .then(|| reading.instant + Duration::from_micros(200));
        // With a commit due and the log busy it is the log's completion that wakes the shard, at the latest this.
        let commit = (!self.router.effects.is_empty())
            .then(|| self.pace.waits_until().max(reading.instant + Duration::from_micros(200)));
        let hello = self.router.next_hello();
        [core, self.endpoint.next_timeout(), hello, retry, drain, backlog, commit].into_iter().flatten().min()
    }
}

/// The frame that tells a session to come back later.
fn drain_notice() -> Vec<u8> {
    let mut frame = Vec::new();
    GoAway { retry_ms: 1_000, message: "the server drains" }.encode(&mut frame);
    frame
}

/// Queues frames for a session of this shard. A peer that does not read what it is sent is disconnected; one that is gone
/// already is no concern: what it was sent is durable and will be asked for again.
fn send(
    endpoint: &mut Endpoint,
    instant: Instant,
    session: SessionId,
    lane: u8,
    frames: &[u8],
    slow: &mut Vec<SessionId>,
) {
    let lane = Lane::from_index(u64::from(lane)).expect("the core names one of the four lanes");
    if let Err(SendError::Backlog { .. }) = endpoint.send(session, lane, frames) {
        endpoint.close(instant, session, Close::new(CloseCode::SlowPeer, "the peer does not read what it is sent"));
    } else if endpoint.backlog_bytes(session).is_some_and(|bytes| bytes > SLOW_BYTES) && !slow.contains(&session) {
        slow.push(session);
    }
}

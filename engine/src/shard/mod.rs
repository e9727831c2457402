//! The shard core: the partitions of one shard, and everything volatile around them.
//!
//! It owns one timing wheel, one dispatcher, the workers' attachments and the watches; all of that is rebuilt from the
//! partitions and from what the sessions say. Inputs and time come in, [`Effects`] go out.
//!
//! One turn of the caller:
//! 1. [`Shard::handle`] for each input (frames of sessions, ends of sessions, messages of siblings);
//! 2. [`Shard::fire`] once;
//! 3. [`Shard::send_to_peers`];
//! 4. give the sections of [`Effects::oldest`] to the log, keep its outputs until that batch and all before it are durable,
//!    [`Effects::drop_oldest`], and so on while there are more and the log takes them;
//! 5. begin again at once while [`Shard::has_work`], else sleep until [`Shard::next_deadline`] or an input.
//!
//! Invariants: nothing is told to anyone but through the outputs, which wait for durability; a job has at most one live wheel
//! entry and at most one key in the dispatcher; every loop within a call is bounded. Deliberately absent: clocks, sockets, the
//! log, and forwarding (the caller brings each frame to the shard that owns its partition).

mod arrange;
mod calendars;
mod config;
mod directory;
mod dispatching;
mod effects;
mod input;
mod jobs;
mod queries;
mod reaper;
mod rescheduler;
mod statuses;
mod watch;
mod workers;
mod working;

#[cfg(test)]
mod tests;

pub use config::{PartitionLimits, ShardConfig};
pub use directory::{Directory, DirectoryError, Identity, Pool, Role, Tenant};
pub use effects::{Batch, Effects, EventBuffer, Output, Section};
pub use input::{Input, PeerMessage, WorkerProfile};
pub use rescheduler::Rescheduled;

use crate::{
    dispatcher::{Dispatcher, Limits, WorkerHandle},
    hashing::Map,
    partition::{Partition, SnapshotStep, Turn},
    schedule::Zones,
    wheel::{Armed, Wheel},
};
use reaper::Reaper;
use rescheduler::Rescheduler;
use statuses::Statuses;
use std::{collections::VecDeque, time::Duration};
use tickwheel_wire::{
    DecodeError, JobId, Now, PartitionId, SessionRef, ShardId, Timestamp, Token,
    frame::{Frame, FrameType, session::RefusalCode, session::Refused},
};
use watch::Watch;
use workers::WorkerBook;

/// Wheel entries that one call of [`Shard::fire`] takes at most.
const DUE_PER_CALL: usize = 4_096;
/// Jobs whose memory is asked for together, before they are worked on one after the other.
const AHEAD: usize = 64;
/// Messages for siblings that wait before words about credit are held back. The others are bounded by what causes them: a session,
/// or an execution in flight.
const OUTBOX_LOANS_MAX: usize = 4_096;
/// The slot number of a partition's own wheel entry: its next finished job expires.
const EXPIRY_SLOT: u32 = u32::MAX;
/// Finished jobs that one call drops at most per partition.
const EXPIRIES_PER_CALL: usize = 1_024;

/// What the node accepts at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Everything.
    #[default]
    Open,
    /// The log is nearly full: only what workers report is taken, as long as [`Shard::take_reports`] says so; nothing fires.
    OutOfSpace,
    /// The node drains: nothing new is taken, nothing fires; what runs may end.
    Draining,
}

/// A partition and what is volatile about it.
struct Owned {
    partition: Partition,
    /// The wheel entry for the next expiry.
    expiry: Armed,
    /// The partition's index of each worker of the shard, by the worker's place in the book.
    worker_hints: Vec<u16>,
    watches: Vec<Watch>,
}

/// The core of one shard. See the module's text.
pub struct Shard {
    config: ShardConfig,
    gate: Gate,
    /// Whether reports of workers are taken; they are with every gate.
    takes_reports: bool,
    /// By partition number.
    partitions: Vec<Option<Box<Owned>>>,
    wheel: Wheel,
    dispatcher: Dispatcher,
    zones: Zones,
    workers: WorkerBook,
    reaper: Reaper,
    rescheduler: Rescheduler,
    /// Slots of attempts that ended here while their worker still runs them, until it says so.
    abandoned: Map<(JobId, Token), AbandonedPlace>,
    statuses: Statuses,
    outbox: VecDeque<(ShardId, PeerMessage)>,
    due: Vec<(u64, Armed)>,
    /// Ready executions that have a worker's slot each, while they are dispatched.
    offers: Vec<(u64, WorkerHandle)>,
    scratch: Vec<u8>,
    now: Now,
    /// Work was left over by the last turn.
    unfinished: bool,
    /// Insertions, cancellations and deliveries since the last purge.
    wheel_changes: usize,
    watch_count: usize,
}

#[derive(Clone, Copy, Debug)]
enum AbandonedPlace {
    Here(WorkerHandle),
    AtHome(SessionRef),
}

impl Shard {
    /// A core without partitions.
    ///
    /// # Panics
    /// If the shard's number is not below the count.
    pub fn new(config: ShardConfig, now: Now) -> Self {
        let mut dispatcher = Dispatcher::new(config.shard, config.shard_count, Limits::default());
        for (tenant, settings) in config.directory.tenants() {
            dispatcher.set_weight(tenant, settings.weight).expect("tenants are numbered from 0");
        }
        Self {
            gate: Gate::Open,
            takes_reports: true,
            partitions: (0..config.partition_count.count()).map(|_| None).collect(),
            wheel: Wheel::new(now.wall),
            dispatcher,
            zones: Zones::of(config.zones.clone()),
            workers: WorkerBook::default(),
            reaper: Reaper::default(),
            rescheduler: Rescheduler::default(),
            abandoned: Map::default(),
            statuses: Statuses::default(),
            outbox: VecDeque::new(),
            due: Vec::with_capacity(DUE_PER_CALL),
            offers: Vec::with_capacity(AHEAD),
            scratch: Vec::new(),
            now,
            unfinished: false,
            wheel_changes: 0,
            watch_count: 0,
            config,
        }
    }

    /// Takes a partition over and rebuilds what is volatile about it: wheel entries, ready queue, and the wait of its executions in
    /// flight for their workers. Takes time in proportion to its jobs.
    ///
    /// # Panics
    /// If the shard has the partition already.
    pub fn adopt(&mut self, partition: Partition, now: Now) {
        self.advance(now);
        let id = partition.id();
        let place = &mut self.partitions[usize::from(id.0)];
        assert!(place.is_none(), "a partition is adopted once");
        *place =
            Some(Box::new(Owned { partition, expiry: Armed::NONE, worker_hints: Vec::new(), watches: Vec::new() }));
        self.await_workers(id, now);
        let slot_count = self.owned(id).partition.slot_count();
        for slot in 0..slot_count {
            self.arm_adopted(id, slot, now);
        }
        self.arm_expiry(id);
        self.await_rescheduling(id);
        self.unfinished = true;
    }

    /// Gives a partition up. Its watches end without a word; the caller closes or redirects their sessions.
    ///
    /// # Panics
    /// If the shard does not have the partition.
    pub fn release(&mut self, id: PartitionId) -> Partition {
        let mut owned = self.partitions[usize::from(id.0)].take().expect("only an adopted partition can be released");
        self.rescheduler.remove(id);
        for slot in 0..owned.partition.slot_count() {
            let record = owned.partition.volatile(slot);
            if std::mem::replace(&mut record.armed, Armed::NONE) != Armed::NONE {
                self.wheel.cancel();
            }
            record.set(crate::partition::record::Flag::QUEUED, false);
        }
        if owned.expiry != Armed::NONE {
            self.wheel.cancel();
        }
        self.watch_count -= owned.watches.len();
        self.statuses.forget_partition(id);
        for place in 0..owned.partition.executions().place_count() {
            if let Some(execution) = owned.partition.executions().at(place) {
                self.vacate(execution.volatile.place);
            }
        }
        owned.partition
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Now, input: Input<'_>, effects: &mut Effects) {
        self.advance(now);
        match input {
            Input::Frame { session, identity, lane, frame_type, body } => {
                let origin = Origin { session, identity, lane };
                self.handle_frame(&origin, frame_type, body, effects);
            }
            Input::SessionClosed { session } => {
                self.tell_peers(&PeerMessage::SessionClosed(session));
                self.close_session(session);
            }
            Input::SessionBacklogged { session } => self.end_watches(session, Some(effects)),
            Input::Peer { from, message } => self.handle_peer(from, message),
        }
    }

    /// Asks for the memory of a job of which something will be handed in soon. Only for speed.
    #[inline]
    pub fn foresee(&self, job: JobId) {
        self.prefetch(key_of(job.partition(), job.slot()), Partition::prefetch_record);
    }

    /// Asks for the memory of a job's execution in flight; to be called some time after [`Shard::foresee`].
    #[inline]
    pub fn foresee_execution(&self, job: JobId) {
        self.prefetch(key_of(job.partition(), job.slot()), Partition::prefetch_execution);
    }

    /// Lets time act: due jobs, time-outs, lost workers; then dispatches what is ready to workers with free slots. Bounded; see
    /// [`Shard::has_work`].
    pub fn fire(&mut self, now: Now, effects: &mut Effects) {
        self.advance(now);
        self.unfinished = false;
        if self.gate == Gate::Open {
            self.take_due(effects);
            self.reap(effects);
            self.reschedule(effects);
            self.dispatch_ready(effects);
            self.purge_wheel();
        }
        let outbox = &mut self.outbox;
        let may_rest = self.dispatcher.settle(|peer, message| {
            let has_room = outbox.len() < OUTBOX_LOANS_MAX;
            if has_room {
                outbox.push_back((peer, PeerMessage::Loan(message)));
            }
            has_room
        });
        self.unfinished |= !may_rest && self.gate == Gate::Open;
    }

    /// When to call [`Shard::fire`] again at the latest; `None`: nothing waits for time.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.gate != Gate::Open {
            return None;
        }
        let workers = self.workers.next_deadline().map(|deadline| self.wall_at(deadline));
        self.wheel.next_deadline().into_iter().chain(workers).min()
    }

    /// Whether the next turn has something to do without any input or waiting.
    pub const fn has_work(&self) -> bool {
        self.unfinished
    }

    /// Offers the messages for sibling shards, in order per sibling. `send` gives a message back that the sibling's queue
    /// does not take; it and the later ones for that sibling are offered again by the next call. Messages tell nothing that has
    /// to be durable first. They must be offered before frames are forwarded that came after the input which caused them.
    ///
    /// Whether everything was taken.
    pub fn send_to_peers(&mut self, mut send: impl FnMut(ShardId, PeerMessage) -> Result<(), PeerMessage>) -> bool {
        let mut full: Vec<ShardId> = Vec::new();
        for _ in 0..self.outbox.len() {
            let Some((peer, message)) = self.outbox.pop_front() else { break };
            if full.contains(&peer) {
                self.outbox.push_back((peer, message));
            } else if let Err(message) = send(peer, message) {
                full.push(peer);
                self.outbox.push_back((peer, message));
            }
        }
        self.outbox.is_empty()
    }

    /// Sets what is accepted from now on.
    pub const fn set_gate(&mut self, gate: Gate) {
        self.gate = gate;
    }

    /// Says whether there is room for what workers report. Where there is none, they are told to repeat it.
    pub const fn take_reports(&mut self, takes_reports: bool) {
        self.takes_reports = takes_reports;
    }

    /// A partition of this shard.
    pub fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.get(usize::from(id.0))?.as_ref().map(|owned| &owned.partition)
    }

    /// The partitions of this shard.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().flatten().map(|owned| &owned.partition)
    }

    /// Begins a snapshot of a partition; false if the shard does not have it or one is being written.
    pub fn begin_snapshot(&mut self, id: PartitionId) -> bool {
        self.owned_mut(id).is_some_and(|owned| owned.partition.begin_snapshot())
    }

    /// Takes a partition's snapshot one step further; `None` if the shard does not have the partition.
    ///
    /// # Panics
    /// If no snapshot was begun.
    pub fn snapshot_step(&mut self, id: PartitionId, out: &mut Vec<u8>) -> Option<SnapshotStep> {
        Some(self.owned_mut(id)?.partition.snapshot_step(out))
    }

    /// Gives up the snapshot of a partition that is being written, if any.
    pub fn abandon_snapshot(&mut self, id: PartitionId) {
        if let Some(owned) = self.owned_mut(id) {
            owned.partition.abandon_snapshot();
        }
    }

    /// The dispatcher, to be looked at.
    pub const fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// Bytes of memory that the partitions and the wheel hold, by their own accounting.
    pub fn memory_bytes(&self) -> usize {
        self.partitions().map(Partition::memory_bytes).sum::<usize>() + self.wheel.memory_bytes()
    }

    fn handle_frame(&mut self, origin: &Origin<'_>, frame_type: u16, body: &[u8], effects: &mut Effects) {
        let Some(frame_type) = FrameType::from_number(frame_type) else {
            let detail = u64::from(frame_type);
            let message = "the frame's type is unknown";
            return origin.refuse(effects, &Refusal { detail, ..Refusal::new(0, RefusalCode::UnknownFrame, message) });
        };
        let result = match origin.identity.role {
            Role::Worker => self.handle_work(origin, frame_type, body, effects),
            Role::Admin | Role::Client => self.handle_request(origin, frame_type, body, effects),
        };
        if let Err(error) = result {
            let request_id = request_id_of(frame_type, body);
            let message = error.to_string();
            origin.refuse(effects, &Refusal::new(request_id, RefusalCode::Malformed, &message));
        }
    }

    fn handle_peer(&mut self, from: ShardId, message: PeerMessage) {
        match message {
            PeerMessage::Loan(message) => self.dispatcher.on_message(from, message),
            PeerMessage::WorkerUp(profile) => self.worker_up(&profile, None),
            PeerMessage::SessionClosed(session) => self.close_session(session),
            PeerMessage::Occupied(session) => {
                if let Some(handle) = self.workers.handle_of(session) {
                    self.dispatcher.occupy(handle);
                }
            }
            PeerMessage::Vacated(session) => {
                if let Some(handle) = self.workers.handle_of(session) {
                    self.dispatcher.release(handle);
                }
            }
        }
        self.unfinished = true;
    }

    fn tell_peers(&mut self, message: &PeerMessage) {
        for peer in 0..self.config.shard_count {
            if ShardId(peer) != self.config.shard {
                self.outbox.push_back((ShardId(peer), message.clone()));
            }
        }
    }

    fn advance(&mut self, now: Now) {
        assert!(now.wall >= self.now.wall && now.monotonic >= self.now.monotonic, "time never decreases");
        self.now = now;
    }

    /// Wall time of a moment on the monotonic clock.
    fn wall_at(&self, monotonic: Duration) -> Timestamp {
        self.now.wall.saturating_add(monotonic.saturating_sub(self.now.monotonic))
    }

    fn owned(&self, id: PartitionId) -> &Owned {
        self.partitions[usize::from(id.0)].as_ref().expect("the partition was looked up before")
    }

    #[inline]
    fn owned_mut(&mut self, id: PartitionId) -> Option<&mut Owned> {
        self.partitions.get_mut(usize::from(id.0))?.as_deref_mut()
    }

    /// Calls `decide` with a partition of this shard and the turn's context.
    #[inline]
    fn decide<T>(
        &mut self,
        id: PartitionId,
        effects: &mut Effects,
        decide: impl FnOnce(&mut Partition, &mut Turn<'_>) -> T,
    ) -> T {
        let owned = self.partitions[usize::from(id.0)].as_deref_mut().expect("the partition was looked up before");
        let mut turn = Turn { now: self.now, zones: &mut self.zones, events: effects.buffer(id) };
        decide(&mut owned.partition, &mut turn)
    }
}

/// Who sent a frame.
struct Origin<'a> {
    session: SessionRef,
    identity: &'a Identity,
    lane: u8,
}

/// A refusal before it is encoded.
struct Refusal<'a> {
    request_id: u64,
    code: RefusalCode,
    detail: u64,
    field: &'a str,
    message: &'a str,
}

impl<'a> Refusal<'a> {
    const fn new(request_id: u64, code: RefusalCode, message: &'a str) -> Self {
        Self { request_id, code, detail: 0, field: "", message }
    }
}

impl Origin<'_> {
    #[inline]
    fn reply<'f>(&self, effects: &mut Effects, frame: &impl Frame<'f>) {
        effects.send(self.session, self.lane, |out| frame.encode(out));
    }

    fn refuse(&self, effects: &mut Effects, refusal: &Refusal<'_>) {
        let Refusal { request_id, code, detail, field, message } = *refusal;
        self.reply(effects, &Refused { request_id, code, detail, field, message });
    }
}

/// The id of the request in a frame that could not be decoded, as far as there is one.
fn request_id_of(frame_type: FrameType, body: &[u8]) -> u64 {
    let named = frame_type.number() >> 8 == 1 || frame_type == FrameType::Attach;
    let decoded: Result<u64, DecodeError> = tickwheel_wire::Reader::new(body).u64("request_id");
    decoded.ok().filter(|_| named).unwrap_or(0)
}

/// The key of a job in wheel and dispatcher.
#[inline]
fn key_of(id: PartitionId, slot: u32) -> u64 {
    u64::from(id.0) << 32 | u64::from(slot)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two fields of the key")]
fn split_key(key: u64) -> (PartitionId, u32) {
    (PartitionId((key >> 32) as u16), key as u32)
}

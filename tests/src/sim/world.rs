//! A run: virtual time, the node, the actors, the network between them, and the faults, until all that was due is done.
//!
//! Time jumps from one thing that is due to the next. A turn of a shard takes time, drawn anew for each. At the end the faults stop,
//! workers become honest, and what is due has to be done within [`LIVENESS_MAX`]; then the node is stopped and started, killed
//! and started, and has to come back as it was.

mod rot;

use super::{
    auditor::{Auditor, Tally},
    client::Client,
    network::{Network, Packet, Weather},
    node::{Node, Process, Recovery, Running, StartFailure, judge_fatal, shard_address},
    plan::{Backend, Dropped, Fault, Plan, PlannedFault},
    random::Stream,
    trace::Trace,
    violation::{Promise, Violation, demand},
    worker::Worker,
};
use bytes::BytesMut;
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};
use tickwheel_storage::simulated_disk::{DiskFaults, Latency};
use tickwheel_wire::{PartitionCount, Timestamp, mix64};

/// Virtual time within which everything due has to be done once the faults have stopped.
pub const LIVENESS_MAX: Duration = Duration::from_secs(180);
/// How long an actor waits for a connection before it tries another.
pub const CONNECT_MAX: Duration = Duration::from_secs(4);
/// The random share of the delay between attempts: the default, which every job of a plan keeps.
pub const RETRY_JITTER_PERCENT: u8 = 20;
/// How long a disturbance of the network may be felt after its end: until the last session that it broke is given up.
const DISTURBANCE_FELT: Duration = Duration::from_secs(40);
/// A kill that waits for writes to be under way comes after this at the latest.
const KILL_WAITS_MAX: Duration = Duration::from_secs(8);
/// A power failure that waits for a step of the disk comes after this at the latest.
const POWER_LOSS_WAITS_MAX: Duration = Duration::from_secs(15);
/// Bits that flip when the disk rots, each on a copy of its own.
const ROTTEN_BITS: u64 = 6;
/// Sectors that cannot be read then, each on a copy of its own.
const HIDDEN_SECTORS: u64 = 3;
/// Longest time between two looks at what a loss of power would leave.
const LOOK_AHEAD_EVERY_MS: u64 = 6_000;
/// Turns in which the shard's thread is kept off its core, in thousandths.
const STALLS: u64 = 5;
/// For how long at most.
const STALL_US_MAX: u64 = 60_000;
/// How long a node that could not start waits.
const START_AGAIN: Duration = Duration::from_secs(1);
/// Steps without any time passing that no sound run needs.
const STEPS_AT_ONCE_MAX: u32 = 100_000;

/// What an actor sees of the world.
pub struct ActorContext<'a> {
    /// Virtual time.
    pub now: Duration,
    /// The moment at which virtual time began.
    pub base: Instant,
    /// The latest that the node's wall clock has shown: what it answers now it may have decided then.
    pub wall: Timestamp,
    /// What the node's wall clock shows.
    pub node_wall: Timestamp,
    /// How many shards the node has.
    pub shards: u16,
    /// How many partitions the cluster has.
    pub partition_count: PartitionCount,
    /// Who hears of everything.
    pub auditor: &'a mut Auditor,
    /// What is written down.
    pub trace: &'a mut Trace,
}

impl ActorContext<'_> {
    /// The moment as the libraries take it.
    pub fn instant(&self) -> Instant {
        self.base + self.now
    }
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The broken promise, if one was.
    pub violation: Option<Violation>,
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// What was counted.
    pub tally: Tally,
    /// Equal for equal runs.
    pub fingerprint: u64,
    /// What happened, if asked for.
    pub trace: Vec<String>,
}

/// Runs the plan of `seed`, less what is dropped.
pub fn run(seed: u64, dropped: &Dropped, is_traced: bool) -> Outcome {
    let mut world = World::new(Plan::new(seed, dropped), Trace::new(is_traced));
    let result = catch_unwind(AssertUnwindSafe(|| world.live()));
    let violation = match result {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(Violation::new(Promise::Alive, format!("panic: {}", text.unwrap_or_default())))
        }
    };
    if let Some(violation) = &violation {
        world.trace.note(world.now, "auditor", format_args!("{violation}"));
    }
    Outcome {
        violation,
        virtual_time: world.now,
        tally: world.auditor.tally,
        fingerprint: world.fingerprint,
        trace: world.trace.lines().to_vec(),
    }
}

#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Life {
    Down { until: Duration, shards: u16 },
    Up(Process),
}

/// A condition that ends by itself.
#[derive(Clone, Copy, Debug)]
enum Condition {
    DiskErrors,
    SlowDisk,
    FullDisk,
    LyingDisk,
    Cut { actor: IpAddr, one_way: bool },
    BadNetwork,
    ClockFreeze,
    UnknownResults,
}

struct World {
    plan: Plan,
    now: Duration,
    base: Instant,
    node: Node,
    life: Life,
    ended_shards: Vec<bool>,
    shards: u16,
    is_draining: bool,
    shards_after_stop: Option<u16>,
    paused_until: Duration,
    power_fails_by: Option<(Duration, Duration, u16)>,
    network: Network,
    clients: Vec<Client>,
    workers: Vec<Worker>,
    faults: VecDeque<PlannedFault>,
    conditions: Vec<(Duration, Condition)>,
    is_log_excused: bool,
    is_over: bool,
    clock_offset_us: i64,
    frozen_at: Option<Timestamp>,
    latest_wall: Timestamp,
    disturbed_until: Duration,
    look_ahead_at: Duration,
    look_stream: Stream,
    turn_stream: Stream,
    auditor: Auditor,
    trace: Trace,
    fingerprint: u64,
    steps_at_once: u32,
}

impl World {
    fn new(plan: Plan, trace: Trace) -> Self {
        let base = Instant::now();
        let settings = plan.settings;
        let weather = calm_weather(&plan);
        let clients =
            (0..plan.clients).map(|index| Client::new(index, plan.clients, &plan.operations, plan.seed)).collect();
        let workers = plan.workers.iter().map(|worker| Worker::new(*worker, plan.seed)).collect();
        Self {
            now: Duration::ZERO,
            base,
            node: Node::new(settings, base, plan.seed),
            life: Life::Down { until: Duration::ZERO, shards: settings.shards },
            ended_shards: Vec::new(),
            shards: settings.shards,
            is_draining: false,
            shards_after_stop: None,
            paused_until: Duration::ZERO,
            power_fails_by: None,
            network: Network::new(plan.seed, weather),
            clients,
            workers,
            faults: plan.faults.iter().cloned().collect(),
            conditions: Vec::new(),
            is_log_excused: false,
            is_over: false,
            clock_offset_us: 0,
            frozen_at: None,
            latest_wall: plan.start,
            disturbed_until: Duration::ZERO,
            look_ahead_at: Duration::ZERO,
            look_stream: Stream::new(plan.seed, "looks ahead", 0),
            turn_stream: Stream::new(plan.seed, "turns", 0),
            auditor: Auditor::new(settings),
            trace,
            fingerprint: plan.seed,
            steps_at_once: 0,
            plan,
        }
    }

    fn live(&mut self) -> Result<(), Violation> {
        let settings = self.plan.settings;
        self.trace.note(self.now, "plan", format_args!("{settings:?}"));
        for worker in self.plan.workers.clone() {
            self.trace.note(self.now, "plan", format_args!("{worker:?}"));
        }
        let active = self.plan.active;
        self.run_until(active, |world| world.now >= active)?;
        self.calm();
        let since = self.wall();
        self.settle(since)?;
        let now = self.now;
        self.clients.iter_mut().for_each(|client| client.look_at_everything(now));
        self.settle(since)?;
        self.check_delivered()?;
        self.come_back()
    }

    /// Stops and starts the node, then kills and starts it.
    fn come_back(&mut self) -> Result<(), Violation> {
        if self.is_over {
            return Ok(());
        }
        self.strike(Fault::Restart { limit: Duration::from_millis(500), shards: 2 })?;
        let limit = self.now + Duration::from_secs(30);
        self.run_until(limit, |world| !world.is_draining && matches!(world.life, Life::Up(_)))?;
        demand!(
            self.is_over || matches!(self.life, Life::Up(_)),
            Liveness,
            "the node did not come back after a restart"
        );
        let later = self.now + Duration::from_secs(3);
        self.run_until(later, |_| false)?;
        self.strike(Fault::Kill { writes: 0, down: Duration::from_millis(10), shards: 1 })?;
        let limit = self.now + Duration::from_secs(30);
        self.run_until(limit, |world| matches!(world.life, Life::Up(_)))?;
        demand!(
            self.is_over || matches!(self.life, Life::Up(_)),
            Liveness,
            "the node did not come back after it was killed"
        );
        Ok(())
    }

    /// Waits until everybody is answered, and what had come due before `since` is done.
    fn settle(&mut self, since: Timestamp) -> Result<(), Violation> {
        self.run_until(self.now + LIVENESS_MAX, |world| {
            matches!(world.life, Life::Up(_))
                && world.clients.iter().all(Client::is_done)
                && world.auditor.unfinished(world.wall(), since).is_empty()
        })?;
        if self.is_over {
            return Ok(());
        }
        demand!(matches!(self.life, Life::Up(_)), Liveness, "the node is down");
        for client in &self.clients {
            demand!(client.is_done(), Liveness, "{}", client.waits_for());
        }
        let unfinished = self.auditor.unfinished(self.wall(), since);
        demand!(unfinished.is_empty(), Liveness, "at {} not done: {}", self.wall(), unfinished.join("; "));
        Ok(())
    }

    /// Waits for the moment at which nobody is owed anything.
    fn check_delivered(&mut self) -> Result<(), Violation> {
        let is_delivered = |world: &Self| match &world.life {
            Life::Up(process) => process.shards.iter().all(|running| running.shard.backlog_bytes() == 0),
            Life::Down { .. } => true,
        };
        self.run_until(self.now + Duration::from_secs(30), is_delivered)?;
        demand!(self.is_over || is_delivered(self), Bounded, "what the node keeps for its sessions never runs out");
        Ok(())
    }

    /// The faults stop.
    fn calm(&mut self) {
        self.trace.note(self.now, "world", format_args!("the faults stop"));
        self.faults.clear();
        let conditions = std::mem::take(&mut self.conditions);
        conditions.into_iter().for_each(|(_, condition)| self.end(condition));
        self.paused_until = self.now;
        // A power failure that has struck already is still to be dealt with.
        if !self.node.disk.is_off() {
            self.power_fails_by = None;
            self.node.disk.crash_at(u64::MAX);
        }
        self.network.weather = Weather { delay_us_max: self.network.weather.delay_us_max, ..Weather::default() };
        let now = self.now;
        self.workers.iter_mut().for_each(|worker| worker.become_honest(now));
    }

    /// Runs until `is_done`, or until `end`.
    fn run_until(&mut self, end: Duration, mut is_done: impl FnMut(&Self) -> bool) -> Result<(), Violation> {
        while !self.is_over {
            self.step()?;
            if is_done(self) {
                return Ok(());
            }
            let next = self.next_time().unwrap_or(end).max(self.now);
            if next > end {
                self.now = self.now.max(end);
                break;
            }
            self.steps_at_once = if next > self.now { 0 } else { self.steps_at_once + 1 };
            demand!(self.steps_at_once < STEPS_AT_ONCE_MAX, Liveness, "time stands still");
            self.now = next;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.node.disk.advance_to(self.now);
        self.node.store.advance_to(self.now);
        if self.now <= self.disturbed_until {
            self.auditor.disturbed(self.now);
        }
        let is_slow = |(_, condition): &(Duration, Condition)| matches!(condition, Condition::SlowDisk);
        if self.has_condition_on_log() || self.conditions.iter().any(is_slow) {
            self.auditor.held(self.now);
        }
        self.end_conditions();
        while self.next_fault().is_some_and(|at| at <= self.now) {
            let planned = self.faults.pop_front().expect("it was looked at");
            self.trace.note(self.now, "fault", format_args!("{} {:?}", planned.label, planned.fault));
            self.strike(planned.fault)?;
        }
        self.tend_node()?;
        while let Some(packet) = self.network.receive(self.now) {
            self.deliver(packet);
        }
        self.turn_actors()?;
        self.turn_shards()
    }

    /// When the next fault strikes. One that waits for writes is asked for again after every step.
    fn next_fault(&self) -> Option<Duration> {
        let planned = self.faults.front()?;
        match planned.fault {
            Fault::Kill { writes, .. } if self.node.disk.in_flight_count() < writes => {
                Some(planned.at + KILL_WAITS_MAX)
            }
            _ => Some(planned.at),
        }
    }

    fn next_time(&mut self) -> Option<Duration> {
        let base = self.base;
        let mut next = [
            self.network.next_arrival(),
            self.next_fault(),
            self.conditions.iter().map(|(until, _)| *until).min(),
            self.power_fails_by.map(|(by, ..)| by),
        ]
        .into_iter()
        .flatten()
        .min();
        let mut earlier = |at: Option<Duration>| next = next.into_iter().chain(at).min();
        for client in &mut self.clients {
            earlier(client.next_time(base));
        }
        for worker in &mut self.workers {
            earlier(worker.next_time(base));
        }
        match &mut self.life {
            Life::Down { until, .. } => earlier(Some(*until)),
            Life::Up(process) => {
                for index in (0..process.shards.len()).filter(|index| !self.ended_shards[*index]) {
                    let at = process.next_turn(index, base);
                    earlier(at.map(|at| at.max(self.paused_until)));
                }
            }
        }
        next
    }

    fn system_wall(&self) -> Timestamp {
        let running = i64::try_from(self.plan.start.as_micros()).expect("this century")
            + i64::try_from(self.now.as_micros()).expect("a short run")
            + self.clock_offset_us;
        self.frozen_at.unwrap_or(Timestamp::from_micros(u64::try_from(running).expect("after 1970")))
    }

    /// The node's wall clock, or the system's while the node is down.
    fn wall(&self) -> Timestamp {
        match &self.life {
            Life::Up(process) => process.wall(self.now),
            Life::Down { .. } => self.system_wall(),
        }
    }

    // The node.

    fn tend_node(&mut self) -> Result<(), Violation> {
        if let Some((by, down, shards)) = self.power_fails_by
            && (self.node.disk.is_off() || by <= self.now)
        {
            self.power_fails_by = None;
            self.trace.note(self.now, "node", format_args!("loses its power"));
            self.life = Life::Down { until: self.now + down, shards };
            self.node.disk = self.node.disk.crash();
            self.node.disk.advance_to(self.now);
            self.is_draining = false;
        }
        match &self.life {
            Life::Down { until, shards } if *until <= self.now => self.start(*shards),
            _ => Ok(()),
        }
    }

    fn start(&mut self, shards: u16) -> Result<(), Violation> {
        match self.node.start(self.now, self.system_wall(), shards) {
            Ok(Recovery { process, partitions }) => {
                self.trace.note(
                    self.now,
                    "node",
                    format_args!("starts with {shards} shards: {:?}", sequences(&partitions)),
                );
                self.auditor.recovered(&partitions, self.now)?;
                self.ended_shards = vec![false; process.shards.len()];
                (self.shards, self.is_draining) = (shards, false);
                self.life = Life::Up(process);
                self.is_log_excused = self.has_condition_on_log();
                // After a lie nothing that was told is sure any more; what was found was a state that there had been.
                self.is_over = self.auditor.has_lied;
                Ok(())
            }
            Err(failure) => self.start_failed(failure, shards),
        }
    }

    fn start_failed(&mut self, failure: StartFailure, shards: u16) -> Result<(), Violation> {
        self.trace.note(self.now, "node", format_args!("cannot start: {failure:?}"));
        let until = self.now + START_AGAIN;
        self.life = Life::Down { until, shards };
        match failure {
            StartFailure::Disk(_) if self.node.disk.is_off() => {
                self.power_fails_by = None;
                self.node.disk = self.node.disk.crash();
                self.node.disk.advance_to(self.now);
                Ok(())
            }
            StartFailure::Disk(_) if self.has_condition_on_log() => Ok(()),
            StartFailure::OutOfSpace if self.has_condition_on_log() => Ok(()),
            StartFailure::Damage(_) if self.auditor.has_lied => {
                self.is_over = true;
                Ok(())
            }
            StartFailure::Damage(what) => {
                Err(Violation::new(Promise::Damage, format!("the node refuses to start on a sound disk: {what}")))
            }
            other => Err(Violation::new(Promise::Alive, format!("the node does not start: {other:?}"))),
        }
    }

    fn has_condition_on_log(&self) -> bool {
        let on_log = |condition: &Condition| {
            matches!(
                condition,
                Condition::DiskErrors | Condition::FullDisk | Condition::LyingDisk | Condition::UnknownResults
            )
        };
        self.conditions.iter().any(|(_, condition)| on_log(condition))
    }

    /// The process ends; what it had written stays.
    fn end_process(&mut self, down: Duration, shards: u16) {
        self.life = Life::Down { until: self.now + down, shards };
        // The power may have failed in the very same moment.
        let disk = &self.node.disk;
        self.node.disk = if disk.is_off() { disk.crash() } else { disk.kill() };
        self.node.disk.advance_to(self.now);
        (self.is_draining, self.power_fails_by) = (false, None);
    }

    fn turn_shards(&mut self) -> Result<(), Violation> {
        if self.now < self.paused_until {
            return Ok(());
        }
        for index in 0..self.ended_shards.len() {
            self.turn_shard(index)?;
        }
        if !self.auditor.has_lied && !self.node.disk.lies().is_empty() {
            self.trace.note(self.now, "disk", format_args!("has lied: {:?}", self.node.disk.lies().last()));
            self.auditor.has_lied = true;
        }
        self.look_ahead()?;
        if let Life::Up(process) = &mut self.life {
            process.tend_catalog();
            if self.ended_shards.iter().all(|is_ended| *is_ended) {
                self.trace.note(self.now, "node", format_args!("has stopped"));
                let shards = self.shards_after_stop.take().unwrap_or(self.shards);
                self.end_process(Duration::from_millis(1), shards);
            }
        }
        Ok(())
    }

    /// Now and then: what would a start find if the power failed at this very moment?
    fn look_ahead(&mut self) -> Result<(), Violation> {
        let is_sound = !self.auditor.has_lied && !self.node.disk.is_off() && !self.has_condition_on_log();
        let is_asked = is_sound && self.plan.settings.backend == Backend::Files && self.now >= self.look_ahead_at;
        // Moments at which commits are under way tell most.
        let is_busy = matches!(&self.life, Life::Up(process) if process.has_commits_in_flight());
        if !is_asked || !is_busy {
            return Ok(());
        }
        self.look_ahead_at = self.now + self.look_stream.millis(1, LOOK_AHEAD_EVERY_MS);
        let mut probe = Node::new(self.plan.settings, self.base, self.plan.seed);
        probe.disk = self.node.disk.copy().crash();
        match probe.start(self.now, self.system_wall(), self.shards) {
            Ok(recovery) => self.auditor.recoverable(&recovery.partitions),
            Err(StartFailure::OutOfSpace) => Ok(()),
            Err(failure) => Err(Violation::new(
                Promise::Damage,
                format!("after a loss of power the node would not start: {failure:?}"),
            )),
        }
    }

    fn turn_shard(&mut self, index: usize) -> Result<(), Violation> {
        let (now, base, system) = (self.now, self.base, self.system_wall());
        let Life::Up(process) = &mut self.life else { return Ok(()) };
        if self.ended_shards[index] || process.next_turn(index, base).is_none_or(|at| at > now) {
            return Ok(());
        }
        let reading = process.reading(index, now, system, base);
        let Running { shard, busy_until, .. } = &mut process.shards[index];
        let turn_us = self.turn_stream.between(5, self.plan.settings.turn_us_max);
        let stall_us = if self.turn_stream.chance(STALLS) { self.turn_stream.below(STALL_US_MAX) } else { 0 };
        *busy_until = now + Duration::from_micros(turn_us + stall_us);
        let result = shard.decide(&reading);
        self.auditor.decided((index, shard), reading.now.wall, now)?;
        let result = result.and_then(|_| shard.settle(&reading));
        self.auditor.settled(shard, index);
        let from = shard_address(u16::try_from(index).expect("few"));
        for sending in std::mem::take(&mut shard.socket_mut().sent) {
            self.fingerprint = mix64(self.fingerprint ^ sending.bytes.len() as u64 ^ micros(now));
            if !is_cut(&self.conditions, sending.to.ip(), false) {
                self.network.send(now, from, sending.to, sending.ecn, &sending.bytes);
            }
        }
        let is_over = shard.is_over(&reading);
        if let Err(fatal) = result {
            if self.node.disk.is_off() {
                return Ok(());
            }
            self.trace.note(now, format_args!("shard-{index}"), format_args!("{fatal}"));
            judge_fatal(&fatal, self.is_log_excused || self.auditor.has_lied)?;
            self.ended_shards[index] = true;
            process.control.drain(Duration::ZERO);
            process.wake_all();
            self.is_draining = true;
        } else if is_over {
            self.ended_shards[index] = true;
        }
        Ok(())
    }

    // The actors.

    fn turn_actors(&mut self) -> Result<(), Violation> {
        let node_wall = self.wall();
        self.latest_wall = self.latest_wall.max(node_wall);
        let wall = self.latest_wall;
        let Self { clients, workers, auditor, trace, network, conditions, now, base, shards, node, .. } = self;
        let partition_count = node.partition_count();
        let mut context =
            ActorContext { now: *now, base: *base, wall, node_wall, shards: *shards, partition_count, auditor, trace };
        let mut flush = |session: Option<&mut super::session::Session>| {
            let Some(session) = session else { return };
            let (from, to) = (session.address, session.server());
            session.turn(*base + *now, |ecn, bytes| {
                if !is_cut(conditions, from.ip(), true) {
                    network.send(*now, from, to, ecn, bytes);
                }
            });
        };
        for client in clients {
            let is_due = client.next_time(*base).is_some_and(|at| at <= *now);
            if is_due || client.session_mut().is_some_and(|session| session.has_work()) {
                flush(client.session_mut());
                client.turn(&mut context)?;
                flush(client.session_mut());
            }
        }
        for worker in workers {
            let is_due = worker.next_time(*base).is_some_and(|at| at <= *now);
            if is_due || worker.session_mut().is_some_and(|session| session.has_work()) {
                flush(worker.session_mut());
                worker.turn(&mut context)?;
                worker.check_room()?;
                flush(worker.session_mut());
            }
        }
        Ok(())
    }

    fn deliver(&mut self, packet: Packet) {
        let (instant, ecn) = (self.base + self.now, packet.ecn());
        let to_shard = (0..self.shards).position(|index| shard_address(index) == packet.to);
        if let Some(index) = to_shard {
            if let Life::Up(process) = &mut self.life
                && !self.ended_shards[index]
            {
                process.shards[index].shard.socket_mut().deliver(packet.from, ecn, &packet.bytes);
            }
            return;
        }
        let sessions = self.clients.iter_mut().map(Client::session_mut);
        let sessions = sessions.chain(self.workers.iter_mut().map(Worker::session_mut));
        if let Some(session) = sessions.flatten().find(|session| session.address == packet.to) {
            session.handle_datagram(instant, ecn, BytesMut::from(packet.bytes.as_slice()));
        }
    }

    fn actor_address(&self, number: usize) -> IpAddr {
        let number = number % (self.clients.len() + self.workers.len()).max(1);
        let (group, index) = if number < self.clients.len() { (1, number) } else { (2, number - self.clients.len()) };
        let index = self.plan.workers.get(index).filter(|_| group == 2).map_or(index, |worker| worker.index);
        SocketAddr::from(([127, 0, group, u8::try_from(index).expect("few")], 0)).ip()
    }

    // The faults.

    fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        let now = self.now;
        let is_up = matches!(self.life, Life::Up(_));
        match fault {
            Fault::PowerLoss { steps, down, shards } if is_up && self.plan.settings.backend == Backend::Files => {
                self.node.disk.crash_at(self.node.disk.op_count() + steps);
                self.power_fails_by = Some((now + POWER_LOSS_WAITS_MAX, down, shards));
            }
            Fault::PowerLoss { down, shards, .. } | Fault::Kill { down, shards, .. } if is_up => {
                self.end_process(down, shards);
            }
            Fault::Restart { limit, shards } => {
                if let Life::Up(process) = &mut self.life {
                    process.control.drain(limit);
                    process.wake_all();
                    (self.is_draining, self.shards_after_stop) = (true, Some(shards));
                }
            }
            Fault::Pause(during) => {
                self.paused_until = self.paused_until.max(now + during);
                self.disturb(now + during);
            }
            Fault::ClockJump { ms } => self.clock_offset_us += ms * 1_000,
            Fault::ClockFreeze(during) => {
                if self.frozen_at.is_none() {
                    self.frozen_at = Some(self.system_wall());
                    self.clock_offset_us -= i64::try_from(during.as_micros()).expect("short");
                    self.conditions.push((now + during, Condition::ClockFreeze));
                }
            }
            Fault::WorkerDeath { worker, down } => self.worker_leaves(worker, down, true),
            Fault::WorkerReconnect { worker, down } => self.worker_leaves(worker, down, false),
            Fault::Rot(draw) => {
                for bit in 0..ROTTEN_BITS {
                    self.flip_bit(mix64(draw ^ bit))?;
                }
                for sector in 0..HIDDEN_SECTORS {
                    self.hide_sector(mix64(draw ^ sector))?;
                }
            }
            Fault::Fence => {
                self.node.store.fence();
                self.is_log_excused = true;
            }
            other => self.begin(other),
        }
        Ok(())
    }

    fn worker_leaves(&mut self, number: usize, down: Duration, dies: bool) {
        let (now, instant, count) = (self.now, self.base + self.now, self.workers.len().max(1));
        let Some(worker) = self.workers.get_mut(number % count) else { return };
        // Whoever loses no more than a connection closes it.
        if let Some(session) = worker.session_mut().filter(|_| !dies) {
            let (from, to, network) = (session.address, session.server(), &mut self.network);
            session.close(instant);
            session.turn(instant, |ecn, bytes| network.send(now, from, to, ecn, bytes));
        }
        worker.leave(now, down, dies, &mut self.auditor);
    }

    /// Conditions that last for a while.
    fn begin(&mut self, fault: Fault) {
        let now = self.now;
        match fault {
            Fault::DiskErrors { during, writes, syncs } => {
                self.is_log_excused = true;
                let faults = DiskFaults { write_error: writes, sync_error: syncs, ..DiskFaults::default() };
                self.node.disk.set_faults(faults);
                self.conditions.push((now + during, Condition::DiskErrors));
            }
            Fault::SlowDisk { during, latency } => {
                self.node.disk.set_latency(Latency { min: latency / 4, max: latency });
                self.conditions.push((now + during, Condition::SlowDisk));
            }
            Fault::FullDisk(during) => {
                self.node.disk.set_capacity_bytes(self.node.disk.used_bytes());
                self.conditions.push((now + during, Condition::FullDisk));
            }
            Fault::LyingDisk { during, lost, misdirected } => {
                let faults = DiskFaults { lost_write: lost, misdirected_write: misdirected, ..DiskFaults::default() };
                self.node.disk.set_faults(faults);
                self.conditions.push((now + during, Condition::LyingDisk));
            }
            Fault::Cut { actor, during, one_way } => {
                let actor = self.actor_address(actor);
                self.disturb(now + during);
                self.conditions.push((now + during, Condition::Cut { actor, one_way }));
            }
            Fault::BadNetwork { during, loss } => {
                self.disturb(now + during);
                self.network.weather.loss = loss;
                self.conditions.push((now + during, Condition::BadNetwork));
            }
            Fault::UnknownResults(during) => {
                self.node.store.set_unknown(300);
                self.conditions.push((now + during, Condition::UnknownResults));
            }
            _ => {}
        }
    }

    fn disturb(&mut self, until: Duration) {
        self.disturbed_until = self.disturbed_until.max(until + DISTURBANCE_FELT);
    }

    fn end_conditions(&mut self) {
        let now = self.now;
        let (ended, lasting) = std::mem::take(&mut self.conditions).into_iter().partition(|(until, _)| *until <= now);
        self.conditions = lasting;
        let ended: Vec<(Duration, Condition)> = ended;
        ended.into_iter().for_each(|(_, condition)| self.end(condition));
    }

    fn end(&mut self, condition: Condition) {
        match condition {
            Condition::DiskErrors | Condition::LyingDisk => self.node.disk.set_faults(DiskFaults::default()),
            Condition::SlowDisk => {
                let max = Duration::from_micros(self.plan.settings.disk_us_max);
                self.node.disk.set_latency(Latency { min: Duration::from_micros(10), max });
            }
            Condition::FullDisk => self.node.disk.set_capacity_bytes(u64::MAX),
            Condition::Cut { .. } => {}
            Condition::BadNetwork => self.network.weather = calm_weather(&self.plan),
            Condition::ClockFreeze => self.frozen_at = None,
            Condition::UnknownResults => self.node.store.set_unknown(0),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("a short run")
}

/// Whether datagrams of the actor vanish, towards the node or from it.
fn is_cut(conditions: &[(Duration, Condition)], actor: IpAddr, to_node: bool) -> bool {
    conditions.iter().any(|(_, condition)| {
        matches!(condition, Condition::Cut { actor: cut, one_way } if *cut == actor && (to_node || !one_way))
    })
}

fn calm_weather(plan: &Plan) -> Weather {
    let super::plan::Settings { loss, repeat, reorder, corrupt, delay_us_max, .. } = plan.settings;
    Weather { loss, repeat, reorder, corrupt, delay_us_max }
}

fn sequences(partitions: &std::collections::BTreeMap<tickwheel_wire::PartitionId, (u64, u64)>) -> Vec<u64> {
    partitions.values().map(|(sequence, _)| *sequence).collect()
}

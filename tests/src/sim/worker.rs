//! A worker: takes attempts, runs them in virtual time, reports, comes back after a loss; or hangs, reports late, twice, or forges.

use super::{
    auditor::Auditor,
    node::shard_address,
    plan::WorkerPlan,
    random::Stream,
    session::{Arrived, Session, Who},
    violation::{Violation, demand},
    world::{ActorContext, CONNECT_MAX},
};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};
use tickwheel_net::Lane;
use tickwheel_wire::{
    FireSequence, InstanceId, JobId, Token,
    frame::{
        Frame, FrameType,
        work::{
            Attach, CancelAttempt, Capacity, Complete, CompleteHead, Completed, Dispatch, DispatchHead, Heartbeat,
            Outcome, Reattach, Reattached, Verdict,
        },
    },
};

/// How often an attempt is shown to be alive, as a share of the limit.
const HEARTBEATS_PER_LIMIT: u32 = 3;
/// How far ahead of an attempt's token a forged one is: the very next may be given to the same worker meanwhile.
const FORGED_AHEAD: u64 = 1 << 20;
/// How long a report that was refused for lack of room waits.
const REPORT_AGAIN: Duration = Duration::from_millis(200);
/// The delay that a worker asks for when it fails for now, in milliseconds.
pub const RETRY_AFTER_MS: u32 = 1_234;

#[derive(Clone, Debug)]
struct Attempt {
    head: DispatchHead,
    outcome: Outcome,
    ends_at: Option<Duration>,
    heartbeat_at: Option<Duration>,
    is_reported_twice: bool,
    /// Number of the session that it came through; none once it has ended for the node.
    session: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Away,
    Greeting,
    Attaching,
    Attached,
}

/// See the module.
pub struct Worker {
    plan: WorkerPlan,
    /// The process; another one after each death.
    instance: InstanceId,
    lives: u64,
    session: Option<Session>,
    sessions: u16,
    phase: Phase,
    connected_at: Duration,
    connect_at: Option<Duration>,
    running: BTreeMap<(JobId, u64), Attempt>,
    /// Reports without a verdict, and when to send each again.
    unanswered: BTreeMap<(JobId, u64), (CompleteHead, Option<Duration>)>,
    stream: Stream,
    is_honest: bool,
    /// The largest capacity that was stated through this session.
    room: u32,
}

impl Worker {
    /// The worker of a plan.
    pub fn new(plan: WorkerPlan, seed: u64) -> Self {
        Self {
            plan,
            instance: instance(plan.index, 0),
            lives: 0,
            session: None,
            sessions: 0,
            phase: Phase::Away,
            connected_at: Duration::ZERO,
            connect_at: Some(plan.from),
            running: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            stream: Stream::new(seed, "deeds of a worker", plan.index as u64),
            is_honest: false,
            room: 0,
        }
    }

    /// From now on it does its work as it should.
    pub fn become_honest(&mut self, now: Duration) {
        self.is_honest = true;
        for attempt in self.running.values_mut() {
            attempt.ends_at = Some(attempt.ends_at.map_or(now, |at| at.min(now + self.plan.run_max)));
        }
    }

    /// Its session, if it has one.
    pub const fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Loses its connection for a while; `dies`: and all that it knew.
    pub fn leave(&mut self, now: Duration, down: Duration, dies: bool, auditor: &mut Auditor) {
        auditor.leaves(self.instance, now);
        self.session = None;
        self.phase = Phase::Away;
        self.connect_at = Some(now + down);
        if dies {
            self.lives += 1;
            self.instance = instance(self.plan.index, self.lives);
            self.running.clear();
            self.unanswered.clear();
        }
    }

    /// When it has something to do next.
    pub fn next_time(&mut self, base: std::time::Instant) -> Option<Duration> {
        if self.phase != Phase::Attached {
            let patience = self.session.as_ref().map(|_| self.connected_at + CONNECT_MAX);
            let session = self.session.as_mut().and_then(Session::next_timeout);
            let session = session.map(|at| at.saturating_duration_since(base));
            return [self.connect_at, patience, session].into_iter().flatten().min();
        }
        let attempts = self.running.values().flat_map(|attempt| [attempt.ends_at, attempt.heartbeat_at]).flatten();
        let reports = self.unanswered.values().filter_map(|(_, again)| *again);
        let session = self.session.as_mut().and_then(Session::next_timeout);
        attempts.chain(reports).chain(session.map(|at| at.saturating_duration_since(base))).min()
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When the node broke a promise.
    pub fn turn(&mut self, context: &mut ActorContext<'_>) -> Result<(), Violation> {
        let now = context.now;
        let patience_is_over = self.phase != Phase::Attached && now >= self.connected_at + CONNECT_MAX;
        if self.session.as_ref().is_some_and(|session| session.is_lost() || patience_is_over) {
            let down = self.stream.millis(1, 1_500);
            self.leave(now, down, false, context.auditor);
        }
        if self.session.is_none() && self.connect_at.is_some_and(|at| at <= now) {
            self.connect(context);
        }
        let frames = self.session.as_mut().map(Session::frames).unwrap_or_default();
        for frame in frames {
            self.take(&frame, context)?;
        }
        if self.phase == Phase::Attached {
            self.work(context);
        }
        Ok(())
    }

    fn connect(&mut self, context: &mut ActorContext<'_>) {
        self.connect_at = None;
        self.connected_at = context.now;
        self.sessions += 1;
        let number = u8::try_from(self.plan.index).expect("few");
        let address = SocketAddr::from(([127, 0, 2, number], 10_000 + self.sessions));
        let shard = u16::try_from(self.stream.below(context.shards.max(1).into())).expect("few");
        let (seed, window_bytes) = (self.stream.draw(), context.auditor.settings().window_bytes);
        self.session =
            Some(Session::connect(context.instant(), Who::Worker, (address, shard_address(shard)), window_bytes, seed));
        self.phase = Phase::Greeting;
        self.room = self.plan.capacity;
        context.auditor.arrives(self.instance);
    }

    fn send<'f>(&mut self, lane: Lane, frame: &impl Frame<'f>) {
        if let Some(session) = &mut self.session {
            session.send(lane, frame);
        }
    }

    fn take(&mut self, frame: &Arrived, context: &mut ActorContext<'_>) -> Result<(), Violation> {
        let body = frame.body.as_slice();
        match FrameType::from_number(frame.frame_type) {
            Some(FrameType::Welcome) => {
                self.phase = Phase::Attaching;
                let attach = Attach { request_id: 1, instance: self.instance, capacity: self.plan.capacity, pools: "" };
                self.send(Lane::Control, &attach);
            }
            Some(FrameType::Attached) => self.attached(context),
            Some(FrameType::Dispatch) => {
                let dispatch = Dispatch::decode_body(body).expect("the node encodes it");
                self.dispatched(&dispatch, context)?;
            }
            Some(FrameType::Completed) => {
                let completed = Completed::decode_body(body).expect("the node encodes it");
                self.completed(&completed, context)?;
            }
            Some(FrameType::CancelAttempt) => {
                let cancel = CancelAttempt::decode_body(body).expect("the node encodes it");
                self.cancelled(&cancel, context.now);
            }
            Some(FrameType::Reattached) => {
                let reattached = Reattached::decode_body(body).expect("the node encodes it");
                if !matches!(reattached.verdict, Verdict::Accepted | Verdict::Overloaded) {
                    self.running.remove(&(reattached.job, reattached.token.0));
                }
            }
            // Anything else: go and come back.
            Some(FrameType::GoAway | FrameType::Refused) => {
                let down = self.stream.millis(300, 2_000);
                self.leave(context.now, down, false, context.auditor);
            }
            _ => {}
        }
        Ok(())
    }

    fn attached(&mut self, context: &mut ActorContext<'_>) {
        self.phase = Phase::Attached;
        context.auditor.returns(self.instance, context.now);
        context.trace.note(
            context.now,
            format_args!("worker-{}", self.plan.index),
            format_args!(
                "attached as {:x}, {} running, {} reports unanswered",
                self.instance.0,
                self.running.len(),
                self.unanswered.len()
            ),
        );
        let claims: Vec<_> = self.running.values().map(|attempt| attempt.head).collect();
        for head in claims {
            let DispatchHead { job, fire_sequence, token, .. } = head;
            self.send(Lane::Control, &Reattach { job, fire_sequence, token });
        }
        let reports: Vec<_> = self.unanswered.values().map(|(head, _)| *head).collect();
        for head in reports {
            self.send_report(&head);
        }
    }

    fn dispatched(&mut self, dispatch: &Dispatch<'_>, context: &mut ActorContext<'_>) -> Result<(), Violation> {
        let head = dispatch.head;
        context.trace.note(
            context.now,
            format_args!("worker-{}", self.plan.index),
            format_args!(
                "got {} {}, firing {}, attempt {}, token {}",
                dispatch.name, head.job, head.fire_sequence.0, head.attempt, head.token.0
            ),
        );
        context.auditor.dispatched(self.instance, &head)?;
        let (now, plan) = (context.now, self.plan);
        let run = self.stream.duration(Duration::from_micros(200), plan.run_max);
        let limit = Duration::from_millis(head.start_to_close_ms.into());
        let hangs = self.draw(plan.hangs);
        let is_late = self.draw(plan.late);
        let ends_at = match (hangs, is_late) {
            (true, _) => None,
            (false, true) => Some(now + limit + self.stream.millis(1, 3_000)),
            (false, false) => Some(now + run),
        };
        let outcome = match self.draw(plan.fails) {
            false => Outcome::Succeeded,
            true if self.stream.chance(200) => Outcome::FailedForGood,
            true if self.stream.chance(200) => Outcome::FailedForNow,
            true => Outcome::Failed,
        };
        let every = Duration::from_millis(head.heartbeat_ms.into()) / HEARTBEATS_PER_LIMIT;
        let heartbeat_at = (head.heartbeat_ms > 0 && (self.is_honest || !plan.silent)).then(|| now + every);
        let is_reported_twice = self.draw(plan.doubles);
        let attempt = Attempt { head, outcome, ends_at, heartbeat_at, is_reported_twice, session: Some(self.sessions) };
        self.running.insert((head.job, head.token.0), attempt);
        if self.draw(plan.resizes) {
            let capacity = u32::try_from(self.stream.between(1, 2 * u64::from(plan.capacity))).expect("small");
            self.room = self.room.max(capacity);
            self.send(Lane::Control, &Capacity { capacity });
        }
        if self.draw(plan.forges) {
            self.forge(&head, context);
        }
        Ok(())
    }

    fn draw(&mut self, permille: u64) -> bool {
        self.stream.chance(permille) && !self.is_honest
    }

    /// Reports on attempts that were not given to it: the last one, one to come, another job's, and one that another worker runs.
    fn forge(&mut self, head: &DispatchHead, context: &mut ActorContext<'_>) {
        let DispatchHead { job, fire_sequence, token, .. } = *head;
        let other = JobId::new(job.partition(), job.generation(), job.slot() ^ 1);
        let mut forged = vec![
            (job, fire_sequence, token.0.wrapping_sub(1)),
            (job, fire_sequence, token.0 + FORGED_AHEAD),
            (other, fire_sequence, token.0),
        ];
        let others = context.auditor.attempt_of_another(self.instance);
        forged.extend(others.map(|(job, sequence, token)| (job, FireSequence(sequence), token)));
        for (job, fire_sequence, token) in forged {
            let outcome = Outcome::Succeeded;
            let head = CompleteHead { job, fire_sequence, token: Token(token), run_us: 1, outcome, error_bytes: 0 };
            if !self.running.contains_key(&(job, token)) && !self.unanswered.contains_key(&(job, token)) {
                context.auditor.forged(self.instance, job, head.token);
                self.send_report(&head);
            }
        }
    }

    fn completed(&mut self, completed: &Completed, context: &mut ActorContext<'_>) -> Result<(), Violation> {
        context.trace.note(
            context.now,
            format_args!("worker-{}", self.plan.index),
            format_args!(
                "is told that its report on {} token {} is {}",
                completed.job, completed.token.0, completed.verdict
            ),
        );
        context.auditor.verdict(self.instance, completed)?;
        let key = (completed.job, completed.token.0);
        // One that it forged, and then got, has ended for the node.
        if let Some(attempt) = self.running.get_mut(&key).filter(|_| completed.verdict == Verdict::Accepted) {
            attempt.session = None;
        }
        if completed.verdict != Verdict::Overloaded {
            self.unanswered.remove(&key);
        } else if let Some((_, again)) = self.unanswered.get_mut(&key) {
            *again = Some(context.now + REPORT_AGAIN);
        }
        Ok(())
    }

    fn cancelled(&mut self, cancel: &CancelAttempt, now: Duration) {
        let heeds = self.is_honest || self.stream.chance(800);
        if let Some(attempt) = self.running.get_mut(&(cancel.job, cancel.token.0)).filter(|_| heeds) {
            attempt.outcome = Outcome::Cancelled;
            attempt.ends_at = Some(now + Duration::from_millis(2));
        }
    }

    /// Reports what has ended, and shows what runs.
    fn work(&mut self, context: &mut ActorContext<'_>) {
        let now = context.now;
        let ended: Vec<_> = self
            .running
            .iter()
            .filter(|(_, attempt)| attempt.ends_at.is_some_and(|at| at <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in ended {
            let Some(attempt) = self.running.remove(&key) else { continue };
            self.report(&attempt, context);
        }
        let mut heartbeats = Vec::new();
        for attempt in self.running.values_mut().filter(|attempt| attempt.heartbeat_at.is_some_and(|at| at <= now)) {
            let DispatchHead { job, fire_sequence, token, heartbeat_ms, .. } = attempt.head;
            attempt.heartbeat_at = Some(now + Duration::from_millis(heartbeat_ms.into()) / HEARTBEATS_PER_LIMIT);
            context.auditor.heard(self.instance, job, token);
            heartbeats.push(Heartbeat { job, fire_sequence, token, progress_permille: 500 });
        }
        for heartbeat in heartbeats {
            self.send(Lane::Control, &heartbeat);
        }
        let again: Vec<_> = self
            .unanswered
            .values_mut()
            .filter(|(_, again)| again.is_some_and(|at| at <= now))
            .map(|(head, again)| {
                *again = None;
                *head
            })
            .collect();
        for head in again {
            self.send_report(&head);
        }
    }

    fn report(&mut self, attempt: &Attempt, context: &mut ActorContext<'_>) {
        let DispatchHead { job, fire_sequence, token, .. } = attempt.head;
        let head = CompleteHead { job, fire_sequence, token, run_us: 1_000, outcome: attempt.outcome, error_bytes: 0 };
        context.trace.note(
            context.now,
            format_args!("worker-{}", self.plan.index),
            format_args!("reports {job} token {} as {}", token.0, attempt.outcome),
        );
        context.auditor.reported(self.instance, job, token, attempt.outcome);
        self.unanswered.insert((job, token.0), (head, None));
        self.send_report(&head);
        if attempt.is_reported_twice {
            self.send_report(&head);
        }
    }

    fn send_report(&mut self, head: &CompleteHead) {
        let delay = RETRY_AFTER_MS.to_le_bytes();
        let output = if head.outcome == Outcome::FailedForNow { &delay[..] } else { b"output" };
        self.send(Lane::P1, &Complete { head: *head, error: "", output });
    }

    /// Whether it got no more attempts through its session than it has room for. Those of former sessions it claims, which takes a moment.
    ///
    /// # Errors
    /// When it did.
    pub fn check_room(&self) -> Result<(), Violation> {
        let count = self.running.values().filter(|attempt| attempt.session == Some(self.sessions)).count();
        let capacity = self.room.max(self.plan.capacity) as usize;
        let index = self.plan.index;
        demand!(count <= capacity, Bounded, "worker-{index} has {count} attempts and room for {capacity}");
        Ok(())
    }
}

const fn instance(index: usize, life: u64) -> InstanceId {
    InstanceId(((index as u128 + 1) << 64) | (life as u128 + 1))
}

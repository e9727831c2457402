//! What a worker holds: attempts that wait, attempts that run, completions that the node has not acknowledged.
//!
//! Pure: time comes in, frames to send come out. Invariants: an attempt (job, token) is held once, and from its dispatch to the
//! node's last word on it; at most `concurrency` run; what waits starts by priority and then in the order of arrival; only what
//! the node of the present session has dispatched or confirmed starts; while too many completions are unacknowledged,
//! nothing new starts. Deliberately absent: sessions, tasks, clocks.

use super::{
    attempt::{Attempt, Key, StopReason},
    runner::Completion,
};
use crate::batch::Lane;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};
use tickwheel_wire::{
    FireSequence,
    frame::work::{
        CancelAttempt, Complete, CompleteHead, Completed, Heartbeat, Outcome, Reattach, Reattached, ReportStatus,
        Verdict,
    },
};
use tokio::time::Instant;

/// When to present again what the node could not take.
const OVERLOADED_DELAY: Duration = Duration::from_millis(100);
/// Signs of life per heartbeat time-out.
const HEARTBEATS_PER_LIMIT: u32 = 3;
/// Cancellations remembered that came before their dispatch, which travels on another lane. Most of the unknown ones concern
/// attempts that have just gone; so at the bound all are forgotten.
const EARLY_CANCELS_MAX: usize = 1024;
/// Unacknowledged completions that a worker keeps at least before it stops starting.
const UNACKNOWLEDGED_MIN: usize = 64;

/// The bounds of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Attempts that run at a time, from 1.
    pub concurrency: usize,
    /// Attempts held at a time, the running ones included.
    pub capacity: usize,
}

impl Bounds {
    /// What a node may hold us to at worst: after a reconnect it may give full capacity before it has heard what is still here.
    const fn held_max(self) -> usize {
        2 * self.capacity
    }

    fn unacknowledged_max(self) -> usize {
        UNACKNOWLEDGED_MIN.max(4 * self.capacity)
    }
}

#[derive(Debug)]
enum Stage {
    /// Waits for a free slot; unconfirmed ones are in no ready queue.
    Waiting,
    Running,
    Done(Completion),
}

#[derive(Debug)]
struct Entry {
    attempt: Attempt,
    stage: Stage,
    /// Whether the node of the present session knows that the attempt is here.
    confirmed: bool,
    /// Whether the result is no longer wanted.
    discarded: bool,
    wake_at: Option<Instant>,
}

/// What became of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is held now.
    Admitted,
    /// It was held already.
    Known,
    /// Its cancellation had overtaken it: its completion is to be sent.
    Cancelled,
    /// The node sent far more than the capacity.
    Overflow,
}

/// A sign of life, and what the handler has said since the last one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignOfLife {
    pub heartbeat: Heartbeat,
    status: Option<String>,
}

impl SignOfLife {
    /// The frame that is to follow the heartbeat.
    pub fn status(&self) -> Option<ReportStatus<'_>> {
        let Heartbeat { job, fire_sequence, token, .. } = self.heartbeat;
        let status = self.status.as_deref()?.as_bytes();
        Some(ReportStatus { request_id: 0, partition: job.partition(), job, fire_sequence, token, status })
    }
}

/// What a timer or a new session calls for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presentation<'a> {
    Heartbeat(SignOfLife),
    Reattach(Reattach),
    Complete(Lane, Complete<'a>),
}

#[derive(Debug)]
pub(super) struct Ledger {
    bounds: Bounds,
    entries: HashMap<Key, Entry>,
    /// Attempts that may start, by priority. May hold keys that are gone.
    ready: [VecDeque<Key>; 3],
    /// Exactly the entries with a `wake_at`.
    wakes: BTreeSet<(Instant, Key)>,
    /// Cancellations that came before their dispatch on the present session.
    early_cancels: HashMap<Key, StopReason>,
    running_count: usize,
    done_count: usize,
}

impl Ledger {
    pub fn new(bounds: Bounds) -> Self {
        assert!(bounds.concurrency >= 1 && bounds.capacity >= bounds.concurrency, "checked by the builder");
        Self {
            bounds,
            entries: HashMap::new(),
            ready: Default::default(),
            wakes: BTreeSet::new(),
            early_cancels: HashMap::new(),
            running_count: 0,
            done_count: 0,
        }
    }

    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Whether nothing is held at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub const fn unacknowledged_count(&self) -> usize {
        self.done_count
    }

    /// Whether the attempt is held.
    pub fn knows(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    /// Takes a dispatched attempt.
    pub fn admit(&mut self, attempt: Attempt, now: Instant) -> Admission {
        let key = attempt.key();
        if self.knows(key) {
            return Admission::Known;
        }
        if self.entries.len() - self.done_count >= self.bounds.held_max() {
            return Admission::Overflow;
        }
        self.ready[usize::from(attempt.priority().number())].push_back(key);
        let entry = Entry { attempt, stage: Stage::Waiting, confirmed: true, discarded: false, wake_at: None };
        self.entries.insert(key, entry);
        if let Some(reason) = self.early_cancels.remove(&key) {
            self.stop(key, reason);
            return Admission::Cancelled;
        }
        self.schedule_heartbeat(key, now);
        Admission::Admitted
    }

    /// The attempt to start next, which then runs; none while every slot is taken.
    pub fn start_next(&mut self) -> Option<Attempt> {
        if self.running_count >= self.bounds.concurrency || self.done_count >= self.bounds.unacknowledged_max() {
            return None;
        }
        loop {
            let key = self.ready.iter_mut().find_map(VecDeque::pop_front)?;
            if let Some(entry) = self.entries.get_mut(&key)
                && entry.confirmed
                && matches!(entry.stage, Stage::Waiting)
            {
                entry.stage = Stage::Running;
                self.running_count += 1;
                return Some(entry.attempt.clone());
            }
        }
    }

    /// A running attempt has ended. Gives the frame to send, unless nobody wants to know.
    ///
    /// # Panics
    /// If the attempt does not run.
    pub fn finish(&mut self, key: Key, completion: Completion) -> Option<(Lane, Complete<'_>)> {
        let entry = self.entries.get_mut(&key).expect("what runs is held");
        assert!(matches!(entry.stage, Stage::Running), "an attempt ends once");
        self.running_count -= 1;
        if entry.discarded {
            self.remove(key);
            return None;
        }
        self.set_done(key, completion)
    }

    /// The node's word on a completion.
    pub fn completed(&mut self, frame: &Completed, now: Instant) {
        let key = Key { job: frame.job, token: frame.token };
        match self.entries.get(&key) {
            Some(Entry { stage: Stage::Done(_), .. }) if frame.verdict == Verdict::Overloaded => {
                self.wake(key, Some(now + OVERLOADED_DELAY));
            }
            Some(Entry { stage: Stage::Done(_), .. }) => {
                self.done_count -= 1;
                self.remove(key);
            }
            _ => {}
        }
    }

    /// The node's word on an attempt that was presented. For one that has ended meanwhile the word on its completion counts.
    pub fn reattached(&mut self, frame: &Reattached, now: Instant) {
        let key = Key { job: frame.job, token: frame.token };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match (&entry.stage, frame.verdict) {
            (Stage::Done(_), _) => {}
            (_, Verdict::Overloaded) => self.wake(key, Some(now + OVERLOADED_DELAY)),
            (Stage::Waiting, Verdict::Accepted) => {
                if !std::mem::replace(&mut entry.confirmed, true) {
                    self.ready[usize::from(entry.attempt.priority().number())].push_back(key);
                }
                self.schedule_heartbeat(key, now);
            }
            (Stage::Running, Verdict::Accepted) => {
                entry.confirmed = true;
                match entry.attempt.renew_status() {
                    true => self.wake(key, Some(now)),
                    false => self.schedule_heartbeat(key, now),
                }
            }
            (_, Verdict::StaleToken | Verdict::UnknownJob) => self.discard(key),
        }
    }

    /// The node wants an attempt to stop. Gives the completion to send if it has not started.
    ///
    /// Whatever the reason, the attempt is reported in the end, since the node frees its slot by that; and a completion that was
    /// not acknowledged stays, since the node that calls it stale may not have made it durable yet.
    pub fn cancel(&mut self, frame: &CancelAttempt) -> Option<(Lane, Complete<'_>)> {
        let key = Key { job: frame.job, token: frame.token };
        if self.knows(key) {
            return self.stop(key, frame.reason.into());
        }
        if self.early_cancels.len() >= EARLY_CANCELS_MAX {
            self.early_cancels.clear();
        }
        self.early_cancels.insert(key, frame.reason.into());
        None
    }

    fn stop(&mut self, key: Key, reason: StopReason) -> Option<(Lane, Complete<'_>)> {
        let entry = self.entries.get_mut(&key)?;
        match entry.stage {
            Stage::Done(_) => None,
            Stage::Running => {
                entry.attempt.stop(reason);
                None
            }
            Stage::Waiting => {
                let outcome = if reason == StopReason::TimedOut { Outcome::TimedOut } else { Outcome::Cancelled };
                self.set_done(key, Completion::failed(outcome, "", "stopped before it started"))
            }
        }
    }

    /// The worker has drained long enough: what runs is told to stop, what waits is given back as a failure.
    pub fn give_up(&mut self) -> Vec<Key> {
        let keys: Vec<Key> = self.entries.keys().copied().collect();
        keys.into_iter().filter(|&key| self.give_up_one(key)).collect()
    }

    fn give_up_one(&mut self, key: Key) -> bool {
        let entry = self.entries.get_mut(&key).expect("the keys were just listed");
        match entry.stage {
            Stage::Done(_) => false,
            Stage::Running => {
                entry.attempt.stop(StopReason::Draining);
                false
            }
            Stage::Waiting => {
                let message = "the worker was stopped before the attempt could start";
                self.set_done(key, Completion::failed(Outcome::Failed, "drained", message));
                true
            }
        }
    }

    /// The session is gone: nothing that waits starts before the node has confirmed it again.
    pub fn session_lost(&mut self) {
        self.ready.iter_mut().for_each(VecDeque::clear);
        self.wakes.clear();
        self.early_cancels.clear();
        for entry in self.entries.values_mut() {
            entry.confirmed = false;
            entry.wake_at = None;
        }
    }

    /// What a new session has to hear, after its `Attached`: each attempt that came before it, each completion, and what handlers have said that
    /// were faster than `Attached`.
    pub fn presentations(&self) -> impl Iterator<Item = Presentation<'_>> {
        self.entries.iter().filter_map(|(key, entry)| match complete(entry) {
            Some((lane, frame)) => Some(Presentation::Complete(lane, frame)),
            None if entry.discarded => None,
            None if entry.confirmed => {
                let has_status = entry.attempt.renew_status();
                has_status.then(|| self.heartbeat(*key).map(Presentation::Heartbeat)).flatten()
            }
            None => Some(Presentation::Reattach(reattach(*key, entry))),
        })
    }

    /// The completion of an attempt that has ended.
    pub fn completion(&self, key: Key) -> Option<(Lane, Complete<'_>)> {
        complete(self.entries.get(&key)?)
    }

    /// The sign of life of an attempt that has not ended.
    pub fn heartbeat(&self, key: Key) -> Option<SignOfLife> {
        let entry = self.entries.get(&key)?;
        let Key { job, token } = key;
        let progress_permille = entry.attempt.take_progress();
        let fire_sequence = entry.attempt.execution().fire_sequence;
        (!matches!(entry.stage, Stage::Done(_)) && !entry.discarded).then(|| SignOfLife {
            heartbeat: Heartbeat { job, fire_sequence, token, progress_permille },
            status: entry.attempt.take_status(),
        })
    }

    /// When [`Ledger::next_due`] has something.
    pub fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// A frame that is due at `now`; call until there is none.
    pub fn next_due(&mut self, now: Instant) -> Option<Presentation<'_>> {
        let (at, key) = *self.wakes.first()?;
        if at > now {
            return None;
        }
        self.wake(key, None);
        let entry = &self.entries[&key];
        if matches!(entry.stage, Stage::Done(_)) {
            return self.completion(key).map(|(lane, frame)| Presentation::Complete(lane, frame));
        }
        if !entry.confirmed {
            return Some(Presentation::Reattach(reattach(key, entry)));
        }
        self.schedule_heartbeat(key, now);
        self.heartbeat(key).map(Presentation::Heartbeat)
    }

    fn schedule_heartbeat(&mut self, key: Key, now: Instant) {
        if let Some(limit) = self.entries[&key].attempt.heartbeat() {
            self.wake(key, Some(now + limit / HEARTBEATS_PER_LIMIT));
        }
    }

    fn wake(&mut self, key: Key, at: Option<Instant>) {
        let entry = self.entries.get_mut(&key).expect("only what is held has a timer");
        if let Some(old) = std::mem::replace(&mut entry.wake_at, at) {
            self.wakes.remove(&(old, key));
        }
        self.wakes.extend(at.map(|at| (at, key)));
    }

    fn set_done(&mut self, key: Key, completion: Completion) -> Option<(Lane, Complete<'_>)> {
        self.wake(key, None);
        self.done_count += 1;
        let entry = self.entries.get_mut(&key).expect("it was just found");
        entry.stage = Stage::Done(completion);
        complete(entry)
    }

    /// The node has no claim for the attempt: it leaves at once or, when it runs, as soon as it has stopped.
    fn discard(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match entry.stage {
            Stage::Done(_) => {}
            Stage::Waiting => self.remove(key),
            Stage::Running => {
                entry.discarded = true;
                entry.attempt.stop(StopReason::Superseded);
                self.wake(key, None);
            }
        }
    }

    fn remove(&mut self, key: Key) {
        self.wake(key, None);
        self.entries.remove(&key);
    }
}

fn reattach(key: Key, entry: &Entry) -> Reattach {
    Reattach { job: key.job, fire_sequence: entry.attempt.execution().fire_sequence, token: key.token }
}

fn complete(entry: &Entry) -> Option<(Lane, Complete<'_>)> {
    let Stage::Done(completion) = &entry.stage else { return None };
    let fire_sequence: FireSequence = entry.attempt.execution().fire_sequence;
    let Key { job, token } = entry.attempt.key();
    let head = CompleteHead {
        job,
        fire_sequence,
        token,
        run_us: completion.run_us,
        outcome: completion.outcome,
        error_bytes: u8::try_from(completion.error.len()).expect("the completion is within its bounds"),
    };
    let frame = Complete { head, error: &completion.error, output: &completion.output };
    Some((Lane::of(entry.attempt.priority()), frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::test_support::dispatch;
    use tickwheel_wire::{
        JobId, PartitionId, Token, frame::work::CancelReason, frame::work::DispatchHead, job::Priority,
    };
    use tokio::sync::mpsc;

    fn key(slot: u32) -> Key {
        Key { job: JobId::new(PartitionId(0), 0, slot), token: Token(1) }
    }

    fn attempt(slot: u32, change: impl FnOnce(&mut DispatchHead)) -> Attempt {
        Attempt::new(&dispatch(slot, change), Instant::now(), mpsc::channel(1).0)
    }

    fn ledger(concurrency: usize, capacity: usize) -> Ledger {
        Ledger::new(Bounds { concurrency, capacity })
    }

    fn admit(ledger: &mut Ledger, slot: u32, priority: Priority) {
        let attempt = attempt(slot, |head| head.priority = priority);
        assert_eq!(ledger.admit(attempt, Instant::now()), Admission::Admitted);
    }

    fn start(ledger: &mut Ledger) -> Option<u32> {
        ledger.start_next().map(|attempt| attempt.key().job.slot())
    }

    fn done() -> Completion {
        Completion::failed(Outcome::Failed, "e", "m")
    }

    fn completed(slot: u32, verdict: Verdict) -> Completed {
        Completed { job: key(slot).job, fire_sequence: FireSequence(1), token: Token(1), verdict }
    }

    fn reattached(slot: u32, verdict: Verdict) -> Reattached {
        Reattached { job: key(slot).job, fire_sequence: FireSequence(1), token: Token(1), verdict }
    }

    /// The slots that are presented to a new session: to be reattached, and completed.
    fn presented(ledger: &Ledger) -> (Vec<u32>, Vec<u32>) {
        let (mut reattach, mut complete) = (Vec::new(), Vec::new());
        for presentation in ledger.presentations() {
            match presentation {
                Presentation::Reattach(frame) => reattach.push(frame.job.slot()),
                Presentation::Complete(_, frame) => complete.push(frame.head.job.slot()),
                Presentation::Heartbeat(_) => panic!("a heartbeat is no presentation"),
            }
        }
        reattach.sort_unstable();
        complete.sort_unstable();
        (reattach, complete)
    }

    #[test]
    fn what_waits_starts_by_priority_and_then_by_arrival_within_the_concurrency() {
        let mut ledger = ledger(1, 6);
        for (slot, priority) in [(1, Priority::P2), (2, Priority::P1), (3, Priority::P1), (4, Priority::P0)] {
            admit(&mut ledger, slot, priority);
        }
        for slot in [4, 2, 3, 1] {
            assert_eq!(start(&mut ledger), Some(slot));
            assert_eq!(start(&mut ledger), None, "one slot");
            assert!(ledger.finish(key(slot), done()).is_some());
        }
        assert_eq!(start(&mut ledger), None);
    }

    #[test]
    fn an_attempt_is_held_once_until_the_node_has_acknowledged_it() {
        let mut ledger = ledger(1, 1);
        admit(&mut ledger, 1, Priority::P1);
        assert_eq!(ledger.admit(attempt(1, |_| {}), Instant::now()), Admission::Known);
        start(&mut ledger);
        ledger.finish(key(1), done());
        assert_eq!(ledger.admit(attempt(1, |_| {}), Instant::now()), Admission::Known);
        ledger.completed(&completed(1, Verdict::Accepted), Instant::now());
        assert!(ledger.is_empty());
        ledger.completed(&completed(1, Verdict::Accepted), Instant::now());
        assert_eq!(ledger.unacknowledged_count(), 0);
    }

    #[test]
    fn a_node_that_floods_is_noticed() {
        let mut ledger = ledger(2, 3);
        for slot in 0..6 {
            admit(&mut ledger, slot, Priority::P1);
        }
        assert_eq!(ledger.admit(attempt(9, |_| {}), Instant::now()), Admission::Overflow);
    }

    #[test]
    fn nothing_starts_while_too_many_completions_are_unacknowledged() {
        let mut ledger = ledger(1, 1);
        let mut slot = 0;
        loop {
            admit(&mut ledger, slot, Priority::P1);
            if start(&mut ledger).is_none() {
                break;
            }
            ledger.finish(key(slot), done());
            slot += 1;
        }
        assert_eq!(ledger.unacknowledged_count(), UNACKNOWLEDGED_MIN);
        ledger.completed(&completed(0, Verdict::Accepted), Instant::now());
        assert_eq!(start(&mut ledger), Some(slot));
    }

    #[test]
    fn an_overloaded_owner_is_presented_the_completion_again() {
        let (mut ledger, now) = (ledger(1, 1), Instant::now());
        admit(&mut ledger, 1, Priority::P0);
        start(&mut ledger);
        ledger.finish(key(1), done());
        assert_eq!(ledger.next_due(now + OVERLOADED_DELAY), None);
        ledger.completed(&completed(1, Verdict::Overloaded), now);
        assert_eq!(ledger.next_due(now), None);
        let due = ledger.next_due(now + OVERLOADED_DELAY);
        assert!(matches!(due, Some(Presentation::Complete(Lane::P0, frame)) if frame.error == "e"));
        assert_eq!(ledger.next_wake(), None);
    }

    #[test]
    fn a_new_session_hears_of_exactly_what_is_still_held_and_unacknowledged() {
        let (mut ledger, now) = (ledger(3, 5), Instant::now());
        for slot in 1..=5 {
            admit(&mut ledger, slot, Priority::P1);
        }
        for _ in 1..=3 {
            start(&mut ledger);
        }
        ledger.finish(key(1), done());
        ledger.finish(key(2), done());
        ledger.completed(&completed(1, Verdict::Accepted), now);
        ledger.session_lost();
        assert_eq!(presented(&ledger), (vec![3, 4, 5], vec![2]));
        admit(&mut ledger, 6, Priority::P1);
        assert_eq!(presented(&ledger), (vec![3, 4, 5], vec![2]), "what the new session dispatched it knows");
        assert_eq!(start(&mut ledger), Some(6));
        assert_eq!(start(&mut ledger), None, "4 and 5 are unconfirmed");
        ledger.reattached(&reattached(5, Verdict::Accepted), now);
        ledger.reattached(&reattached(4, Verdict::StaleToken), now);
        assert_eq!(start(&mut ledger), Some(5));
        assert!(!ledger.knows(key(4)));
    }

    #[test]
    fn a_superseded_attempt_stops_and_its_result_is_dropped() {
        let (mut ledger, now) = (ledger(1, 1), Instant::now());
        admit(&mut ledger, 1, Priority::P1);
        let running = ledger.start_next().unwrap();
        ledger.session_lost();
        ledger.reattached(&reattached(1, Verdict::UnknownJob), now);
        assert_eq!(running.stop_reason(), Some(StopReason::Superseded));
        assert_eq!(presented(&ledger), (vec![], vec![]));
        assert_eq!(ledger.finish(key(1), done()), None);
        assert!(ledger.is_empty());
    }

    #[test]
    fn an_owner_that_cannot_look_now_is_asked_again() {
        let (mut ledger, now) = (ledger(1, 1), Instant::now());
        admit(&mut ledger, 1, Priority::P1);
        ledger.session_lost();
        ledger.reattached(&reattached(1, Verdict::Overloaded), now);
        assert_eq!(start(&mut ledger), None);
        assert!(matches!(ledger.next_due(now + OVERLOADED_DELAY), Some(Presentation::Reattach(_))));
        ledger.reattached(&reattached(1, Verdict::Accepted), now);
        assert_eq!(start(&mut ledger), Some(1));
    }

    #[test]
    fn cancellation_before_the_start_completes_at_once_and_later_tells_the_handler() {
        let mut ledger = ledger(1, 3);
        let cancel = |slot, reason| CancelAttempt {
            job: key(slot).job,
            fire_sequence: FireSequence(1),
            token: Token(1),
            reason,
        };
        for slot in 1..=3 {
            admit(&mut ledger, slot, Priority::P1);
        }
        let running = ledger.start_next().unwrap();
        assert_eq!(ledger.cancel(&cancel(1, CancelReason::Requested)), None);
        assert_eq!(running.stop_reason(), Some(StopReason::Requested));
        let (_, frame) = ledger.cancel(&cancel(2, CancelReason::JobDeleted)).unwrap();
        assert_eq!((frame.head.outcome, frame.head.job), (Outcome::Cancelled, key(2).job));
        assert!(ledger.cancel(&cancel(3, CancelReason::StaleToken)).is_some(), "the node frees its slot by that");
        assert!(ledger.finish(key(1), done()).is_some());
        assert_eq!(start(&mut ledger), None, "neither 2 nor 3 starts any more");
        assert_eq!(ledger.cancel(&cancel(1, CancelReason::StaleToken)), None);
        assert_eq!(presented(&ledger), (vec![], vec![1, 2, 3]), "only the word on the completion ends it");
    }

    #[test]
    fn a_cancellation_that_overtakes_its_dispatch_is_not_lost() {
        let (mut ledger, token) = (ledger(1, 1), Token(1));
        let frame = |slot| CancelAttempt {
            job: key(slot).job,
            fire_sequence: FireSequence(1),
            token,
            reason: CancelReason::Requested,
        };
        assert_eq!(ledger.cancel(&frame(1)), None);
        assert_eq!(ledger.admit(attempt(1, |_| {}), Instant::now()), Admission::Cancelled);
        let (_, complete) = ledger.completion(key(1)).unwrap();
        assert_eq!(complete.head.outcome, Outcome::Cancelled);
        assert_eq!(start(&mut ledger), None);
        assert!((10..5000).all(|slot| ledger.cancel(&frame(slot)).is_none()));
        assert!(ledger.early_cancels.len() <= EARLY_CANCELS_MAX);
    }

    #[test]
    fn signs_of_life_come_three_times_per_limit_from_the_receipt_to_the_end() {
        let (mut ledger, now) = (ledger(1, 2), Instant::now());
        let attempt = attempt(1, |head| head.heartbeat_ms = 300);
        ledger.admit(attempt.clone(), now);
        assert_eq!(ledger.next_wake(), Some(now + Duration::from_millis(100)));
        let at = now + Duration::from_millis(100);
        attempt.progress(5000);
        let due = ledger.next_due(at);
        assert!(matches!(due, Some(Presentation::Heartbeat(sign)) if sign.heartbeat.progress_permille == 1000));
        assert_eq!(ledger.next_due(at), None);
        assert_eq!(ledger.next_wake(), Some(at + Duration::from_millis(100)));
        start(&mut ledger);
        ledger.finish(key(1), done());
        assert_eq!(ledger.next_wake(), None);
    }

    fn said(sign: Option<Presentation<'_>>) -> Option<String> {
        match sign {
            Some(Presentation::Heartbeat(sign)) => {
                sign.status().map(|frame| String::from_utf8_lossy(frame.status).into())
            }
            other => panic!("a heartbeat was due, not {other:?}"),
        }
    }

    #[test]
    fn a_status_is_told_once_per_session() {
        let (mut ledger, now) = (ledger(2, 2), Instant::now());
        for slot in [1, 2] {
            admit(&mut ledger, slot, Priority::P1);
        }
        let (talking, _silent) = (ledger.start_next().unwrap(), ledger.start_next().unwrap());
        let told = |ledger: &Ledger| {
            ledger.heartbeat(key(1)).and_then(|sign| sign.status().map(|frame| frame.status.to_vec()))
        };
        talking.status("begun").unwrap();
        talking.status("half").unwrap();
        assert_eq!(told(&ledger).as_deref(), Some(&b"half"[..]));
        talking.status("half").unwrap();
        assert_eq!(told(&ledger), None, "nothing new");
        ledger.session_lost();
        for slot in [1, 2] {
            ledger.reattached(&reattached(slot, Verdict::Accepted), now);
        }
        assert_eq!(said(ledger.next_due(now)).as_deref(), Some("half"));
        assert_eq!(ledger.next_due(now), None, "the other handler has said nothing");
        talking.status("").unwrap();
        assert_eq!(told(&ledger).as_deref(), Some(&b""[..]), "it is taken away");
        // Said before the node has answered `attach`, when nothing can be sent yet.
        talking.status("faster").unwrap();
        assert!(told(&ledger).is_some());
        let presented = ledger.presentations().map(Some).map(said).collect::<Vec<_>>();
        assert_eq!(presented, [Some("faster".to_owned())]);
        ledger.finish(key(1), done());
        assert_eq!(ledger.heartbeat(key(1)), None);
    }

    #[test]
    fn what_is_no_status_is_refused_and_changes_nothing() {
        let attempt = attempt(1, |_| {});
        attempt.status("x".repeat(256)).unwrap();
        let long = attempt.status("x".repeat(257)).unwrap_err();
        assert_eq!(long.to_string(), "`status` has 257 bytes; at most 256 are allowed");
        let lines = attempt.status("one\ntwo").unwrap_err();
        assert_eq!(lines.to_string(), "`status` holds a control character");
        assert_eq!(attempt.take_status().map(|status| status.len()), Some(256));
    }
}

//! A job of the model, and its execution in flight.

use super::{backlog::Backlog, calendars::Calendars, counted::Counted, excluded::Excluded, firing::Waiting};
use crate::sim::when::When;
use std::{collections::BTreeMap, fmt, time::Duration};
use tickwheel_wire::{
    InstanceId, JobId, Timestamp,
    event::{Dispatched, Origin},
    frame::request::ExecutionState,
    job::{FiringRules, JobSpec, Overlap, RetryPolicy},
};

/// An execution in flight.
#[derive(Clone, Debug)]
pub struct Flight {
    /// Its attempt, from 1.
    pub attempt: u16,
    /// Token of that attempt.
    pub token: u64,
    /// When it was due.
    pub scheduled_at: Timestamp,
    /// Whether an attempt runs; else it waits for the next.
    pub is_running: bool,
    /// When the next attempt may begin.
    pub retry_at: Timestamp,
    /// Who has it.
    pub instance: InstanceId,
    /// When the attempt was given out, by the wall.
    pub dispatched_at: Timestamp,
    /// Its limits: of its run and of its silence; 0: none. Those of a definition that came meanwhile may hold, or not.
    pub limits_ms: [u32; 2],
    /// When its limit began to count, in virtual time.
    pub counts_from: Duration,
    /// Limit of its silence when it was given out.
    pub silence_ms: u32,
    /// Whether its end was asked for, and when.
    pub cancelled_at: Option<Duration>,
    /// Whether it makes up for something, so that firings wait.
    pub makes_up: bool,
}

/// A definition's bytes, which nobody wants to see printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Spec(pub Vec<u8>);

impl fmt::Debug for Spec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} bytes", self.0.len())
    }
}

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// Its tenant and name.
    pub name: (String, String),
    /// Its definition's bytes.
    pub spec: Spec,
    /// When it fires.
    pub when: When,
    /// When it does not.
    pub excluded: Excluded,
    /// How it is repeated.
    pub retry: RetryPolicy,
    /// Which of its firings are executed.
    pub rules: FiringRules,
    /// Why firings wait, and failures in a row.
    pub waiting: Waiting,
    /// Limit of an attempt, and of its silence; 0: none.
    pub limits_ms: [u32; 2],
    /// Grows with each definition.
    pub revision: u64,
    /// Whether it is paused.
    pub is_paused: bool,
    /// The next firing.
    pub next_fire: Timestamp,
    /// When a trigger was asked for that waits.
    pub triggered_at: Option<Timestamp>,
    /// What it has to make up for.
    pub backlog: Backlog,
    /// The newest firing.
    pub fire_sequence: u64,
    /// The newest token.
    pub token: u64,
    /// What is in flight, by the low halves of fire sequences: one execution, unless a policy allows more or did.
    pub flights: BTreeMap<u32, Flight>,
    /// How the newest execution ended.
    pub last_state: ExecutionState,
    /// When it finished for good.
    pub finished_at: Option<Timestamp>,
    /// Until when the key of its newest submission is remembered; without one, the epoch.
    pub key_until: Timestamp,
    /// The newest event by which a client changed it.
    pub changed_by: u64,
    /// Which reports counted.
    pub counted: Counted,
    /// Whether it ever had a policy that allows several executions in flight.
    pub has_allowed: bool,
}

impl Job {
    /// Whether an execution may begin at `wall`.
    pub fn may_begin(&self, wall: Timestamp) -> bool {
        let is_asked_for = self.triggered_at.is_some() || !self.backlog.times.is_empty();
        self.has_room() && (is_asked_for || !self.is_paused && self.next_fire <= wall)
    }

    /// Whether there is room for one more execution in flight: there is none, or its policy allows more than there are.
    pub fn has_room(&self) -> bool {
        let at_a_time = if self.rules.overlap == Overlap::Allow { self.rules.overlap_max as usize } else { 1 };
        self.flights.is_empty() || self.flights.len() < at_a_time
    }

    /// The low half of the fire sequence of the oldest execution whose next attempt may begin at `wall`.
    pub fn oldest_retry(&self, wall: Timestamp) -> Option<u32> {
        let mut waiting = self.flights.iter().filter(|(_, flight)| !flight.is_running && flight.retry_at <= wall);
        waiting.next().map(|(sequence, _)| *sequence)
    }

    /// The execution in flight whose newest attempt has this token, with its fire sequence.
    pub fn flight_of(&self, token: u64) -> Option<(u64, &Flight)> {
        let (sequence, flight) = self.flights.iter().find(|(_, flight)| flight.token == token)?;
        // Runs are short, so the low half is all of it.
        Some((u64::from(*sequence), flight))
    }

    pub(super) fn settle(&mut self, at: Timestamp) {
        if self.flights.is_empty()
            && self.triggered_at.is_none()
            && self.backlog.times.is_empty()
            && self.next_fire.is_never()
        {
            self.finished_at.get_or_insert(at);
        }
    }

    /// A job that is submitted at `at`, as long as nobody knows its identity.
    pub fn proposed(spec: &JobSpec<'_>, at: Timestamp, calendars: &Calendars) -> Self {
        Self::new(JobId::from_raw(0), spec, at, calendars)
    }

    pub(super) fn new(id: JobId, spec: &JobSpec<'_>, at: Timestamp, calendars: &Calendars) -> Self {
        Self {
            id,
            name: (spec.tenant.to_owned(), spec.name.to_owned()),
            spec: Spec::default(),
            when: When::of(spec, at),
            excluded: Excluded::of(spec, calendars),
            retry: spec.retry,
            rules: spec.rules,
            waiting: Waiting::default(),
            limits_ms: [spec.start_to_close_ms, spec.heartbeat_ms],
            revision: 1,
            is_paused: spec.paused,
            next_fire: Timestamp::MAX,
            triggered_at: None,
            backlog: Backlog::default(),
            fire_sequence: 0,
            token: 0,
            flights: BTreeMap::new(),
            last_state: ExecutionState::None,
            finished_at: None,
            key_until: Timestamp::EPOCH,
            changed_by: 0,
            counted: Counted::default(),
            has_allowed: spec.rules.overlap == Overlap::Allow,
        }
    }

    pub(super) fn dispatch(&mut self, dispatched: &Dispatched, instance: InstanceId, now: Duration) {
        self.token = dispatched.token.0;
        let known = self.flights.get(&dispatched.fire_sequence).map(|flight| (flight.scheduled_at, flight.makes_up));
        if known.is_none() {
            self.begin(dispatched);
        }
        let (scheduled_at, makes_up) = match known {
            Some(known) => known,
            None => {
                self.fire_sequence += 1;
                let asked = self.take_asked_for(dispatched.origin);
                (asked.unwrap_or(self.next_fire), dispatched.origin == Origin::Backlog)
            }
        };
        self.next_fire = dispatched.next_fire;
        let flight = Flight {
            attempt: dispatched.attempt,
            token: dispatched.token.0,
            scheduled_at,
            is_running: true,
            retry_at: Timestamp::MAX,
            instance,
            dispatched_at: dispatched.at,
            limits_ms: self.limits_ms,
            silence_ms: self.limits_ms[1],
            counts_from: now,
            cancelled_at: None,
            makes_up,
        };
        self.flights.insert(dispatched.fire_sequence, flight);
    }
}

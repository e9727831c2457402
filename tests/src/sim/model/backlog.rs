//! What jobs have to make up for: dead letters that are tried again, and firings of the past.

use super::{Job, Moment};
use crate::sim::{
    violation::{Violation, demand},
    when::When,
};
use std::collections::VecDeque;
use tickwheel_wire::{
    Timestamp,
    event::{Backfilled, Origin, Redriven},
    job::Overlap,
    limits::BACKLOG_MAX,
};

/// A job's backlog, and the dead letters that may be redriven.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// When each was to fire, in the order in which they begin.
    pub times: VecDeque<Timestamp>,
    /// The low halves of their fire sequences, and when they were to fire.
    pub dead_letters: Vec<(u32, Timestamp)>,
}

fn times_of(backfilled: &Backfilled<'_>) -> Vec<Timestamp> {
    let times = backfilled.times.as_chunks::<8>().0.iter();
    times.map(|bytes| Timestamp::from_micros(u64::from_le_bytes(*bytes))).collect()
}

impl Job {
    /// When what was asked for in this way was to fire.
    pub fn asked_for(&self, origin: Origin) -> Option<Timestamp> {
        match origin {
            Origin::Schedule => None,
            Origin::Trigger => self.triggered_at,
            Origin::Backlog => self.backlog.times.front().copied(),
        }
    }

    pub(super) fn take_asked_for(&mut self, origin: Origin) -> Option<Timestamp> {
        match origin {
            Origin::Schedule => None,
            Origin::Trigger => self.triggered_at.take(),
            Origin::Backlog => self.backlog.times.pop_front(),
        }
    }

    /// Whether firings wait because an execution in flight makes up for something. Those that run side by side do so with it.
    pub fn makes_up(&self) -> bool {
        self.rules.overlap != Overlap::Allow && self.flights.values().any(|flight| flight.makes_up)
    }

    /// Whether its backlog gets its turn before long: where firings wait for room, they always go first.
    pub fn has_turns(&self) -> bool {
        matches!(self.rules.overlap, Overlap::Skip | Overlap::Allow)
    }

    /// Of the backlog nothing begins while anything else is due.
    pub(super) fn check_turn(&self, moment: &Moment) -> Result<(), Violation> {
        demand!(!self.backlog.times.is_empty(), Accounted, "nobody asked for it: {self:?}");
        let is_due = !self.is_paused && self.next_fire <= moment.wall;
        demand!(!is_due && self.triggered_at.is_none(), Accounted, "something else goes first: {self:?}");
        Ok(())
    }

    pub(super) fn check_redriven(&self, redriven: &Redriven, moment: &Moment) -> Result<(), Violation> {
        let letter = (redriven.fire_sequence, redriven.scheduled_at);
        demand!(self.backlog.dead_letters.contains(&letter), Accounted, "it is no dead letter: {self:?}");
        demand!(redriven.at == moment.wall, Accounted, "its time is not the node's");
        Ok(())
    }

    pub(super) fn check_backfilled(&self, backfilled: &Backfilled<'_>, moment: &Moment) -> Result<(), Violation> {
        let times = times_of(backfilled);
        let room = BACKLOG_MAX as usize - self.backlog.times.len();
        demand!(!times.is_empty() && times.len() <= room, Bounded, "{} firings, room for {room}", times.len());
        let past = times.iter().all(|time| *time < moment.wall);
        demand!(past, NotEarly, "not all of {times:?} are past");
        if matches!(self.when, When::Once(_)) {
            let only = self.only_firing();
            demand!(times == [only], Accounted, "its only firing is at {only}");
            return Ok(());
        }
        let before = |time: Timestamp| Timestamp::from_micros(time.as_micros() - 1);
        let mut expected = self.firing_after(before(times[0]));
        for time in times {
            demand!(time == expected, Accounted, "{time} is no firing, the next is {expected}");
            expected = self.firing_after(time);
        }
        Ok(())
    }

    /// How many firings there are from `from` on and before `until`: those that are past at `wall`, and all.
    pub fn backfill_between(&self, from: Timestamp, until: Timestamp, wall: Timestamp) -> (usize, usize) {
        let mut fires = Vec::new();
        let mut fire = match self.when {
            When::Once(_) => Some(self.only_firing()).filter(|only| *only >= from).unwrap_or(Timestamp::MAX),
            _ => self.firing_after(Timestamp::from_micros(from.as_micros() - 1)),
        };
        while fire < until {
            fires.push(fire);
            fire = if matches!(self.when, When::Once(_)) { Timestamp::MAX } else { self.firing_after(fire) };
        }
        (fires.iter().filter(|fire| **fire < wall).count(), fires.len())
    }

    /// Behind the third firing from `from` on, or the last before.
    pub fn third_firing_from(&self, from: Timestamp) -> Timestamp {
        let mut end = from;
        for _ in 0..3 {
            let next = self.firing_after(Timestamp::from_micros(end.as_micros() - 1));
            if next.is_never() {
                break;
            }
            end = Timestamp::from_micros(next.as_micros() + 1);
        }
        Timestamp::from_micros(end.as_micros().max(from.as_micros() + 1))
    }

    pub(super) fn redrive(&mut self, redriven: &Redriven) {
        let letter = (redriven.fire_sequence, redriven.scheduled_at);
        self.backlog.dead_letters.retain(|known| *known != letter);
        self.backlog.times.push_back(redriven.scheduled_at);
        self.finished_at = None;
    }

    pub(super) fn backfill(&mut self, backfilled: &Backfilled<'_>) {
        self.backlog.times.extend(times_of(backfilled));
        self.finished_at = None;
    }

    /// Notes that an execution has failed for good.
    pub(super) fn bury(&mut self, fire_sequence: u32, scheduled_at: Timestamp) {
        self.backlog.dead_letters.push((fire_sequence, scheduled_at));
    }
}

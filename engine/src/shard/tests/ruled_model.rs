//! The plain model's part for jobs with rules of their own: which firings wait, go or are given up. Every firing is looked at one by one.

use super::{
    model::{DAY, Definition, Ending, Expected, GRACE, InFlight, Job, Model},
    when::When,
};
use std::cell::Cell;
use tickwheel_wire::{
    frame::request::ExecutionState,
    job::{FiringRules, Misfire, Overlap},
    mix64,
};

/// Of the firings of such a job that go at once, a week of minutes is counted.
const COUNTED_MAX: u64 = 7 * 24 * 60;
/// What is not left within such a time is never left: every schedule of the histories fires once a week.
const LEFT_WITHIN: u64 = 16 * DAY;
/// Most executions that are recorded as too late at once.
const RECORDED_MAX: u64 = 1_000;

/// What such a job remembers; times in microseconds, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    missed_until: u64,
    overlapped_until: u64,
    failures: u16,
    /// After how many failures the job was paused; 0: by request, or not.
    pub paused_after: u16,
}

/// What is excluded of a job's firings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excluded {
    Nothing,
    Thirds,
    Afternoons,
    Weekends,
    Days,
    /// What the calendar `shared` says.
    Shared,
}

thread_local! {
    /// The calendar `shared`.
    pub static SHARED: Cell<Excluded> = const { Cell::new(Excluded::Nothing) };
}

impl Excluded {
    pub const ALL: [Self; 6] =
        [Self::Nothing, Self::Thirds, Self::Afternoons, Self::Weekends, Self::Days, Self::Shared];
    /// What a calendar may say.
    pub const OF_CALENDAR: &'static [Self] = Self::ALL.split_at(5).0;

    pub const fn text(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Thirds => "zone UTC\ncron */3 * * * *",
            Self::Afternoons => "zone Asia/Kolkata\ncron * 14-16 * * *",
            Self::Weekends => "zone UTC\nweekends",
            Self::Days => "zone Asia/Kolkata\n2027-01-16..2027-01-17\n03-28\n2027-10-31",
            Self::Shared => "calendar shared",
        }
    }

    /// If `time` is excluded, the end of its minute, hour or day, on the clock that counts.
    fn end_of(self, time: u64) -> Option<u64> {
        let (ahead, unit) = match self {
            Self::Nothing => return None,
            Self::Shared => return SHARED.get().end_of(time),
            Self::Thirds => (0, DAY / 24 / 60),
            Self::Afternoons => (11 * DAY / 48, DAY / 24),
            Self::Weekends => (0, DAY),
            Self::Days => (11 * DAY / 48, DAY),
        };
        let number = (time + ahead) / unit;
        let is_excluded = match self {
            Self::Nothing | Self::Shared => false,
            Self::Thirds => number.is_multiple_of(3),
            Self::Afternoons => (14..17).contains(&(number % 24)),
            // Day 0 was a Thursday.
            Self::Weekends => [2, 3].contains(&(number % 7)),
            Self::Days => [20_834, 20_835, 20_905, 21_122].contains(&number),
        };
        is_excluded.then(|| (number + 1) * unit - ahead)
    }
}

fn never(time: Option<u64>) -> u64 {
    time.unwrap_or(u64::MAX)
}

impl Job {
    fn rules(&self) -> FiringRules {
        self.definition.rules
    }

    pub fn is_ruled(&self) -> bool {
        self.rules() != FiringRules::default()
            || self.definition.excluded != Excluded::Nothing
            || matches!(self.definition.when, When::Delay { .. })
    }

    fn is_used_up(&self, sequence: u64) -> bool {
        let most = u64::from(self.rules().executions_max);
        most != 0 && sequence >= most
    }

    /// The first firing after `time`.
    pub fn firing_after(&self, time: u64) -> Option<u64> {
        firing_after(&self.definition, self.id.raw(), time)
    }

    /// The first firing after `time`, even if it is put off across `time`.
    pub fn firing_across(&self, time: u64) -> Option<u64> {
        if matches!(self.definition.when, When::Delay { .. } | When::Once { .. }) {
            return self.firing_after(time);
        }
        let mut fire = self.firing_after(time - u64::from(self.rules().jitter_ms) * 1_000 - 1)?;
        while fire <= time {
            fire = self.firing_after(fire)?;
        }
        Some(fire)
    }

    /// The firing after `fire` for a job whose executions have come to `sequence`.
    fn following(&self, sequence: u64, fire: u64, now: u64) -> Option<u64> {
        if self.is_used_up(sequence) {
            return None;
        }
        match self.definition.when {
            When::Once { .. } => None,
            When::Delay { .. } => self.firing_after(now),
            _ => self.firing_after(fire),
        }
    }

    /// All firings from the next one up to `until`, and the one behind them.
    fn firings(&self, until: u64, now: u64) -> (Vec<u64>, Option<u64>) {
        let (mut fires, mut next) = (Vec::new(), self.next);
        while let Some(fire) = next.filter(|fire| *fire <= until) {
            fires.push(fire);
            next = self.following(self.sequence, fire, now);
        }
        (fires, next)
    }

    fn due(&self, now: u64) -> Option<u64> {
        self.next.filter(|next| !self.paused && *next <= now)
    }

    fn grace(&self) -> u64 {
        match (self.rules().misfire_grace_ms, self.rules().misfire) {
            (0, Misfire::Skip) => 60_000_000,
            (0, _) => u64::MAX,
            (grace_ms, _) => u64::from(grace_ms) * 1_000,
        }
    }

    fn start_limit(&self) -> u64 {
        match self.rules().schedule_to_start_ms {
            0 => u64::MAX,
            limit_ms => u64::from(limit_ms) * 1_000,
        }
    }

    /// Gives up the oldest firings where more wait than may: how many were skipped, and how many missed.
    fn drop_excess(&mut self, now: u64) -> (u64, u64) {
        let (fire, rules) = (never(self.next), self.rules());
        let is_overlapped = fire <= self.waiting.overlapped_until;
        let (until, keep) = match (is_overlapped, rules.misfire, rules.overlap) {
            _ if fire <= self.waiting.missed_until => return (0, 0),
            (true, _, Overlap::BufferAll) => (self.waiting.overlapped_until, rules.overlap_max),
            (true, _, _) => (self.waiting.overlapped_until, 1),
            (false, Misfire::FireAll, _) => (now, rules.misfire_max),
            _ => return (0, 0),
        };
        let (fires, _) = self.firings(until, now);
        let dropped = fires.len().saturating_sub(keep as usize);
        self.next = Some(fires[dropped]);
        let counted = if fires.len() as u64 > COUNTED_MAX { COUNTED_MAX } else { dropped as u64 };
        if is_overlapped { (counted, 0) } else { (0, counted) }
    }

    /// The next firing once the due one has become an execution, and how many it stands for besides itself.
    fn stand_for(&self, now: u64) -> (Option<u64>, u64) {
        let fire = never(self.next);
        let was_kept = fire <= self.waiting.missed_until.max(self.waiting.overlapped_until);
        if was_kept || self.rules().misfire != Misfire::FireOnce {
            return (self.following(self.sequence + 1, fire, now), 0);
        }
        let (fires, behind) = self.firings(now, now);
        let missed = (fires.len() as u64).min(COUNTED_MAX) - 1;
        (behind.filter(|_| !self.is_used_up(self.sequence + 1)), missed)
    }

    /// Begins an execution of the due firing: its time, what was skipped and what was missed.
    pub fn begin_ruled(&mut self, now: u64) -> (u64, u64, u64) {
        let (skipped, missed) = self.drop_excess(now);
        let fire = never(self.next);
        let was_missed = fire > self.waiting.missed_until.max(self.waiting.overlapped_until);
        let (next, stood_for) = self.stand_for(now);
        self.next = if matches!(self.definition.when, When::Delay { .. }) { None } else { next };
        if was_missed && self.rules().misfire == Misfire::FireAll && never(self.next) <= now {
            self.waiting.missed_until = now;
        }
        (fire, skipped, missed + stood_for)
    }

    /// What was special about an execution that has just begun at `scheduled`, when it waited for what `before` says.
    pub fn fates(&self, scheduled: u64, before: Waiting) -> [(&'static str, bool); 7] {
        let rules = self.rules();
        let overlapped = scheduled <= before.overlapped_until && scheduled > before.missed_until;
        [
            ("missed firing executed by fire-all", scheduled <= before.missed_until),
            ("firing buffered by buffer-one", overlapped && rules.overlap == Overlap::BufferOne),
            ("firing buffered by buffer-all", overlapped && rules.overlap == Overlap::BufferAll),
            ("last of the executions allowed", self.is_used_up(self.sequence + 1)),
            ("last in the window", self.next.is_none() && rules.ends_at.as_micros() < u64::MAX),
            ("firing put off by jitter", rules.jitter_ms > 0),
            (
                "firing before an excluded one",
                self.definition
                    .when
                    .first_after(scheduled)
                    .is_some_and(|next| self.definition.excluded.end_of(next).is_some()),
            ),
        ]
    }

    /// The next firing once a trigger's execution, which has the newest sequence number, has begun.
    pub fn next_after_trigger(&self) -> Option<u64> {
        let is_delayed = matches!(self.definition.when, When::Delay { .. });
        self.next.filter(|_| !is_delayed && !self.is_used_up(self.sequence))
    }

    /// The end of an execution; `failed`: whether it was one more failure, `None` if it was cancelled.
    pub fn end_ruled(&mut self, now: u64, failed: Option<bool>) {
        if let When::Delay { .. } = self.definition.when {
            self.next = self.firing_after(now).filter(|_| !self.is_used_up(self.sequence));
        } else if self.keeps_firings() && never(self.next) <= now && !self.paused {
            self.waiting.overlapped_until = now;
        }
        match failed {
            Some(true) => self.waiting.failures += 1,
            Some(false) => self.waiting.failures = 0,
            None => {}
        }
        let most = self.rules().pause_after_failures;
        if failed.is_some() && most > 0 && self.waiting.failures >= most && !self.paused {
            (self.paused, self.waiting.paused_after) = (true, self.waiting.failures);
        }
    }

    /// Whether a trigger is refused while an execution is in flight.
    pub fn refuses_triggers(&self) -> bool {
        self.rules().overlap == Overlap::Skip
    }

    /// Whether firings wait that come due while there is no room for them.
    fn keeps_firings(&self) -> bool {
        !matches!(self.rules().overlap, Overlap::Skip | Overlap::Allow)
    }

    /// Whether a due firing waits for the end of an execution in flight.
    pub fn waits(&self) -> bool {
        self.keeps_firings() || never(self.next) <= self.waiting.missed_until
    }

    /// The first firing of a new definition.
    pub fn start_ruled(&mut self, now: u64) {
        self.waiting = Waiting::default();
        self.next = self.firing_after(now).filter(|_| !self.is_used_up(self.sequence));
    }
}

/// The first firing after `time` that the rules let be, put off by the specified jitter.
pub fn firing_after(definition: &Definition, job: u64, time: u64) -> Option<u64> {
    let Definition { when, ref rules, excluded, .. } = *definition;
    let first_after = |time: u64| {
        let mut fire = when.first_after(time)?;
        while let Some(end) = excluded.end_of(fire) {
            fire = when.first_after(end - 1).filter(|next| *next > fire && *next < time + LEFT_WITHIN)?;
        }
        Some(fire)
    };
    let fire = first_after(time.max(rules.starts_at.as_micros().saturating_sub(1)))?;
    let ends_at = rules.ends_at.as_micros();
    if fire >= ends_at {
        return None;
    }
    let next = if matches!(when, When::Once { .. }) { None } else { first_after(fire) };
    let room = never(next).min(ends_at) - fire - 1;
    let span = (u64::from(rules.jitter_ms) * 1_000).min(room);
    let draw = u128::from(mix64(job ^ mix64(fire)));
    Some(fire + u64::try_from((draw * u128::from(span + 1)) >> 64).unwrap())
}

impl Model {
    /// The calendar `shared` says something else from now on.
    pub fn set_calendar(&mut self, shared: Excluded) {
        if SHARED.replace(shared) == shared {
            return;
        }
        let now = self.time;
        let jobs = self.jobs.values_mut().filter(|job| job.definition.excluded == Excluded::Shared);
        for job in jobs.filter(|job| job.next.is_some_and(|next| next > now)) {
            let jitter = u64::from(job.rules().jitter_ms) * 1_000;
            let may_be_put_off = job.next.is_some_and(|next| next <= now + jitter);
            let next = if may_be_put_off { job.next } else { job.firing_after(now).or(job.next) };
            *self.ruled.entry("firing moved with its calendar").or_default() += u64::from(next != job.next);
            job.next = next;
        }
    }

    /// Gives up what is too late of a job that could begin.
    pub fn drop_late(&mut self, name: &str) {
        let now = self.time;
        let job = self.jobs.get_mut(name).unwrap();
        if !job.is_ruled() || !job.has_room() {
            return;
        }
        let mut recorded = 0;
        let is_late = |job: &Job, fire: u64| now - fire > job.grace().min(job.start_limit());
        while job.due(now).is_some_and(|fire| is_late(job, fire)) {
            let (skipped, missed) = job.drop_excess(now);
            self.skipped += skipped;
            self.misfired += missed;
            let lateness = now - job.due(now).unwrap();
            let bulk = if lateness > job.grace() {
                Some(job.grace())
            } else {
                Some(job.start_limit()).filter(|limit| recorded >= RECORDED_MAX && *limit < u64::MAX)
            };
            if let Some(limit) = bulk {
                let (fires, next) = job.firings(now - limit - 1, now);
                self.misfired += (fires.len() as u64).min(COUNTED_MAX);
                *self.ruled.entry("firing past its grace").or_default() += 1;
                job.next = next;
                if next.is_none() {
                    self.misfired -= 1;
                    job.sequence += 1;
                    job.last = vec![ExecutionState::TooLate];
                    self.too_late += 1;
                    recorded += 1;
                }
            } else if lateness > job.start_limit() {
                let (next, stood_for) = job.stand_for(now);
                self.misfired += stood_for;
                job.sequence += 1;
                job.next = next;
                job.last = vec![ExecutionState::TooLate];
                self.too_late += 1;
                *self.ruled.entry("execution too late").or_default() += 1;
                recorded += 1;
            } else {
                break;
            }
        }
        if job.trigger.is_some_and(|asked| now - asked > job.start_limit()) {
            job.trigger = None;
            job.sequence += 1;
            job.last = vec![ExecutionState::TooLate];
            job.next = job.next.filter(|_| !job.is_used_up(job.sequence));
            self.too_late += 1;
            *self.ruled.entry("trigger too late").or_default() += 1;
        }
    }

    /// Makes executions in flight go where the rules want it.
    pub fn supersede(&mut self, name: &str) {
        let now = self.time;
        let job = self.jobs.get_mut(name).unwrap();
        let overlap = job.rules().overlap;
        let wanted = [job.trigger, job.due(now)].into_iter().flatten().max();
        if job.makes_up() {
            return;
        }
        let in_between = |flight: &InFlight| wanted.is_some_and(|time| time > flight.dispatched);
        let flights = job.flights.iter().rev().filter(|(_, flight)| in_between(flight));
        for sequence in flights.map(|(sequence, _)| *sequence).collect::<Vec<_>>() {
            let job = self.jobs.get_mut(name).unwrap();
            let flight = job.flights.get_mut(&sequence).unwrap();
            match overlap {
                Overlap::CancelRunning | Overlap::TerminateRunning if !flight.running => {
                    job.flights.remove(&sequence);
                    job.last = vec![ExecutionState::Cancelled];
                    job.end_ruled(now, None);
                    self.cancelled += 1;
                    self.note("retry given up to make way", 1);
                }
                Overlap::TerminateRunning => {
                    self.end(name, sequence, Ending::Terminated);
                    self.note("execution terminated", 1);
                }
                Overlap::CancelRunning if !flight.cancelling => {
                    *self.ruled.entry("execution asked to make way").or_default() += 1;
                    flight.cancelling = true;
                    flight.deadline = flight.deadline.min(now + GRACE);
                }
                _ => {}
            }
        }
    }

    /// Skips what is due while an execution is in flight, unless it waits.
    pub fn skip_ruled(&mut self, name: &str) {
        let now = self.time;
        let job = self.jobs.get_mut(name).unwrap();
        if !job.waits() {
            let (fires, next) = job.firings(now, now);
            self.skipped += (fires.len() as u64).min(COUNTED_MAX);
            job.next = next;
        }
    }

    /// Cancels the due firing of a job with rules.
    pub fn cancel_due(&mut self, name: &str) -> Expected {
        let now = self.time;
        let job = self.jobs.get_mut(name).unwrap();
        let (skipped, missed) = job.drop_excess(now);
        let (next, stood_for) = job.stand_for(now);
        job.sequence += 1;
        job.next = next;
        self.skipped += skipped;
        self.misfired += missed + stood_for;
        self.cron.cancelled += u64::from(job.definition.when.is_cron());
        Expected::Ok
    }
}

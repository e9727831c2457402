//! What is going to happen in a run, drawn from its seed: the node's settings, the jobs, what clients do with them, how workers
//! behave, and the faults.
//!
//! Every part that can be left out has a name (`f3`, `o12`, `w1`), so that a failing plan can be made smaller and a smaller one named
//! on the command line.

mod calendar;

use super::{
    labels::{LABELS, SELECTORS, Selector},
    random::Stream,
};
use calendar::Calendar;
use std::{collections::BTreeSet, time::Duration};
use tickwheel_wire::{
    JobId, Timestamp,
    frame::request::{JobVerb, SubmitMode},
    job::{FiringRules, JobSpec, Misfire, Overlap, Priority, RetryPolicy, ScheduleListBuf, ScheduleSpec},
};

/// Parts of a plan that are left out, by name.
pub type Dropped = BTreeSet<String>;

/// Which log a node stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Segments on the simulated disk.
    Files,
    /// A store of transactions: commits are slow, end out of order, may have unknown results, and can be fenced.
    Transactions,
}

/// The node's settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which log.
    pub backend: Backend,
    /// Shards at the first start.
    pub shards: u16,
    /// Partitions of the cluster.
    pub partitions: u16,
    /// Length of a segment.
    pub segment_bytes: u64,
    /// Commits in flight.
    pub in_flight_max: usize,
    /// Bytes of events after which a snapshot is due.
    pub snapshot_log_bytes: u64,
    /// Time that a turn of a shard takes, at most.
    pub turn_us_max: u64,
    /// Time that a disk operation takes, at most.
    pub disk_us_max: u64,
    /// How long executions wait for their worker.
    pub reattach_ms: u32,
    /// How long a cancelled attempt may go on.
    pub cancel_grace_ms: u32,
    /// How long finished jobs are kept.
    pub finished_ms: u64,
    /// Datagrams lost, in thousandths.
    pub loss: u64,
    /// Datagrams delivered twice, in thousandths.
    pub repeat: u64,
    /// Datagrams that take a detour, in thousandths.
    pub reorder: u64,
    /// Datagrams with a flipped bit, in thousandths.
    pub corrupt: u64,
    /// Delay of a datagram, at most.
    pub delay_us_max: u64,
    /// Bytes that an actor takes on a lane before it has read them.
    pub window_bytes: u32,
}

impl Settings {
    /// Bytes of events that close a batch for the log: few, so that a busy log or a long turn leaves several.
    pub fn batch_bytes(&self) -> usize {
        usize::try_from(self.segment_bytes / 128).expect("small")
    }
}

/// A job's definition, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its tenant.
    pub tenant: &'static str,
    /// Its name.
    pub name: String,
    /// When it fires.
    pub schedule: Schedule,
    /// When it fires too.
    pub also: Vec<Schedule>,
    /// When it does not: entries, one per line.
    pub exclusions: String,
    /// What tells it apart, as it travels.
    pub labels: &'static str,
    /// Attempts in all.
    pub attempts_max: u16,
    /// First delay between attempts.
    pub initial_ms: u32,
    /// Limit of an attempt.
    pub start_to_close_ms: u32,
    /// Limit of silence; 0: none.
    pub heartbeat_ms: u32,
    /// How urgent.
    pub priority: Priority,
    /// Which of its firings are executed.
    pub rules: FiringRules,
    /// Whether it starts paused.
    pub paused: bool,
    /// Bytes of payload.
    pub payload_bytes: usize,
}

/// When a job fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Every so many microseconds from the submission on.
    Every(u64),
    /// Every so many minutes of the hour, by cron in UTC.
    Minutes(u64),
    /// At seconds of minutes of any hour, by cron in a zone.
    Seconds(&'static str, &'static str),
    /// Every day at this hour and minute, by cron in [`ZONE`].
    Daily(u64, u64),
    /// Once, so many microseconds after the submission.
    After(u64),
    /// Once, at a time.
    At(Timestamp),
    /// So many microseconds after the submission, and after the end of each execution.
    Delay(u64),
}

impl Schedule {
    /// Calls `take` with the schedule as the protocol carries it.
    fn with_spec<T>(self, take: impl FnOnce(ScheduleSpec<'_>) -> T) -> T {
        let expression = match self {
            Self::Minutes(1) => "* * * * *".to_owned(),
            Self::Minutes(minutes) => format!("*/{minutes} * * * *"),
            Self::Daily(hour, minute) => format!("{minute} {hour} * * *"),
            Self::Seconds(expression, _) => expression.to_owned(),
            _ => String::new(),
        };
        take(match self {
            Self::Every(every_us) => ScheduleSpec::Interval { every_us, anchor: Timestamp::MAX },
            Self::Minutes(_) => ScheduleSpec::Cron { expression: &expression, zone: "UTC" },
            Self::Seconds(_, zone) => ScheduleSpec::Cron { expression: &expression, zone },
            Self::Daily(..) => ScheduleSpec::Cron { expression: &expression, zone: ZONE },
            Self::After(delay_us) => ScheduleSpec::After { delay_us },
            Self::At(at) => ScheduleSpec::Once { at },
            Self::Delay(delay_us) => ScheduleSpec::FixedDelay { delay_us },
        })
    }

    /// Whether it counts from something else than the clock, so that it stands alone.
    const fn stands_alone(self) -> bool {
        matches!(self, Self::After(_) | Self::Delay(_))
    }
}

impl Definition {
    /// The definition as the protocol carries it.
    pub fn encode(&self) -> Vec<u8> {
        let mut also = ScheduleListBuf::default();
        self.also.iter().for_each(|schedule| schedule.with_spec(|schedule| also.push(&schedule)));
        let payload = vec![7; self.payload_bytes];
        let retry = RetryPolicy {
            attempts_max: self.attempts_max,
            initial_ms: self.initial_ms,
            delay_ms_max: RETRY_MS_MAX,
            ..RetryPolicy::default()
        };
        let mut bytes = Vec::new();
        self.schedule.with_spec(|schedule| {
            let spec = JobSpec {
                payload: &payload,
                priority: self.priority,
                retry,
                start_to_close_ms: self.start_to_close_ms,
                heartbeat_ms: self.heartbeat_ms,
                rules: self.rules,
                paused: self.paused,
                also: also.as_list(),
                exclusions: &self.exclusions,
                labels: self.labels,
                ..JobSpec::new(self.tenant, &self.name, "work", schedule)
            };
            spec.encode(&mut bytes);
        });
        bytes
    }
}

/// Longest delay between attempts.
pub const RETRY_MS_MAX: u32 = 20_000;

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Submits; with a key, also once more after the time given, within the window of the key.
    Submit {
        /// What.
        definition: Box<Definition>,
        /// How.
        mode: SubmitMode,
        /// Which revision it states, if it replaces a job.
        stated: Stated,
        /// Window of an idempotency key, and when the submission is repeated.
        key: Option<(Duration, Duration)>,
    },
    /// Does something with a job.
    Command(JobVerb, Stated),
    /// Cancels what the job is doing.
    Cancel,
    /// Redrives the job's newest dead letter, or something that is none.
    Redrive,
    /// Backfills a few of the job's firings, from so long before now on.
    Backfill(Duration),
    /// Looks at the job.
    Get,
    /// Lists the jobs of all partitions that labels pick, so many per page; then does something with each of its own that were shown.
    List(Selector, u16, Option<JobVerb>),
    /// Watches the job's partition.
    Watch,
    /// Sets the calendar with this name in the job's partition, with these entries.
    SetCalendar(&'static str, String),
    /// Removes it there.
    RemoveCalendar(&'static str),
}

/// Which job a client says that it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated {
    /// Whichever has the name.
    Nothing,
    /// The one that there is.
    Right,
    /// A revision that it does not have.
    OtherRevision,
    /// Another job of this name.
    OtherJob,
    /// The identity and revision that a list has shown.
    Seen(JobId, u64),
}

/// What a client does with one job at a time.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its name in the plan.
    pub label: String,
    /// When, at the earliest: operations on one job wait for each other.
    pub at: Duration,
    /// Number of the job.
    pub job: usize,
    /// What.
    pub deed: Deed,
}

/// How a worker behaves.
#[derive(Clone, Copy, Debug)]
pub struct WorkerPlan {
    /// Number in the plan, which is also that of its stream.
    pub index: usize,
    /// How many executions it holds.
    pub capacity: u32,
    /// When it comes.
    pub from: Duration,
    /// Longest run of a handler.
    pub run_max: Duration,
    /// Attempts that fail, in thousandths.
    pub fails: u64,
    /// Attempts that never end by themselves, in thousandths.
    pub hangs: u64,
    /// Attempts reported long after their limit, in thousandths.
    pub late: u64,
    /// Attempts reported twice, in thousandths.
    pub doubles: u64,
    /// Reports with a token that was never given to it, in thousandths.
    pub forges: u64,
    /// Attempts at whose arrival it states another capacity, in thousandths.
    pub resizes: u64,
    /// Whether it stays silent where signs of life are asked for.
    pub silent: bool,
}

/// A fault and when it strikes.
#[derive(Clone, Debug)]
pub struct PlannedFault {
    /// Its name in the plan.
    pub label: String,
    /// When.
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power fails at the disk's step so many ahead; back after `down`, with so many shards.
    PowerLoss {
        /// Disk steps from now.
        steps: u64,
        /// How long the node is away.
        down: Duration,
        /// Shards afterwards.
        shards: u16,
    },
    /// The process is killed.
    Kill {
        /// Once so many of its writes are under way, a second later at the latest.
        writes: usize,
        /// How long the node is away.
        down: Duration,
        /// Shards afterwards.
        shards: u16,
    },
    /// The node is asked to stop, and started again.
    Restart {
        /// Time to finish.
        limit: Duration,
        /// Shards afterwards.
        shards: u16,
    },
    /// The node's process stands still (SIGSTOP).
    Pause(Duration),
    /// The disk's next steps fail.
    DiskErrors {
        /// For how long.
        during: Duration,
        /// Failing writes, per 100,000.
        writes: u32,
        /// Failing syncs, per 100,000.
        syncs: u32,
    },
    /// Disk operations take up to this long.
    SlowDisk {
        /// For how long.
        during: Duration,
        /// The longest operation.
        latency: Duration,
    },
    /// The disk has no room for more.
    FullDisk(Duration),
    /// The disk lies for a while: a write is lost, or lands elsewhere.
    LyingDisk {
        /// For how long.
        during: Duration,
        /// Lost writes per 100,000.
        lost: u32,
        /// Misdirected writes per 100,000.
        misdirected: u32,
    },
    /// Bits flip and sectors cannot be read, on copies of the disk on which a node is then started.
    Rot(u64),
    /// Datagrams of one actor vanish.
    Cut {
        /// Which actor, by number modulo their count.
        actor: usize,
        /// For how long.
        during: Duration,
        /// Whether they vanish towards the node only.
        one_way: bool,
    },
    /// Everyone's datagrams suffer more.
    BadNetwork {
        /// For how long.
        during: Duration,
        /// Lost, in thousandths.
        loss: u64,
    },
    /// The system's clock is set.
    ClockJump {
        /// By so many milliseconds.
        ms: i64,
    },
    /// The system's clock stands still.
    ClockFreeze(Duration),
    /// A worker's process dies; a new one comes after a while.
    WorkerDeath {
        /// Which, by number modulo their count.
        worker: usize,
        /// How long it is away.
        down: Duration,
    },
    /// A worker loses its connection and comes back.
    WorkerReconnect {
        /// Which, by number modulo their count.
        worker: usize,
        /// How long it is away.
        down: Duration,
    },
    /// Another owner takes the streams over (transactions only).
    Fence,
    /// The store answers some commits with "unknown" for a while (transactions only).
    UnknownResults(Duration),
}

/// Everything that will happen in a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The root seed.
    pub seed: u64,
    /// The node's settings.
    pub settings: Settings,
    /// The first moment, on the wall.
    pub start: Timestamp,
    /// How long clients act and faults strike.
    pub active: Duration,
    /// What clients do, by time.
    pub operations: Vec<Operation>,
    /// Clients.
    pub clients: usize,
    /// Workers.
    pub workers: Vec<WorkerPlan>,
    /// What goes wrong, by time.
    pub faults: Vec<PlannedFault>,
}

/// The zone of jobs that go by a local time.
pub const ZONE: &str = "Europe/Berlin";
/// A zone where it is midnight when clocks are set in [`ZONE`].
pub const WEST_ZONE: &str = "Etc/GMT+1";
/// When clocks are set forward there in 2026, and back: 29 March and 25 October, 01:00 UTC.
pub const CLOCK_CHANGES: [Timestamp; 2] = [Timestamp::from_secs(1_774_746_000), Timestamp::from_secs(1_792_890_000)];
/// What the other runs are about: 2026-01-01.
const NEW_YEAR: Timestamp = Timestamp::from_secs(1_767_225_600);
/// The midnights of runs.
const MIDNIGHTS: [Timestamp; 3] = [NEW_YEAR, CLOCK_CHANGES[0], CLOCK_CHANGES[1]];
/// The times of day at which such jobs fire: shown once, twice or never where a clock is changed.
const TIMES_OF_DAY: [(u64, u64); 6] = [(3, 0), (3, 1), (2, 0), (2, 1), (2, 30), (1, 59)];

const SECOND: Duration = Duration::from_secs(1);

impl Plan {
    /// The plan of `seed`, less what is dropped.
    pub fn new(seed: u64, dropped: &Dropped) -> Self {
        let mut stream = Stream::new(seed, "settings", 0);
        let mut settings = settings(&mut stream);
        let crashes_only = Stream::new(seed, "crashes only", 0).chance(200);
        if crashes_only {
            // What a crash leaves to the next one shows when hardly anything else happens, and many writes are under way.
            settings.segment_bytes = 24 << 10;
            settings.in_flight_max = 6;
            settings.disk_us_max = 20_000;
        }
        let active = stream.millis(40_000, 400_000);
        let start = start(seed, active);
        let mut operations = operations(seed, start, active);
        operations.retain(|operation| !dropped.contains(&operation.label));
        let worker_count = usize::try_from(stream.between(1, 4)).expect("few");
        let mut workers = (0..worker_count).map(|index| worker(seed, index)).collect::<Vec<_>>();
        if Stream::new(seed, "starved", 0).chance(100) {
            starve(&mut operations, &mut workers);
        }
        let workers = workers.into_iter().filter(|worker| !dropped.contains(&format!("w{}", worker.index))).collect();
        let mut faults = faults(seed, active, &settings, crashes_only);
        faults.retain(|fault| !dropped.contains(&fault.label));
        let clients = usize::try_from(stream.between(1, 3)).expect("few");
        Self { seed, settings, start, active, operations, clients, workers, faults }
    }

    /// The names of all parts that can be left out, the most disturbing first.
    pub fn labels(&self) -> Vec<String> {
        let faults = self.faults.iter().map(|fault| fault.label.clone());
        let operations = self.operations.iter().map(|operation| operation.label.clone());
        let workers = self.workers.iter().map(|worker| format!("w{}", worker.index));
        faults.chain(operations).chain(workers).collect()
    }
}

/// Jobs that are all alike, and one slow worker for them: some miss their minute while others do not.
fn starve(operations: &mut [Operation], workers: &mut Vec<WorkerPlan>) {
    for operation in operations {
        if let Deed::Submit { definition, .. } = &mut operation.deed {
            (definition.schedule, definition.rules) = (Schedule::Minutes(1), FiringRules::PLAIN);
            (definition.also, definition.exclusions) = (Vec::new(), String::new());
            definition.start_to_close_ms = 15_000;
        }
    }
    workers.truncate(1);
    workers.iter_mut().for_each(|worker| (worker.capacity, worker.run_max) = (1, 8 * SECOND));
}

/// Every run sees midnight: of the new year, or in [`WEST_ZONE`] when the clocks are set in [`ZONE`].
fn start(seed: u64, active: Duration) -> Timestamp {
    let mut stream = Stream::new(seed, "start", 0);
    let midnight = stream.pick(&MIDNIGHTS);
    let before_us = stream.below(u64::try_from(active.as_micros()).expect("short"));
    Timestamp::from_micros(midnight.as_micros() - before_us)
}

fn settings(stream: &mut Stream) -> Settings {
    let calm = stream.chance(400);
    let backend = if stream.chance(200) { Backend::Transactions } else { Backend::Files };
    Settings {
        backend,
        shards: u16::try_from(stream.between(1, 3)).expect("few"),
        partitions: stream.pick(&[1, 4, 8]),
        segment_bytes: stream.pick(&[32 << 10, 64 << 10, 128 << 10]),
        in_flight_max: usize::try_from(stream.between(1, 6)).expect("few"),
        snapshot_log_bytes: stream.pick(&[4 << 10, 16 << 10, 1 << 30]),
        turn_us_max: stream.pick(&[30, 200, 2_000]),
        disk_us_max: stream.pick(&[50, 1_000, 10_000]),
        reattach_ms: stream.pick(&[500, 2_000, 5_000]),
        cancel_grace_ms: stream.pick(&[1_000, 5_000]),
        finished_ms: stream.pick(&[3_000, 86_400_000]),
        loss: if calm { 0 } else { stream.below(50) },
        repeat: if calm { 0 } else { stream.below(30) },
        reorder: if calm { 0 } else { stream.below(100) },
        corrupt: if calm { 0 } else { stream.below(10) },
        delay_us_max: stream.pick(&[200, 2_000, 50_000]),
        window_bytes: stream.pick(&[1_500, 1 << 20]),
    }
}

fn definition(stream: &mut Stream, job: usize, start: Timestamp) -> Definition {
    let (mut calendars, mut labels) = (stream.fork("calendar"), stream.fork("labels"));
    let schedule = match stream.below(12) {
        0..=2 => Schedule::Every(stream.pick(&[700_000, 1_000_000, 3_000_000, 7_000_000, 30_000_000])),
        3..=5 => Schedule::Minutes(stream.pick(&[1, 1, 2])),
        6 | 7 => Schedule::After(stream.below(30_000_000)),
        8 => Schedule::At(Timestamp::from_micros(start.as_micros() + stream.below(200_000_000))),
        9 | 10 => {
            let (hour, minute) = stream.pick(&TIMES_OF_DAY);
            Schedule::Daily(hour, minute)
        }
        _ => Schedule::Every(stream.between(1_000_000, 60_000_000)),
    };
    let (schedule, rules) = rules(&mut stream.fork("rules"), schedule, start);
    let definition = Definition {
        tenant: stream.pick(&TENANTS),
        name: format!("job-{job}"),
        schedule,
        also: Vec::new(),
        exclusions: String::new(),
        labels: labels.pick(&LABELS),
        attempts_max: u16::try_from(stream.between(1, 4)).expect("few"),
        initial_ms: stream.pick(&[10, 1_000, 5_000]),
        start_to_close_ms: stream.pick(&[1_000, 4_000, 15_000]),
        heartbeat_ms: stream.pick(&[0, 0, 1_000, 3_000]),
        priority: stream.pick(&[Priority::P0, Priority::P1, Priority::P2]),
        rules,
        paused: stream.chance(100),
        payload_bytes: stream.pick(&[0, 10, 300, 3_000]),
    };
    // Jobs that are alike share what the engine keeps of them.
    let goes_by_cron = matches!(schedule, Schedule::Minutes(_) | Schedule::Daily(..));
    if goes_by_cron && stream.chance(800) {
        let priority = Priority::P1;
        return Definition {
            attempts_max: 2,
            initial_ms: 1_000,
            start_to_close_ms: 4_000,
            heartbeat_ms: 0,
            priority,
            rules: FiringRules::PLAIN,
            labels: "",
            ..definition
        };
    }
    Calendar::draw(&mut calendars, start, &definition).applied(definition)
}

/// Rules for some jobs, and a fixed delay for a few.
fn rules(stream: &mut Stream, schedule: Schedule, start: Timestamp) -> (Schedule, FiringRules) {
    let mut rules = FiringRules::PLAIN;
    if stream.chance(500) {
        return (schedule, rules);
    }
    let mut schedule = if stream.chance(100) { Schedule::Delay(stream.between(500_000, 20_000_000)) } else { schedule };
    let few = |stream: &mut Stream| u32::try_from(stream.between(1, 4)).expect("few");
    rules.misfire = stream.pick(Misfire::ALL);
    if rules.misfire == Misfire::FireAll {
        rules.misfire_max = few(stream);
    }
    rules.misfire_grace_ms = stream.pick(&[0, 0, 2_000, 30_000]);
    rules.schedule_to_start_ms = stream.pick(&[0, 0, 0, 3_000, 20_000]);
    rules.pause_after_failures = u16::try_from(stream.pick(&[0, 0, 0, 1, 3])).expect("few");
    if !matches!(schedule, Schedule::Delay(_)) {
        rules.overlap = stream.pick(Overlap::ALL);
        // Of a job that seldom fires hardly two run at a time.
        let mut often = stream.fork("often");
        if often.chance(150) {
            rules.overlap = Overlap::Allow;
            schedule = Schedule::Every(often.pick(&[700_000, 1_000_000, 3_000_000]));
        }
        if matches!(rules.overlap, Overlap::BufferAll | Overlap::Allow) {
            rules.overlap_max = few(stream);
        }
    }
    if !matches!(schedule, Schedule::After(_) | Schedule::At(_)) && stream.chance(300) {
        rules.starts_at = start.saturating_add(stream.millis(0, 60_000));
        // Longer than any run, clocks that jump included: a window that had passed would be refused.
        rules.ends_at = start.saturating_add(Duration::from_secs(86_400));
        rules.executions_max = stream.pick(&[0, 1, 5]);
    }
    (schedule, rules)
}

/// The tenants of every run.
pub const TENANTS: [&str; 2] = ["acme", "globex"];

/// The deeds of a run: each job is created, then met with others now and then, one after the other.
fn operations(seed: u64, start: Timestamp, active: Duration) -> Vec<Operation> {
    let mut stream = Stream::new(seed, "operations", 0);
    let jobs = usize::try_from(stream.between(3, 25)).expect("few");
    let mut operations = Vec::new();
    for job in 0..jobs {
        let mut stream = Stream::new(seed, "job", job as u64);
        let tenant = definition(&mut stream, job, start).tenant;
        let mut at = stream.duration(Duration::from_millis(10), active / 2);
        let mut names_calendars = false;
        for number in 0..stream.between(1, 8) {
            let deed = deed(&mut stream, job, (tenant, start), number == 0);
            if let Deed::Submit { definition, .. } = &deed {
                let set = calendar::sets(&mut stream.fork("calendars"), start, &definition.exclusions);
                let set = set.into_iter().enumerate();
                operations.extend(set.map(|(place, deed)| {
                    let label = format!("o{job}.{number}.{place}");
                    Operation { label, at, job, deed }
                }));
                names_calendars |= definition.exclusions.contains("calendar ");
            }
            operations.push(Operation { label: format!("o{job}.{number}"), at, job, deed });
            at += stream.duration(Duration::from_millis(1), active / 6);
        }
        operations.extend(lists(seed, job, active));
        if names_calendars {
            operations.extend(calendar::changes(seed, job, start, active));
        }
    }
    operations.retain(|operation| operation.at < active);
    operations.sort_by_key(|operation| operation.at);
    operations
}

/// What clients ask of many jobs at once, now and then.
fn lists(seed: u64, job: usize, active: Duration) -> impl Iterator<Item = Operation> {
    let mut stream = Stream::new(seed, "lists", job as u64);
    let count = stream.pick(&[0, 0, 1, 2]);
    (0..count).map(move |number| {
        // Seldom anything that leaves less to happen.
        let verb = match stream.below(20) {
            0 => Some(JobVerb::Delete),
            1 => Some(JobVerb::Pause),
            2..=4 => Some(JobVerb::Resume),
            5..=8 => Some(JobVerb::Trigger),
            _ => None,
        };
        let deed = Deed::List(stream.pick(&SELECTORS), stream.pick(&[1, 2, 3, 256]), verb);
        let at = stream.duration(active / 20, active);
        Operation { label: format!("l{job}.{number}"), at, job, deed }
    })
}

/// What a request says of the job that it means.
fn stated(stream: &mut Stream) -> Stated {
    match stream.below(10) {
        0 | 1 => Stated::Right,
        2 => Stated::OtherRevision,
        3 => Stated::OtherJob,
        _ => Stated::Nothing,
    }
}

fn deed(stream: &mut Stream, job: usize, (tenant, start): (&'static str, Timestamp), first: bool) -> Deed {
    let stated = stated(&mut stream.fork("stated"));
    let verb = stream.pick(&[JobVerb::Pause, JobVerb::Resume, JobVerb::Trigger, JobVerb::Trigger, JobVerb::Delete]);
    match if first { 0 } else { stream.below(15) } {
        0..=3 => {
            let key = stream.chance(500).then(|| {
                let window = stream.pick(&[2 * SECOND, 10 * SECOND, 60 * SECOND]);
                (window, window * u32::try_from(stream.between(1, 99)).expect("small") / 100)
            });
            Deed::Submit {
                definition: Box::new(Definition { tenant, ..definition(stream, job, start) }),
                mode: stream.pick(&[SubmitMode::Create, SubmitMode::Upsert]),
                stated: if stream.chance(100) { Stated::OtherRevision } else { stated },
                key,
            }
        }
        4..=8 => Deed::Command(verb, stated),
        9 => Deed::Cancel,
        10 => Deed::Get,
        11 => Deed::Redrive,
        12 => Deed::Backfill(stream.duration(SECOND, 600 * SECOND)),
        13 => Deed::Command(JobVerb::ClearBacklog, stated),
        _ => Deed::Watch,
    }
}

fn worker(seed: u64, index: usize) -> WorkerPlan {
    let mut stream = Stream::new(seed, "worker", index as u64);
    // The first worker is always there and decent enough, so that something gets done.
    let decent = index == 0 || stream.chance(500);
    let bad = |stream: &mut Stream, most| if decent { stream.below(20) } else { stream.below(most) };
    WorkerPlan {
        index,
        capacity: u32::try_from(stream.pick(&[1, 2, 8, 64])).expect("few"),
        from: if index == 0 { Duration::ZERO } else { stream.millis(0, 20_000) },
        run_max: stream.pick(&[SECOND / 20, SECOND, 5 * SECOND]),
        fails: bad(&mut stream, 500),
        hangs: bad(&mut stream, 200),
        late: bad(&mut stream, 200),
        doubles: bad(&mut stream, 300),
        forges: if index == 0 { 0 } else { bad(&mut stream, 300) },
        resizes: if stream.chance(300) { 60 } else { 0 },
        silent: !decent && stream.chance(500),
    }
}

fn faults(seed: u64, active: Duration, settings: &Settings, crashes_only: bool) -> Vec<PlannedFault> {
    let mut stream = Stream::new(seed, "faults", 0);
    // Some runs have hardly any, so that what needs peace to go wrong gets it.
    let count = if crashes_only { 40 } else { stream.pick(&[0, 2, 5, 12, 30]) };
    // A disk that lies breaks every promise but one: what is wrong is noticed. Such runs are of their own kind.
    let lies = stream.chance(60);
    let rots = stream.chance(400);
    let mut faults: Vec<_> = (0..count)
        .map(|number| {
            let mut stream = Stream::new(seed, "fault", number);
            let at = Duration::from_micros(stream.below(u64::try_from(active.as_micros()).expect("short")));
            let fault = if crashes_only { crash(&mut stream) } else { fault(&mut stream, settings, lies, rots) };
            PlannedFault { label: format!("f{number}"), at, fault }
        })
        .collect();
    // What a start found at the log's end, and built on, may be gone when the power fails right after it.
    for index in 0..faults.len() {
        let mut stream = Stream::new(seed, "fault again", index as u64);
        if let PlannedFault { at, fault: Fault::Kill { down, shards, .. }, .. } = faults[index]
            && stream.chance(500)
        {
            let fault = Fault::PowerLoss { steps: stream.between(1, 60), down, shards };
            let at = at + down + stream.duration(SECOND / 1_000, SECOND);
            faults.push(PlannedFault { label: format!("f{index}a"), at, fault });
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn crash(stream: &mut Stream) -> Fault {
    let down = stream.duration(SECOND / 100, SECOND);
    let shards = u16::try_from(stream.between(1, 3)).expect("few");
    match stream.below(2) {
        0 => Fault::PowerLoss { steps: stream.between(1, 60), down, shards },
        _ => Fault::Kill { writes: 2 + stream.place(3), down, shards },
    }
}

fn fault(stream: &mut Stream, settings: &Settings, lies: bool, rots: bool) -> Fault {
    let down = stream.duration(SECOND / 100, 20 * SECOND);
    let during = stream.duration(SECOND / 10, 20 * SECOND);
    let shards = u16::try_from(stream.between(1, 3)).expect("few");
    let files = settings.backend == Backend::Files;
    match stream.below(20) {
        0..=2 => Fault::PowerLoss { steps: stream.between(1, 12), down, shards },
        3 | 4 => Fault::Kill { writes: stream.place(5), down, shards },
        5 => Fault::Restart { limit: stream.duration(SECOND / 1_000, 5 * SECOND), shards },
        6 => Fault::Pause(stream.duration(SECOND / 100, 40 * SECOND)),
        7 if files => Fault::DiskErrors { during, writes: 2_000, syncs: 2_000 },
        8 if files => Fault::SlowDisk { during, latency: stream.duration(SECOND / 100, SECOND) },
        9 if files => Fault::FullDisk(during),
        10 | 11 if files && lies => Fault::LyingDisk { during, lost: 5_000, misdirected: 5_000 },
        10 | 11 if files && rots => Fault::Rot(stream.draw()),
        7 | 8 => Fault::Fence,
        9..=11 => Fault::UnknownResults(during),
        12 | 13 => Fault::Cut { actor: stream.place(8), during, one_way: stream.chance(300) },
        14 => Fault::BadNetwork { during, loss: stream.between(100, 500) },
        15 => Fault::ClockJump { ms: stream.pick(&[-100_000, -3_000, -500, 500, 3_000, 100_000, 3_600_000]) },
        16 => Fault::ClockFreeze(during),
        17 => Fault::WorkerDeath { worker: stream.place(8), down },
        _ => Fault::WorkerReconnect { worker: stream.place(8), down },
    }
}

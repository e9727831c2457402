//! Bulk commands against a node that has a fixed list and remembers what it was asked.

use crate::node::{Node, NodeSession, Received, patiently};
use tickwheel_client::{
    Bulk, BulkAction, BulkOutcome, BulkReport, Client, ClientConfig, DeadLetterFilter, ExecutionFilter, ExecutionState,
    JobBuilder, JobFilter, JobState, JobStates, Lane, RefusalCode, RequestError,
};
use tickwheel_wire::{
    FireSequence, JobId, PartitionId, Timestamp, Token,
    frame::{
        request::{
            CancelExecution, Done, ExecutionSelection, ExecutionView, ExpectedJob, JobCommand, JobSelection, JobVerb,
            JobView, LetterSelection, ListDeadLetters, ListExecutions, ListJobs, PageEnd, RedriveExecution,
        },
        session::Refused,
    },
};

/// Jobs of each partition, in pages of two.
const JOBS: u32 = 5;
/// The partition that is elsewhere.
const ELSEWHERE: PartitionId = PartitionId(2);

async fn connect(node: &Node) -> (Client, NodeSession) {
    let (client, session) = tokio::join!(Client::connect(ClientConfig::new(node.peer())), node.welcome());
    (client.unwrap(), session)
}

fn name(job: JobId) -> String {
    format!("job-{}-{}", job.partition().0, job.slot())
}

/// Plays the node: lists the same jobs to everyone and lets `judge` answer commands; what it was asked is in the log.
struct Script<F> {
    session: NodeSession,
    judge: F,
    commands: Vec<(JobVerb, String, ExpectedJob)>,
    lists: Vec<(String, JobStates)>,
}

impl<F: FnMut(&str) -> Option<RefusalCode>> Script<F> {
    fn new(session: NodeSession, judge: F) -> Self {
        Self { session, judge, commands: Vec::new(), lists: Vec::new() }
    }

    /// Drives `bulk` to its end and serves it meanwhile.
    async fn run(&mut self, bulk: &mut Bulk) -> Vec<Result<BulkReport, RequestError>> {
        let mut reports = Vec::new();
        let take = async {
            while let Some(report) = bulk.next().await {
                reports.push(report);
            }
        };
        patiently(async {
            tokio::select! {
                () = take => {}
                () = self.serve() => {}
            }
        })
        .await;
        reports
    }

    async fn serve(&mut self) {
        loop {
            let frame = self.session.receive(Lane::Control).await;
            if frame.is::<ListJobs<'_>>() {
                self.list(&frame).await;
            } else {
                self.command(&frame).await;
            }
        }
    }

    async fn list(&mut self, frame: &Received) {
        let ListJobs { request_id, partition, tenant, cursor, selection, .. } = frame.decode();
        assert_eq!(tenant, "acme");
        let JobSelection { labels, states } = selection;
        self.lists.push((labels.to_owned(), states));
        if partition == ELSEWHERE {
            return self.refuse(request_id, RefusalCode::NotOwner).await;
        }
        let first = u32::try_from(cursor).unwrap();
        for slot in (first..JOBS).take(2) {
            let job = JobId::new(partition, 3, slot);
            let mut spec = Vec::new();
            let builder = JobBuilder::new(name(job)).tenant("acme").handler("h").at(Timestamp::from_secs(9));
            builder.definition().spec().encode(&mut spec);
            let view = JobView {
                request_id,
                job,
                revision: 7,
                paused: slot == 4,
                created_at: Timestamp::EPOCH,
                next_fire: Timestamp::MAX,
                fire_sequence: FireSequence(0),
                last_state: ExecutionState::None,
                last_finished_at: Timestamp::EPOCH,
                spec: &spec,
            };
            self.session.send(Lane::Control, &view).await;
        }
        let cursor = if first + 2 < JOBS { u64::from(first) + 2 } else { PageEnd::LAST };
        self.session.send(Lane::Control, &PageEnd { request_id, cursor }).await;
    }

    async fn command(&mut self, frame: &Received) {
        let JobCommand { request_id, verb, name, expected, .. } = frame.decode();
        self.commands.push((verb, name.to_owned(), expected));
        match (self.judge)(name) {
            Some(code) => self.refuse(request_id, code).await,
            None => {
                let done = Done { request_id, job: expected.job, next_fire: Timestamp::MAX };
                self.session.send(Lane::Control, &done).await;
            }
        }
    }

    async fn refuse(&mut self, request_id: u64, code: RefusalCode) {
        let refused = Refused { request_id, code, detail: 8, field: "", message: "because" };
        self.session.send(Lane::Control, &refused).await;
    }
}

#[tokio::test]
async fn every_picked_job_gets_its_command_and_its_report_and_a_refusal_ends_nothing() {
    let node = Node::new();
    let (client, session) = connect(&node).await;
    let judge = |name: &str| (name == "job-1-2").then_some(RefusalCode::RevisionConflict);
    let mut script = Script::new(session, judge);
    let states = JobStates::NONE.with(JobState::Active);
    let filter = JobFilter { labels: "team=ops".to_owned(), states, ..JobFilter::default() };
    let mut bulk = client.bulk(BulkAction::Pause(filter)).unwrap().concurrency(3);
    let reports = script.run(&mut bulk).await;
    let (gaps, reports): (Vec<_>, Vec<_>) = reports.into_iter().partition(Result::is_err);
    let codes: Vec<_> = gaps.iter().map(|gap| gap.as_ref().unwrap_err().refusal_code()).collect();
    assert_eq!(codes, [Some(RefusalCode::NotOwner)]);
    let mut expected_names: Vec<_> = [0, 1, 3]
        .iter()
        .flat_map(|partition| (0..JOBS).map(|slot| name(JobId::new(PartitionId(*partition), 3, slot))))
        .collect();
    let mut names = Vec::new();
    for report in reports.into_iter().map(Result::unwrap) {
        assert_eq!((report.tenant.as_str(), report.revision, report.execution), ("acme", Some(7), None));
        match report.outcome {
            BulkOutcome::Failed(error) => {
                assert_eq!((&*report.job_name, error.refusal_code()), ("job-1-2", Some(RefusalCode::RevisionConflict)));
            }
            BulkOutcome::Unchanged => assert_eq!(report.job.slot(), 4, "it is paused already"),
            BulkOutcome::Done(done) => assert_eq!(done.job, report.job),
            other => panic!("{other:?}"),
        }
        names.push(report.job_name);
    }
    names.sort();
    expected_names.sort();
    assert_eq!(names, expected_names);
    let progress = bulk.progress();
    assert_eq!((progress.done, progress.unchanged, progress.failed, progress.gaps), (11, 3, 1, 1));
    assert!(!progress.is_whole && progress.in_flight == 0);
    assert!(script.lists.iter().all(|list| *list == ("team=ops".to_owned(), states)));
    assert_eq!(script.commands.len(), 12);
    for (verb, name_asked, expected) in &script.commands {
        assert_eq!((*verb, name(expected.job), expected.revision), (JobVerb::Pause, name_asked.clone(), 7));
    }
}

#[tokio::test]
async fn a_dry_run_reports_the_same_jobs_and_commands_nothing() {
    let node = Node::new();
    let (client, session) = connect(&node).await;
    let mut script = Script::new(session, |_| None);
    let mut bulk = client.bulk(BulkAction::Delete(JobFilter::default())).unwrap().dry_run(true);
    let reports = script.run(&mut bulk).await;
    let planned = reports.iter().flatten().filter(|report| report.outcome == BulkOutcome::Planned).count();
    assert_eq!((planned, reports.len()), (15, 16));
    assert_eq!((bulk.progress().done, script.commands.len()), (15, 0));
}

#[tokio::test]
async fn no_more_commands_are_under_way_than_may_be() {
    let node = Node::new();
    let (client, mut session) = connect(&node).await;
    let mut bulk = client.bulk(BulkAction::Trigger(JobFilter::default())).unwrap().concurrency(2);
    let stopper = bulk.stopper();
    let serve = async {
        // Every page is there before the first command is answered.
        for _ in 0..4 {
            let frame = session.receive_type::<ListJobs<'_>>(Lane::Control).await;
            let mut script = Script::new(session, |_| None);
            script.list(&frame).await;
            session = script.session;
        }
        let first = session.receive_type::<JobCommand<'_>>(Lane::Control).await;
        let second = session.receive_type::<JobCommand<'_>>(Lane::Control).await;
        let asked = [&first, &second].map(|frame| frame.decode::<JobCommand<'_>>().name.to_owned());
        assert_eq!(asked, ["job-0-0", "job-0-1"]);
        stopper.stop();
        for frame in [first, second] {
            let request_id = frame.decode::<JobCommand<'_>>().request_id;
            let done = Done { request_id, job: JobId::default(), next_fire: Timestamp::MAX };
            session.send(Lane::Control, &done).await;
        }
        session
    };
    let take = async {
        let mut most = 0;
        let mut reports = Vec::new();
        while let Some(report) = bulk.next().await {
            most = most.max(bulk.progress().in_flight);
            reports.push(report.unwrap());
        }
        (most, reports)
    };
    let ((most, reports), _session) = patiently(async { tokio::join!(take, serve) }).await;
    assert!(most <= 1, "besides the one that is reported");
    assert_eq!(reports.len(), 2, "after the stop those under way are reported, and no more are begun");
    assert!(reports.iter().all(|report| matches!(report.outcome, BulkOutcome::Done(_))));
    assert!(!bulk.progress().is_whole);
}

#[tokio::test]
async fn a_filter_that_the_node_refuses_is_told_once() {
    let node = Node::new();
    let (client, mut session) = connect(&node).await;
    let mut bulk = client.bulk(BulkAction::Delete(JobFilter::default())).unwrap();
    let serve = async {
        for _ in 0..4 {
            let frame = session.receive_type::<ListJobs<'_>>(Lane::Control).await;
            let request_id = frame.decode::<ListJobs<'_>>().request_id;
            let code = RefusalCode::Forbidden;
            let refused = Refused { request_id, code, detail: 0, field: "tenant", message: "not yours" };
            session.send(Lane::Control, &refused).await;
        }
        session
    };
    let (first, _session) = patiently(async { tokio::join!(bulk.next(), serve) }).await;
    assert_eq!(first.unwrap().unwrap_err().refusal_code(), Some(RefusalCode::Forbidden));
    assert_eq!(patiently(bulk.next()).await, None);
    assert_eq!((bulk.progress().gaps, bulk.progress().is_whole), (1, false));
}

#[tokio::test]
async fn executions_in_flight_are_cancelled_by_their_ids_and_ended_ones_are_no_failure() {
    let node = Node::new();
    let (client, mut session) = connect(&node).await;
    let labels = "team=ops".to_owned();
    let filter = ExecutionFilter { prefix: "nightly-".to_owned(), labels, ..ExecutionFilter::default() };
    let mut bulk = client.bulk(BulkAction::Cancel(filter)).unwrap();
    let serve = async {
        for partition in 0..4 {
            let frame = session.receive_type::<ListExecutions<'_>>(Lane::Control).await;
            let ListExecutions { request_id, selection, tenant, .. } = frame.decode();
            let expected = ExecutionSelection { prefix: "nightly-", labels: "team=ops", in_flight: true };
            assert_eq!((selection, tenant), (expected, "acme"));
            for sequence in (1..4).filter(|_| partition == 0) {
                session.send(Lane::Control, &execution(request_id, sequence)).await;
            }
            session.send(Lane::Control, &PageEnd { request_id, cursor: PageEnd::LAST }).await;
        }
        let mut asked = Vec::new();
        for _ in 0..2 {
            let frame = session.receive_type::<CancelExecution>(Lane::Control).await;
            let CancelExecution { request_id, job, fire_sequence, .. } = frame.decode();
            asked.push((job, fire_sequence.0));
            if fire_sequence.0 == 1 {
                let done = Done { request_id, job, next_fire: Timestamp::MAX };
                session.send(Lane::Control, &done).await;
            } else {
                let code = RefusalCode::UnknownExecution;
                let refused = Refused { request_id, code, detail: 0, field: "", message: "it has ended" };
                session.send(Lane::Control, &refused).await;
            }
        }
        asked
    };
    let take = async {
        let mut outcomes = Vec::new();
        while let Some(report) = bulk.next().await {
            outcomes.push(report.unwrap().outcome);
        }
        outcomes
    };
    let (outcomes, asked) = patiently(async { tokio::join!(take, serve) }).await;
    assert_eq!(asked, [(JobId::default(), 1), (JobId::default(), 2)]);
    assert!(matches!(outcomes[..], [BulkOutcome::Done(_), BulkOutcome::Unchanged, BulkOutcome::Unchanged]));
    assert!(bulk.progress().is_whole);
}

#[tokio::test]
async fn dead_letters_are_redriven_from_the_oldest_on_and_commands_keep_that_order() {
    let node = Node::new();
    let (client, mut session) = connect(&node).await;
    let filter = DeadLetterFilter {
        labels: "team=ops".to_owned(),
        states: JobStates::NONE.with(JobState::Active),
        since: Some(Timestamp::from_secs(5)),
        error: "Gone".to_owned(),
        ..DeadLetterFilter::default()
    };
    let mut bulk = client.bulk(BulkAction::Redrive(filter)).unwrap();
    let serve = async {
        for _ in 0..4 {
            let frame = session.receive_type::<ListDeadLetters<'_>>(Lane::Control).await;
            let ListDeadLetters { request_id, partition, tenant, selection, .. } = frame.decode();
            let expected = LetterSelection {
                labels: "team=ops",
                states: JobStates::NONE.with(JobState::Active),
                since: Timestamp::from_secs(5),
                error: "Gone",
                oldest_first: true,
                ..LetterSelection::default()
            };
            assert_eq!((selection, tenant), (expected, "acme"));
            for sequence in (1..5).filter(|_| partition == PartitionId(0)) {
                session.send(Lane::Control, &execution(request_id, sequence)).await;
            }
            session.send(Lane::Control, &PageEnd { request_id, cursor: PageEnd::LAST }).await;
        }
        let mut asked = Vec::new();
        for refusal in [None, Some(RefusalCode::UnknownExecution), Some(RefusalCode::Overloaded), None] {
            let frame = session.receive_type::<RedriveExecution>(Lane::Control).await;
            let RedriveExecution { request_id, job, fire_sequence, .. } = frame.decode();
            asked.push(fire_sequence.0);
            match refusal {
                None => session.send(Lane::Control, &Done { request_id, job, next_fire: Timestamp::MAX }).await,
                Some(code) => {
                    let refused = Refused { request_id, code, detail: 0, field: "", message: "no" };
                    session.send(Lane::Control, &refused).await;
                }
            }
        }
        asked
    };
    let take = async {
        let mut reports = Vec::new();
        while let Some(report) = bulk.next().await {
            reports.push(report.unwrap());
        }
        reports
    };
    let (reports, asked) = patiently(async { tokio::join!(take, serve) }).await;
    assert_eq!(asked, [1, 2, 3, 4]);
    assert!(reports.iter().all(|report| report.scheduled_at.is_some() && report.execution.is_some()));
    let outcomes: Vec<_> = reports.into_iter().map(|report| report.outcome).collect();
    assert!(matches!(
        &outcomes[..],
        [BulkOutcome::Done(_), BulkOutcome::Unchanged, BulkOutcome::Failed(error), BulkOutcome::Done(_)]
            if error.refusal_code() == Some(RefusalCode::Overloaded)
    ));
}

/// The third is being cancelled.
fn execution(request_id: u64, sequence: u64) -> ExecutionView<'static> {
    ExecutionView {
        request_id,
        job: JobId::default(),
        fire_sequence: FireSequence(sequence),
        token: Token(sequence),
        attempt: 1,
        state: ExecutionState::Running,
        cancel_requested: sequence == 3,
        progress_permille: 0,
        scheduled_at: Timestamp::EPOCH,
        dispatched_at: Timestamp::EPOCH,
        finished_at: Timestamp::EPOCH,
        run_us: 0,
        tenant: "acme",
        name: "nightly-1",
        worker: "w",
        error: "",
        output: b"",
    }
}

#[tokio::test]
async fn what_no_filter_can_mean_is_refused_before_anything_is_asked() {
    let node = Node::new();
    let (client, _session) = connect(&node).await;
    let labels = |labels: &str| JobFilter { labels: labels.to_owned(), ..JobFilter::default() };
    for wrong in ["a b", "=x", "a,,b", &"k".repeat(64), &vec!["a"; 33].join(",")] {
        let error = client.bulk(BulkAction::Delete(labels(wrong))).unwrap_err();
        assert!(matches!(error, RequestError::Filter { field: "labels", .. }), "{error}");
    }
    let prefix = "x".repeat(256);
    let error = client.bulk(BulkAction::Pause(JobFilter { prefix, ..JobFilter::default() })).unwrap_err();
    assert!(matches!(error, RequestError::TooLong { field: "prefix", .. }), "{error}");
    let filter = ExecutionFilter { labels: "a".to_owned(), ..ExecutionFilter::default() };
    let error = client.watch(filter).await.unwrap_err();
    assert!(matches!(error, RequestError::Filter { field: "labels", .. }), "a watch knows no labels: {error}");
}

//! The client against a node that answers when and as the test says.

use crate::node::{Node, NodeSession, PAYLOAD_BYTES_MAX, patiently};
use std::time::Duration;
use tickwheel_client::{
    Client, ClientConfig, ExecutionFilter, ExecutionState, JobBuilder, JobFilter, Lane, RefusalCode, RequestError,
    SubmitMode, Transition,
};
use tickwheel_wire::{
    FireSequence, JobId, PartitionId, Timestamp, Token,
    frame::{
        request::{
            Done, ExecutionView, JobByName, JobCommand, JobVerb, JobView, ListExecutions, ListJobs, PageEnd, Remark,
            SubmitJob, Submitted, Unwatch, Watch,
        },
        request_head,
        session::{GoAway, Refused},
    },
    job::JobSpec,
};

async fn connect(node: &Node) -> (Client, NodeSession) {
    let (client, session) = tokio::join!(Client::connect(ClientConfig::new(node.peer())), node.welcome());
    (client.unwrap(), session)
}

fn job(name: &str) -> JobBuilder {
    JobBuilder::new(name).handler("h").after(Duration::ZERO)
}

fn submitted(request_id: u64, slot: u32) -> Submitted {
    let job = JobId::new(PartitionId(0), 0, slot);
    Submitted { request_id, job, revision: 1, next_fire: Timestamp::MAX, created: true }
}

fn done(request_id: u64) -> Done {
    Done { request_id, job: JobId::default(), next_fire: Timestamp::from_secs(4) }
}

fn execution(request_id: u64, fire_sequence: u64) -> ExecutionView<'static> {
    ExecutionView {
        request_id,
        job: JobId::default(),
        fire_sequence: FireSequence(fire_sequence),
        token: Token(fire_sequence),
        attempt: 1,
        state: ExecutionState::Running,
        cancel_requested: false,
        progress_permille: 0,
        scheduled_at: Timestamp::EPOCH,
        dispatched_at: Timestamp::EPOCH,
        finished_at: Timestamp::EPOCH,
        run_us: 0,
        tenant: "acme",
        name: "j",
        worker: "w",
        error: "",
        output: b"",
    }
}

#[tokio::test]
async fn pipelined_submissions_are_matched_with_answers_in_any_order() {
    let node = Node::new();
    let (client, mut session) = connect(&node).await;
    let jobs: Vec<_> = (0..3).map(|index| job(&format!("job-{index}"))).collect();
    let serve = async {
        let mut requests = Vec::new();
        for index in 0..3 {
            let frame = session.receive(Lane::Control).await;
            let submit: SubmitJob<'_> = frame.decode();
            let spec = JobSpec::decode(submit.spec).unwrap();
            assert_eq!((spec.tenant, spec.name), ("acme", &*format!("job-{index}")));
            assert_eq!(submit.partition, client.topology().partition_of("acme", spec.name));
            requests.push(submit.request_id);
        }
        session.send(Lane::Control, &submitted(requests[2], 2)).await;
        let code = RefusalCode::AlreadyExists;
        let request_id = requests[1];
        session.send(Lane::Control, &Refused { request_id, code, detail: 0, field: "name", message: "taken" }).await;
        session.send(Lane::Control, &submitted(requests[0], 0)).await;
    };
    let (results, ()) = patiently(async { tokio::join!(client.submit_many(&jobs, SubmitMode::Create), serve) }).await;
    assert_eq!(results[0].as_ref().unwrap().job.slot(), 0);
    assert_eq!(results[1].as_ref().unwrap_err().refusal_code(), Some(RefusalCode::AlreadyExists));
    assert_eq!(results[2].as_ref().unwrap().job.slot(), 2);
}

#[tokio::test]
async fn bad_submissions_are_refused_before_they_are_sent() {
    let node = Node::new();
    let (client, _session) = connect(&node).await;
    let no_schedule = JobBuilder::new("j").handler("h");
    let long_payload = job("j").payload(vec![0; PAYLOAD_BYTES_MAX as usize + 1]);
    let long_key = job("j").idempotency_key([0; 65]);
    for (bad, named) in [(no_schedule, "schedule"), (long_payload, "payload"), (long_key, "idempotency_key")] {
        let error = client.submit(&bad, SubmitMode::Create).await.unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
    let long_name = "x".repeat(70_000);
    assert!(matches!(client.get(&long_name).await, Err(RequestError::TooLong { field: "name", .. })));
}

#[tokio::test]
async fn a_lost_session_repeats_what_is_safe_and_fails_what_is_not() {
    let node = Node::new();
    let (client, mut first) = connect(&node).await;
    let requests = async {
        let builder = job("j");
        tokio::join!(client.submit(&builder, SubmitMode::Create), client.get("j"), client.trigger("j"))
    };
    let serve = async {
        let frame = first.receive(Lane::Control).await;
        let key = frame.decode::<SubmitJob<'_>>().idempotency_key.to_vec();
        assert!(!key.is_empty());
        first.receive_type::<JobByName<'_>>(Lane::Control).await;
        let trigger = first.receive_type::<JobCommand<'_>>(Lane::Control).await;
        assert_eq!(trigger.decode::<JobCommand<'_>>().verb, JobVerb::Trigger);
        first.lose();

        let mut second = node.welcome().await;
        let again = second.receive(Lane::Control).await;
        let submit: SubmitJob<'_> = again.decode();
        assert_eq!((submit.idempotency_key, &again.body), (&*key, &frame.body));
        let get = second.receive(Lane::Control).await;
        let get_id = get.decode::<JobByName<'_>>().request_id;
        let code = RefusalCode::UnknownJob;
        second
            .send(Lane::Control, &Refused { request_id: get_id, code, detail: 0, field: "", message: "no such job" })
            .await;
        second.send(Lane::Control, &submitted(submit.request_id, 5)).await;
        second
    };
    let ((submit, get, trigger), _second) = patiently(async { tokio::join!(requests, serve) }).await;
    assert_eq!(submit.unwrap().job.slot(), 5);
    assert_eq!(get.unwrap_err().refusal_code(), Some(RefusalCode::UnknownJob));
    assert_eq!(trigger, Err(RequestError::Disconnected));
}

#[tokio::test]
async fn a_node_that_goes_away_answers_first_and_gets_later_requests_on_the_next_session() {
    let node = Node::new();
    let (client, mut first) = connect(&node).await;
    let requests = async {
        let paused = client.pause("a").await;
        (paused, client.resume("a").await)
    };
    let serve = async {
        let pause = first.receive(Lane::Control).await;
        first.send(Lane::Control, &GoAway { retry_ms: 50, message: "draining" }).await;
        first.send(Lane::Control, &done(pause.decode::<JobCommand<'_>>().request_id)).await;
        assert_eq!(first.closed().await, 0);
        let mut second = node.welcome().await;
        let resume = second.receive(Lane::Control).await;
        let resume: JobCommand<'_> = resume.decode();
        assert_eq!(resume.verb, JobVerb::Resume);
        second.send(Lane::Control, &done(resume.request_id)).await;
        second
    };
    let ((paused, resumed), _second) = patiently(async { tokio::join!(requests, serve) }).await;
    assert!(paused.is_ok() && resumed.is_ok());
}

#[tokio::test]
async fn an_unanswered_request_times_out_and_its_late_answer_is_ignored() {
    let node = Node::new();
    let mut config = ClientConfig::new(node.peer());
    config.request_timeout = Duration::from_millis(50);
    let (client, mut session) = tokio::join!(Client::connect(config), node.welcome());
    let client = client.unwrap();
    assert_eq!(client.pause("j").await, Err(RequestError::Timeout { waited_ms: 50 }));
    let late = session.receive(Lane::Control).await;
    session.send(Lane::Control, &done(request_head(&late.body).unwrap().0)).await;
    let serve = async {
        let next = session.receive(Lane::Control).await;
        session.send(Lane::Control, &done(next.decode::<JobCommand<'_>>().request_id)).await;
    };
    let (answer, ()) = tokio::join!(client.resume("j"), serve);
    assert!(answer.is_ok());
}

#[tokio::test]
async fn a_list_goes_through_every_page_of_every_partition_in_order() {
    let node = Node::new();
    let (client, mut session) = connect(&node).await;
    let list = client.list(JobFilter { prefix: "n".to_owned(), ..JobFilter::default() }).unwrap();
    let serve = async {
        // Partition 1 has two pages, the others one, 3 is empty; the first pages are answered from the last to the first.
        let mut first_pages = Vec::new();
        for _ in 0..4 {
            first_pages.push(session.receive(Lane::Control).await);
        }
        for frame in first_pages.iter().rev() {
            let request: ListJobs<'_> = frame.decode();
            assert_eq!((request.prefix, request.cursor), ("n", 0));
            let partition = request.partition;
            if partition != PartitionId(3) {
                view(&mut session, request.request_id, partition, 0).await;
            }
            let cursor = if partition == PartitionId(1) { 77 } else { PageEnd::LAST };
            session.send(Lane::Control, &PageEnd { request_id: request.request_id, cursor }).await;
        }
        let frame = session.receive(Lane::Control).await;
        let request: ListJobs<'_> = frame.decode();
        assert_eq!((request.partition, request.cursor), (PartitionId(1), 77));
        view(&mut session, request.request_id, PartitionId(1), 1).await;
        session.send(Lane::Control, &PageEnd { request_id: request.request_id, cursor: PageEnd::LAST }).await;
    };
    let (jobs, ()) = patiently(async { tokio::join!(list.collect(), serve) }).await;
    let ids: Vec<_> = jobs.unwrap().iter().map(|job| (job.id.partition().0, job.id.slot())).collect();
    assert_eq!(ids, [(0, 0), (1, 0), (1, 1), (2, 0)]);
}

#[tokio::test]
async fn a_page_that_is_cut_off_begins_again_on_the_next_session() {
    let node = Node::new();
    let (client, mut first) = connect(&node).await;
    let list = client.list(JobFilter::default()).unwrap();
    let serve = async {
        let mut requests = Vec::new();
        for _ in 0..4 {
            requests.push(first.receive_type::<ListJobs<'_>>(Lane::Control).await);
        }
        let request: ListJobs<'_> = requests[0].decode();
        view(&mut first, request.request_id, request.partition, 0).await;
        // When this is answered the row has been read.
        let answer = async {
            let request_id = first.receive(Lane::Control).await.decode::<JobByName<'_>>().request_id;
            let code = RefusalCode::UnknownJob;
            first
                .send(Lane::Control, &Refused { request_id, code, detail: 0, field: "", message: "no such job" })
                .await;
        };
        let (got, ()) = tokio::join!(client.get("j"), answer);
        assert_eq!(got.unwrap_err().refusal_code(), Some(RefusalCode::UnknownJob));
        first.lose();

        let mut second = node.welcome().await;
        for _ in 0..4 {
            let frame = second.receive_type::<ListJobs<'_>>(Lane::Control).await;
            let request: ListJobs<'_> = frame.decode();
            view(&mut second, request.request_id, request.partition, 0).await;
            second.send(Lane::Control, &PageEnd { request_id: request.request_id, cursor: PageEnd::LAST }).await;
        }
        second
    };
    let (jobs, _second) = patiently(async { tokio::join!(list.collect(), serve) }).await;
    let ids: Vec<_> = jobs.unwrap().iter().map(|job| job.id.partition().0).collect();
    assert_eq!(ids, [0, 1, 2, 3]);
}

async fn view(session: &mut NodeSession, request_id: u64, partition: PartitionId, slot: u32) {
    let mut spec = Vec::new();
    let builder = job("n").tenant("acme");
    builder.definition().spec().encode(&mut spec);
    let view = JobView {
        request_id,
        job: JobId::new(partition, 0, slot),
        revision: 1,
        paused: false,
        created_at: Timestamp::EPOCH,
        next_fire: Timestamp::MAX,
        fire_sequence: FireSequence(0),
        last_state: ExecutionState::None,
        last_finished_at: Timestamp::EPOCH,
        spec: &spec,
    };
    session.send(Lane::Control, &view).await;
}

#[tokio::test]
async fn each_request_goes_to_the_shard_that_owns_its_partition() {
    let shards = Node::shards(2);
    let ports = [shards[0].address().port(), shards[1].address().port()];
    let partitions = [0, 1, 0, 1];
    let (client, mut first) = tokio::join!(
        Client::connect(ClientConfig::new(shards[0].peer())),
        shards[0].welcome_to(0, &ports, &partitions)
    );
    let client = client.unwrap();
    let name_in = |shard: u16| {
        let owned = |name: &String| partitions[usize::from(client.topology().partition_of("acme", name).0)] == shard;
        (0..).map(|index| format!("job-{index}")).find(owned).unwrap()
    };
    let (name_0, name_1) = (name_in(0), name_in(1));
    let serve = async {
        let frame = first.receive(Lane::Control).await;
        assert_eq!(frame.decode::<JobCommand<'_>>().name, name_0);
        first.send(Lane::Control, &done(frame.decode::<JobCommand<'_>>().request_id)).await;
        let mut second = shards[1].welcome_to(1, &ports, &partitions).await;
        let frame = second.receive(Lane::Control).await;
        assert_eq!(frame.decode::<JobCommand<'_>>().name, name_1);
        second.send(Lane::Control, &done(frame.decode::<JobCommand<'_>>().request_id)).await;
        second
    };
    let ask = async { (client.pause(&name_0).await, client.pause(&name_1).await) };
    let ((zero, one), _second) = patiently(async { tokio::join!(ask, serve) }).await;
    assert!(zero.is_ok() && one.is_ok());
}

#[tokio::test]
async fn a_node_that_comes_back_with_other_shards_is_found_through_its_address() {
    let shards = Node::shards(2);
    let both = [shards[0].address().port(), shards[1].address().port()];
    let (client, first) =
        tokio::join!(Client::connect(ClientConfig::new(shards[1].peer())), shards[1].welcome_to(0, &both, &[1; 4]));
    let client = client.unwrap();
    drop(first);
    let serve = async {
        // Shard 1 is now at the other port, and shard 0 is gone.
        let mut link = shards[1].welcome_to(1, &both, &[1; 4]).await;
        link.receive(Lane::Control).await;
        link.lose();
        let moved = [both[1]];
        // Refused once where it was, the client asks the configured address and stays where it is let in.
        shards[1].accept().await.close(1, "restarting");
        let mut again = shards[1].welcome_to(0, &moved, &[0; 4]).await;
        let frame = again.receive(Lane::Control).await;
        again.send(Lane::Control, &done(frame.decode::<JobCommand<'_>>().request_id)).await;
        again
    };
    let (answer, _again) = patiently(async { tokio::join!(client.pause("j"), serve) }).await;
    assert!(answer.is_ok());
    assert_eq!(client.topology().shard_count(), 1);
}

#[tokio::test]
async fn a_watch_survives_a_reconnect_and_ends_when_it_is_dropped() {
    let node = Node::new();
    let (client, mut first) = connect(&node).await;
    let filter = ExecutionFilter { job: "j".to_owned(), ..ExecutionFilter::default() };
    let serve = async {
        let frame = first.receive(Lane::Control).await;
        let watch: Watch<'_> = frame.decode();
        assert_eq!((watch.tenant, watch.name), ("acme", "j"));
        first.send(Lane::Control, &done(watch.request_id)).await;
        first.send(Lane::Control, &execution(watch.request_id, 1)).await;
        watch.request_id
    };
    let (watch, id) = patiently(async { tokio::join!(client.watch(filter), serve) }).await;
    let mut watch = watch.unwrap();
    let Some(Ok(Transition::Execution(seen))) = patiently(watch.next()).await else { panic!("no transition") };
    assert_eq!((seen.id.fire_sequence, seen.finished_at), (FireSequence(1), None));

    first.lose();
    let mut second = node.welcome().await;
    let again = second.receive(Lane::Control).await;
    assert_eq!(again.decode::<Watch<'_>>().request_id, id);
    second.send(Lane::Control, &done(id)).await;
    second.send(Lane::Control, &execution(id, 2)).await;
    assert_eq!(patiently(watch.next()).await, Some(Ok(Transition::Resumed)));
    assert!(matches!(patiently(watch.next()).await, Some(Ok(Transition::Execution(seen))) if seen.token == Token(2)));

    drop(watch);
    let frame = second.receive(Lane::Control).await;
    assert_eq!(frame.decode::<Unwatch>().watch, id);
}

#[tokio::test]
async fn what_a_node_remarks_belongs_to_the_view_behind_it() {
    let node = Node::new();
    let (client, mut session) = connect(&node).await;
    let filter = || ExecutionFilter { job: "j".to_owned(), ..ExecutionFilter::default() };
    let said = |request_id, status| Remark { request_id, paused_after_failures: 0, status };
    let serve = async {
        let frame = session.receive(Lane::Control).await;
        let request_id = frame.decode::<ListExecutions<'_>>().request_id;
        for sequence in 1..=3 {
            if sequence == 2 {
                // What came for another request does not matter.
                session.send(Lane::Control, &said(request_id + 1, "of nobody")).await;
                session.send(Lane::Control, &said(request_id, "copied 3 of 9 files")).await;
            }
            session.send(Lane::Control, &execution(request_id, sequence)).await;
        }
        session.send(Lane::Control, &PageEnd { request_id, cursor: PageEnd::LAST }).await;
        let frame = session.receive(Lane::Control).await;
        let request_id = frame.decode::<Watch<'_>>().request_id;
        session.send(Lane::Control, &done(request_id)).await;
        session.send(Lane::Control, &Remark { request_id, paused_after_failures: 3, status: "" }).await;
        session.send(Lane::Control, &execution(request_id, 4)).await;
        session.send(Lane::Control, &execution(request_id, 5)).await;
    };
    let ask = async {
        let listed = client.executions(filter()).unwrap().collect().await.unwrap();
        (listed, client.watch(filter()).await.unwrap())
    };
    let ((listed, mut watch), ()) = patiently(async { tokio::join!(ask, serve) }).await;
    let statuses: Vec<_> = listed.iter().map(|execution| &*execution.status).collect();
    assert_eq!(statuses, ["", "copied 3 of 9 files", ""]);
    for paused in [Some(3), None] {
        let Some(Ok(Transition::Execution(seen))) = patiently(watch.next()).await else { panic!("no transition") };
        assert_eq!(seen.paused_job_after_failures, paused);
    }
}

#[tokio::test]
async fn a_watch_that_is_read_too_slowly_ends_with_an_error_and_the_session_goes_on() {
    let node = Node::new();
    let (client, mut session) = connect(&node).await;
    let filter = ExecutionFilter { job: "j".to_owned(), ..ExecutionFilter::default() };
    let serve = async {
        let frame = session.receive(Lane::Control).await;
        let id = frame.decode::<Watch<'_>>().request_id;
        session.send(Lane::Control, &done(id)).await;
        for sequence in 0..10_000 {
            session.send(Lane::Control, &execution(id, sequence)).await;
        }
        let frame = session.receive(Lane::Control).await;
        assert_eq!(frame.decode::<Unwatch>().watch, id);
    };
    let (watch, ()) = patiently(async { tokio::join!(client.watch(filter), serve) }).await;
    let (mut watch, mut seen) = (watch.unwrap(), 0);
    let end = loop {
        match patiently(watch.next()).await {
            Some(Ok(_)) => seen += 1,
            Some(Err(error)) => break error,
            None => panic!("the watch ended without a reason"),
        }
    };
    assert_eq!(end.refusal_code(), Some(RefusalCode::WatchOverrun));
    assert!((1..10_000).contains(&seen));
    assert_eq!(patiently(watch.next()).await, None);
    let answer = async {
        let frame = session.receive(Lane::Control).await;
        session.send(Lane::Control, &done(frame.decode::<JobCommand<'_>>().request_id)).await;
    };
    assert!(patiently(async { tokio::join!(client.pause("j"), answer) }).await.0.is_ok());
}

#[tokio::test]
async fn closing_tells_the_node_and_fails_what_is_in_flight() {
    let node = Node::new();
    let (client, mut session) = connect(&node).await;
    let clone = client.clone();
    let waiting = tokio::spawn(async move { clone.pause("j").await });
    session.receive(Lane::Control).await;
    client.close().await;
    assert_eq!(session.closed().await, 0);
    assert_eq!(waiting.await.unwrap(), Err(RequestError::Closed));
}

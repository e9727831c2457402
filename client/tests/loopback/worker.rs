//! The worker against a node that dispatches, acknowledges and forgets as the test says.

use crate::node::{Node, NodeSession, Received, patiently};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tickwheel_client::{
    Attempt, Failure, Lane, Output, Priority, Shards, StopReason, Worker, WorkerBuilder, WorkerError, WorkerHandle,
};
use tickwheel_wire::{
    FireSequence, InstanceId, JobId, PartitionId, Timestamp, Token,
    frame::{
        session::{GoAway, RefusalCode, Refused},
        work::{
            Attach, Attached, CancelAttempt, CancelReason, Capacity, Complete, Completed, Dispatch, DispatchHead,
            Heartbeat, Outcome, Reattach, Reattached, ReportStatus, Verdict,
        },
    },
};
use tokio::sync::{Semaphore, mpsc};

/// Handlers that tell when they start and end when they are let go.
struct Gate {
    started: mpsc::UnboundedReceiver<Attempt>,
    go: Arc<Semaphore>,
}

impl Gate {
    async fn next(&mut self) -> Attempt {
        patiently(self.started.recv()).await.unwrap()
    }

    fn let_go(&self, count: usize) {
        self.go.add_permits(count);
    }
}

fn gated(builder: WorkerBuilder) -> (WorkerBuilder, Gate) {
    let (sender, started) = mpsc::unbounded_channel();
    let go = Arc::new(Semaphore::new(0));
    let gate = Gate { started, go: Arc::clone(&go) };
    let builder = builder.handler("gated", move |attempt: Attempt| {
        let (sender, go) = (sender.clone(), Arc::clone(&go));
        async move {
            sender.send(attempt.clone()).unwrap();
            tokio::select! {
                permit = go.acquire() => permit.unwrap().forget(),
                reason = attempt.cancelled() => return Err(Failure::permanent("stopped", format!("{reason:?}"))),
            }
            Ok(Output::from(format!("ran {}", attempt.job_name())))
        }
    });
    (builder, gate)
}

fn job(slot: u32) -> JobId {
    JobId::new(PartitionId(0), 0, slot)
}

async fn dispatch(session: &mut NodeSession, slot: u32, handler: &str, change: impl FnOnce(&mut DispatchHead)) {
    let name = format!("job-{slot}");
    let mut head = DispatchHead {
        job: job(slot),
        fire_sequence: FireSequence(3),
        token: Token(7),
        scheduled_at: Timestamp::from_secs(1),
        start_to_close_ms: 0,
        heartbeat_ms: 0,
        attempt: 1,
        priority: Priority::P1,
        tenant_bytes: 4,
        name_bytes: u8::try_from(name.len()).unwrap(),
        handler_bytes: u8::try_from(handler.len()).unwrap(),
    };
    change(&mut head);
    let lane = Lane::of(head.priority);
    session.send(lane, &Dispatch { head, tenant: "acme", name: &name, handler, payload: b"p" }).await;
}

async fn acknowledge(session: &mut NodeSession, lane: Lane, slot: u32, verdict: Verdict) {
    session.send(lane, &Completed { job: job(slot), fire_sequence: FireSequence(3), token: Token(7), verdict }).await;
}

/// Takes the worker in on a new session; tells its instance and capacity.
async fn attach(node: &Node) -> (NodeSession, InstanceId, u32) {
    let mut session = node.welcome().await;
    let (instance, capacity) = take_in(&mut session).await;
    (session, instance, capacity)
}

async fn take_in(session: &mut NodeSession) -> (InstanceId, u32) {
    let frame = session.receive(Lane::Control).await;
    let attach: Attach<'_> = frame.decode();
    session.send(Lane::Control, &Attached { request_id: attach.request_id, reattach_ms: 5000 }).await;
    (attach.instance, attach.capacity)
}

fn outcome_of(frame: &Received) -> (u32, Outcome, String) {
    let complete: Complete<'_> = frame.decode();
    let output = String::from_utf8(complete.output.to_vec()).unwrap();
    (complete.head.job.slot(), complete.head.outcome, output)
}

async fn end(handle: WorkerHandle, session: &mut NodeSession) {
    let (result, ()) = patiently(async {
        tokio::join!(handle.drain(), async {
            let frame = session.receive_type::<Capacity>(Lane::Control).await;
            assert_eq!(frame.decode::<Capacity>().capacity, 0);
        })
    })
    .await;
    result.unwrap();
    assert_eq!(session.closed().await, 0);
}

#[tokio::test]
async fn prefetched_attempts_start_by_priority_and_answer_on_their_lanes() {
    let node = Node::new();
    let (builder, mut gate) = gated(Worker::builder(node.peer()).concurrency(1).prefetch(3).pool("a").pool("b"));
    let handle = builder.build().unwrap().start();
    let mut session = node.welcome().await;
    let frame = session.receive(Lane::Control).await;
    let attach: Attach<'_> = frame.decode();
    assert_eq!((attach.instance, attach.capacity, attach.pools), (handle.instance(), 4, "a,b"));
    session.send(Lane::Control, &Attached { request_id: attach.request_id, reattach_ms: 5000 }).await;

    dispatch(&mut session, 1, "gated", |_| {}).await;
    assert_eq!(gate.next().await.job_name(), "job-1");
    dispatch(&mut session, 4, "gated", |head| head.priority = Priority::P2).await;
    dispatch(&mut session, 3, "gated", |head| head.priority = Priority::P1).await;
    dispatch(&mut session, 2, "gated", |head| head.priority = Priority::P0).await;
    // Each lane keeps its order, and cancelling what waits is answered at once: so the three have arrived.
    for (slot, priority) in [(12, Priority::P2), (13, Priority::P1), (14, Priority::P0)] {
        dispatch(&mut session, slot, "gated", |head| head.priority = priority).await;
        let (fire_sequence, token, reason) = (FireSequence(3), Token(7), CancelReason::Requested);
        // On the dispatch's own lane, which it cannot overtake there.
        session.send(Lane::of(priority), &CancelAttempt { job: job(slot), fire_sequence, token, reason }).await;
        let frame = session.receive(Lane::of(priority)).await;
        assert_eq!(outcome_of(&frame).1, Outcome::Cancelled);
        acknowledge(&mut session, Lane::of(priority), slot, Verdict::Accepted).await;
    }
    gate.let_go(4);
    for (slot, lane) in [(1, Lane::P1), (2, Lane::P0), (3, Lane::P1), (4, Lane::P2)] {
        let frame = session.receive(lane).await;
        assert_eq!(outcome_of(&frame), (slot, Outcome::Succeeded, format!("ran job-{slot}")));
        acknowledge(&mut session, lane, slot, Verdict::Accepted).await;
        if slot < 4 {
            assert_eq!(gate.next().await.job_name(), format!("job-{}", slot + 1));
        }
    }
    end(handle, &mut session).await;
}

#[tokio::test]
async fn a_new_session_hears_of_what_still_runs_and_of_exactly_the_unacknowledged_completions() {
    let node = Node::new();
    let (builder, mut gate) =
        gated(Worker::builder(node.peer()).concurrency(4).handler("quick", |_| async { Ok(().into()) }));
    let handle = builder.build().unwrap().start();
    let (mut first, instance, _) = attach(&node).await;
    for slot in [1, 2] {
        dispatch(&mut first, slot, "gated", |_| {}).await;
        gate.next().await;
    }
    for slot in [3, 4, 5] {
        dispatch(&mut first, slot, "quick", |_| {}).await;
        assert_eq!(outcome_of(&first.receive(Lane::P1).await).0, slot);
    }
    acknowledge(&mut first, Lane::P1, 3, Verdict::Accepted).await;
    // The lane keeps its order: when the next dispatch is answered, the acknowledgement before it has been heard.
    dispatch(&mut first, 6, "quick", |_| {}).await;
    assert_eq!(outcome_of(&first.receive(Lane::P1).await).0, 6);
    first.lose();

    let mut second = node.welcome().await;
    let frame = second.receive(Lane::Control).await;
    let attach: Attach<'_> = frame.decode();
    assert_eq!(attach.instance, instance, "the instance survives");
    second.send(Lane::Control, &Attached { request_id: attach.request_id, reattach_ms: 5000 }).await;
    let (mut reattached, mut completed) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let frame = second.receive(Lane::Control).await;
        let reattach: Reattach = frame.decode();
        assert_eq!((reattach.fire_sequence, reattach.token), (FireSequence(3), Token(7)));
        reattached.push(reattach.job.slot());
    }
    for _ in 0..3 {
        completed.push(outcome_of(&second.receive(Lane::P1).await).0);
    }
    reattached.sort_unstable();
    completed.sort_unstable();
    assert_eq!((reattached, completed), (vec![1, 2], vec![4, 5, 6]));

    // The owner took 2 away: it stops and says no more. 1 goes on and completes.
    let (fire_sequence, token) = (FireSequence(3), Token(7));
    for (slot, verdict) in [(2, Verdict::StaleToken), (1, Verdict::Accepted)] {
        second.send(Lane::Control, &Reattached { job: job(slot), fire_sequence, token, verdict }).await;
    }
    for slot in [4, 5, 6] {
        acknowledge(&mut second, Lane::P1, slot, Verdict::Accepted).await;
    }
    // A dispatch of what is held already is ignored.
    dispatch(&mut second, 1, "gated", |_| {}).await;
    gate.let_go(1);
    assert_eq!(outcome_of(&second.receive(Lane::P1).await), (1, Outcome::Succeeded, "ran job-1".to_owned()));
    acknowledge(&mut second, Lane::P1, 1, Verdict::Accepted).await;
    end(handle, &mut second).await;
    assert!(gate.started.try_recv().is_err(), "nothing started twice");
}

#[tokio::test]
async fn what_ends_while_the_session_is_away_is_completed_on_the_next_one() {
    let node = Node::new();
    let (builder, mut gate) = gated(Worker::builder(node.peer()).concurrency(1).prefetch(1));
    let handle = builder.build().unwrap().start();
    let (mut first, ..) = attach(&node).await;
    dispatch(&mut first, 1, "gated", |_| {}).await;
    gate.next().await;
    first.lose();
    let second = node.accept().await;
    gate.let_go(1);
    // The node is in no hurry; meanwhile the handler ends.
    patiently(async {
        while gate.go.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    second.close(1, "no, go away");
    let (mut third, ..) = attach(&node).await;
    assert_eq!(outcome_of(&third.receive(Lane::P1).await).1, Outcome::Succeeded);
    acknowledge(&mut third, Lane::P1, 1, Verdict::Overloaded).await;
    assert_eq!(outcome_of(&third.receive(Lane::P1).await).1, Outcome::Succeeded, "presented again");
    acknowledge(&mut third, Lane::P1, 1, Verdict::Accepted).await;
    end(handle, &mut third).await;
}

#[tokio::test]
async fn a_drain_takes_nothing_new_finishes_what_it_holds_and_waits_for_the_acknowledgements() {
    let node = Node::new();
    let (builder, mut gate) = gated(Worker::builder(node.peer()).concurrency(1).prefetch(1));
    let handle = builder.build().unwrap().start();
    let (mut session, ..) = attach(&node).await;
    dispatch(&mut session, 1, "gated", |_| {}).await;
    gate.next().await;
    dispatch(&mut session, 2, "gated", |_| {}).await;
    let serve = async {
        assert_eq!(session.receive(Lane::Control).await.decode::<Capacity>().capacity, 0);
        gate.let_go(2);
        for slot in [1, 2] {
            assert_eq!(
                outcome_of(&session.receive(Lane::P1).await),
                (slot, Outcome::Succeeded, format!("ran job-{slot}"))
            );
        }
        // A session lost at this moment does not end the drain: the completions are presented once more.
        session.lose();
        let mut again = node.welcome().await;
        take_in(&mut again).await;
        assert_eq!(again.receive(Lane::Control).await.decode::<Capacity>().capacity, 0);
        for _ in 0..2 {
            let (slot, ..) = outcome_of(&again.receive(Lane::P1).await);
            acknowledge(&mut again, Lane::P1, slot, Verdict::Accepted).await;
        }
        assert_eq!(again.closed().await, 0);
    };
    let (result, ()) = patiently(async { tokio::join!(handle.drain(), serve) }).await;
    result.unwrap();
}

#[tokio::test]
async fn a_drain_that_lasts_too_long_stops_what_runs_and_gives_back_what_waits() {
    let node = Node::new();
    let (builder, mut gate) =
        gated(Worker::builder(node.peer()).concurrency(1).prefetch(1).drain_timeout(Duration::ZERO));
    let handle = builder.build().unwrap().start();
    let (mut session, ..) = attach(&node).await;
    dispatch(&mut session, 1, "gated", |_| {}).await;
    gate.next().await;
    dispatch(&mut session, 2, "gated", |_| {}).await;
    dispatch(&mut session, 3, "gated", |_| {}).await;
    let (fire_sequence, token, reason) = (FireSequence(3), Token(7), CancelReason::Requested);
    session.send(Lane::P1, &CancelAttempt { job: job(3), fire_sequence, token, reason }).await;
    assert_eq!(outcome_of(&session.receive(Lane::P1).await).0, 3);
    acknowledge(&mut session, Lane::P1, 3, Verdict::Accepted).await;
    let serve = async {
        let mut ends = Vec::new();
        for _ in 0..2 {
            let frame = session.receive(Lane::P1).await;
            let complete: Complete<'_> = frame.decode();
            ends.push((complete.head.job.slot(), complete.head.outcome, complete.error.to_owned()));
            acknowledge(&mut session, Lane::P1, complete.head.job.slot(), Verdict::Accepted).await;
        }
        ends.sort_unstable();
        ends
    };
    let (result, ends) = patiently(async { tokio::join!(handle.drain(), serve) }).await;
    result.unwrap();
    let expected = [(1, Outcome::FailedForGood, "stopped".to_owned()), (2, Outcome::Failed, "drained".to_owned())];
    assert_eq!(ends, expected);
}

#[tokio::test]
async fn a_cancelled_attempt_hears_why_and_ends_as_cancelled() {
    let node = Node::new();
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&reasons);
    let (started, mut starts) = mpsc::unbounded_channel();
    let builder = Worker::builder(node.peer()).default_handler(move |attempt: Attempt| {
        let (seen, started) = (Arc::clone(&seen), started.clone());
        async move {
            started.send(()).unwrap();
            let reason = attempt.cancelled().await;
            seen.lock().unwrap().push(reason);
            Err(Failure::retryable("e", "stopped half way"))
        }
    });
    let handle = builder.build().unwrap().start();
    let (mut session, ..) = attach(&node).await;
    dispatch(&mut session, 1, "anything", |_| {}).await;
    patiently(starts.recv()).await.unwrap();
    let (fire_sequence, token, reason) = (FireSequence(3), Token(7), CancelReason::JobDeleted);
    session.send(Lane::Control, &CancelAttempt { job: job(1), fire_sequence, token, reason }).await;
    let frame = session.receive(Lane::P1).await;
    assert_eq!(outcome_of(&frame), (1, Outcome::Cancelled, "stopped half way".to_owned()));
    assert_eq!(*reasons.lock().unwrap(), [StopReason::JobDeleted]);
    acknowledge(&mut session, Lane::P1, 1, Verdict::Accepted).await;
    end(handle, &mut session).await;
}

#[tokio::test]
async fn signs_of_life_and_progress_are_sent_by_themselves() {
    let node = Node::new();
    let (builder, mut gate) = gated(Worker::builder(node.peer()));
    let handle = builder.build().unwrap().start();
    let (mut session, ..) = attach(&node).await;
    dispatch(&mut session, 1, "gated", |head| head.heartbeat_ms = 30).await;
    dispatch(&mut session, 2, "gated", |_| {}).await;
    let (first, second) = (gate.next().await, gate.next().await);
    let quiet = if first.job_name() == "job-2" { first } else { second };
    for _ in 0..3 {
        let frame = session.receive(Lane::Control).await;
        let beat: Heartbeat = frame.decode();
        assert_eq!((beat.job, beat.token, beat.progress_permille), (job(1), Token(7), 0));
    }
    quiet.progress(250);
    let told = loop {
        let frame = session.receive(Lane::Control).await;
        let beat: Heartbeat = frame.decode();
        if beat.job == job(2) {
            break beat.progress_permille;
        }
    };
    assert_eq!(told, 250);
    gate.let_go(2);
    for _ in 0..2 {
        let (slot, ..) = outcome_of(&session.receive(Lane::P1).await);
        acknowledge(&mut session, Lane::P1, slot, Verdict::Accepted).await;
    }
    end(handle, &mut session).await;
}

/// The next status on the control lane, which follows a heartbeat.
async fn status(session: &mut NodeSession) -> (JobId, String) {
    let beat = session.receive_type::<Heartbeat>(Lane::Control).await;
    let frame = session.receive(Lane::Control).await;
    let ReportStatus { request_id, partition, job, fire_sequence, token, status } = frame.decode();
    assert_eq!((request_id, partition, fire_sequence, token), (0, job.partition(), FireSequence(3), Token(7)));
    assert_eq!(beat.decode::<Heartbeat>().job, job);
    (job, String::from_utf8(status.to_vec()).unwrap())
}

#[tokio::test]
async fn a_status_follows_a_heartbeat_and_the_next_session_hears_it_too() {
    let node = Node::new();
    let (builder, mut gate) = gated(Worker::builder(node.peer()));
    let handle = builder.build().unwrap().start();
    let (mut session, ..) = attach(&node).await;
    dispatch(&mut session, 1, "gated", |_| {}).await;
    let attempt = gate.next().await;
    attempt.status("copied 1 of 9 files").unwrap();
    assert_eq!(status(&mut session).await, (job(1), "copied 1 of 9 files".to_owned()));
    attempt.status("copied 2 of 9 files").unwrap();
    assert_eq!(status(&mut session).await, (job(1), "copied 2 of 9 files".to_owned()));

    session.lose();
    attempt.status("copied 3 of 9 files").unwrap();
    let (mut session, ..) = attach(&node).await;
    let claim: Reattach = session.receive_type::<Reattach>(Lane::Control).await.decode();
    let Reattach { job: claimed, fire_sequence, token } = claim;
    let answer = Reattached { job: claimed, fire_sequence, token, verdict: Verdict::Accepted };
    session.send(Lane::Control, &answer).await;
    assert_eq!(status(&mut session).await, (job(1), "copied 3 of 9 files".to_owned()));
    gate.let_go(1);
    let (slot, ..) = outcome_of(&session.receive(Lane::P1).await);
    acknowledge(&mut session, Lane::P1, slot, Verdict::Accepted).await;
    end(handle, &mut session).await;
}

#[tokio::test]
async fn a_panicking_handler_is_a_failure_and_the_worker_goes_on() {
    let node = Node::new();
    let builder = Worker::builder(node.peer())
        .handler("panics", |_| async { panic!("no {}", "luck") })
        .handler("works", |attempt: Attempt| async move { Ok(attempt.payload().to_vec().into()) });
    let handle = builder.build().unwrap().start();
    let (mut session, ..) = attach(&node).await;
    for (slot, handler, expected) in [
        (1, "panics", (1, Outcome::Failed, "no luck".to_owned())),
        (2, "works", (2, Outcome::Succeeded, "p".to_owned())),
    ] {
        dispatch(&mut session, slot, handler, |_| {}).await;
        assert_eq!(outcome_of(&session.receive(Lane::P1).await), expected);
        acknowledge(&mut session, Lane::P1, slot, Verdict::Accepted).await;
    }
    end(handle, &mut session).await;
}

#[tokio::test]
async fn a_node_that_goes_away_gets_the_completions_first() {
    let node = Node::new();
    let (builder, mut gate) = gated(Worker::builder(node.peer()));
    let handle = builder.build().unwrap().start();
    let (mut first, ..) = attach(&node).await;
    dispatch(&mut first, 1, "gated", |_| {}).await;
    gate.next().await;
    first.send(Lane::Control, &GoAway { retry_ms: 1, message: "draining" }).await;
    gate.let_go(1);
    assert_eq!(outcome_of(&first.receive(Lane::P1).await).1, Outcome::Succeeded);
    acknowledge(&mut first, Lane::P1, 1, Verdict::Accepted).await;
    assert_eq!(first.closed().await, 0);
    let (mut second, ..) = attach(&node).await;
    end(handle, &mut second).await;
}

#[tokio::test]
async fn a_worker_that_is_refused_for_good_ends_with_the_reason() {
    let node = Node::new();
    let (builder, _gate) = gated(Worker::builder(node.peer()).pool("high"));
    let work = builder.build().unwrap().run(std::future::pending());
    let refuse = async {
        let mut session = node.welcome().await;
        let request_id = session.receive(Lane::Control).await.decode::<Attach<'_>>().request_id;
        let code = RefusalCode::Forbidden;
        let refused = Refused { request_id, code, detail: 0, field: "pools", message: "the certificate lacks `high`" };
        session.send(Lane::Control, &refused).await;
        session
    };
    let (result, _session) = patiently(async { tokio::join!(work, refuse) }).await;
    let error = result.unwrap_err();
    assert!(matches!(error, WorkerError::Session(_)) && error.to_string().contains("lacks `high`"), "{error}");
}

#[tokio::test]
async fn a_dispatch_that_crosses_the_drain_is_still_run() {
    let node = Node::new();
    let handle = Worker::builder(node.peer()).handler("quick", |_| async { Ok(().into()) }).build().unwrap().start();
    let (mut session, ..) = attach(&node).await;
    let serve = async {
        assert_eq!(session.receive(Lane::Control).await.decode::<Capacity>().capacity, 0);
        dispatch(&mut session, 1, "quick", |_| {}).await;
        assert_eq!(outcome_of(&session.receive(Lane::P1).await).1, Outcome::Succeeded);
        acknowledge(&mut session, Lane::P1, 1, Verdict::Accepted).await;
    };
    let (result, ()) = patiently(async { tokio::join!(handle.drain(), serve) }).await;
    result.unwrap();
}

#[tokio::test]
async fn a_worker_sits_at_its_home_shard_whatever_shard_it_asked_first() {
    let shards = Node::shards(2);
    let ports = [shards[0].address().port(), shards[1].address().port()];
    let worker = Worker::builder(shards[0].peer()).default_handler(|_| async { Ok(().into()) }).build().unwrap();
    let home = u16::try_from(worker.instance().0 % 2).unwrap();
    let handle = worker.start();
    let first = shards[0].welcome_to(0, &ports, &[0, 1]).await;
    let mut session = if home == 0 { first } else { shards[1].welcome_to(1, &ports, &[0, 1]).await };
    let (instance, capacity) = take_in(&mut session).await;
    assert_eq!((instance, capacity), (handle.instance(), 16));
    end(handle, &mut session).await;
}

#[tokio::test]
async fn a_worker_at_all_shards_splits_its_slots_between_them() {
    let shards = Node::shards(2);
    let ports = [shards[0].address().port(), shards[1].address().port()];
    let builder = Worker::builder(shards[0].peer()).default_handler(|_| async { Ok(().into()) });
    let handle = builder.concurrency(5).prefetch(2).shards(Shards::All).build().unwrap().start();
    shards[0].accept().await.close(1, "not yet");
    assert_eq!(shards[0].welcome_to(0, &ports, &[0, 1]).await.closed().await, 0, "it has seen the shards");
    let (mut zero, mut one) =
        tokio::join!(shards[0].welcome_to(0, &ports, &[0, 1]), shards[1].welcome_to(1, &ports, &[0, 1]));
    let ((first, three), (second, two)) = (take_in(&mut zero).await, take_in(&mut one).await);
    assert_eq!((three, two), (4, 3));
    assert_eq!((first, second), (handle.instance(), InstanceId(handle.instance().0.wrapping_add(1))));
    let drained = async {
        for session in [&mut zero, &mut one] {
            assert_eq!(session.receive(Lane::Control).await.decode::<Capacity>().capacity, 0);
        }
    };
    let (result, ()) = patiently(async { tokio::join!(handle.drain(), drained) }).await;
    result.unwrap();
}

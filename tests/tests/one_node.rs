//! Claims about one whole node: real shards, sockets and files, a real client and a real worker, all in this process.

use anyhow::Context as _;
use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};
use tickwheel_client::{
    ExecutionFilter, ExecutionState, Failure, JobBuilder, JobFilter, Output, RefusalCode, RequestError, RetryPolicy,
    SubmitMode, Transition, Worker, WorkerHandle,
};
use tickwheel_tests::{PATIENCE, TestNode, data_directory};
use tokio::{sync::mpsc, time::timeout};

const TWO_SHARDS: &str =
    "[node]\nshards = 2\npartitions = 8\n[log]\nsegment_bytes = 4194304\n[worker]\nreattach_ms = 1000\n";

/// One execution as the handler saw it: job, fire sequence, attempt.
type Seen = (String, u64, u16);

fn run<F: Future<Output = anyhow::Result<()>>>(body: F) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(async { timeout(PATIENCE, body).await.context("the test took too long")? })
}

/// A worker that reports what it sees and fails the first attempt of jobs named `flaky*`.
fn worker(
    node: &TestNode,
    data: &Path,
    concurrency: usize,
) -> anyhow::Result<(WorkerHandle, mpsc::UnboundedReceiver<Seen>)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let worker = Worker::builder(node.connect_config(data, "worker", 0)?)
        .pool("standard")
        .concurrency(concurrency)
        .default_handler(move |attempt| {
            let sender = sender.clone();
            async move {
                let name = attempt.job_name().to_owned();
                let fails = name.starts_with("flaky") && attempt.number() == 1;
                let seen = (name, attempt.execution().fire_sequence.0, attempt.number());
                // The test may have seen enough.
                let _ = sender.send(seen);
                if fails {
                    Err(Failure::retryable("first", "the first attempt fails"))
                } else {
                    Ok(Output(b"done".to_vec()))
                }
            }
        })
        .build()?;
    Ok((worker.start(), receiver))
}

async fn next(seen: &mut mpsc::UnboundedReceiver<Seen>) -> anyhow::Result<Seen> {
    seen.recv().await.context("the worker ended")
}

#[test]
fn jobs_on_every_shard_fire_and_complete() -> anyhow::Result<()> {
    let data = data_directory()?;
    let node = TestNode::start(data.path(), TWO_SHARDS)?;
    run(async {
        let client = node.admin(data.path()).await?;
        let (worker, mut seen) = worker(&node, data.path(), 8)?;
        for index in 0..16 {
            let job = JobBuilder::new(format!("every-{index}")).handler("any").every(Duration::from_millis(100));
            client.submit(&job, SubmitMode::Create).await?;
        }
        let mut last: HashMap<String, u64> = HashMap::new();
        while last.len() < 16 || last.values().any(|sequence| *sequence < 5) {
            let (name, sequence, attempt) = next(&mut seen).await?;
            assert_eq!(attempt, 1, "nothing failed");
            let before = last.insert(name.clone(), sequence).unwrap_or(0);
            assert_eq!(sequence, before + 1, "firings of {name} come in order, none twice, none missing");
        }
        worker.drain().await?;
        client.close().await;
        Ok(())
    })?;
    node.stop(Duration::from_secs(5))
}

#[test]
fn a_worker_with_one_slot_serves_due_jobs_of_every_shard() -> anyhow::Result<()> {
    let data = data_directory()?;
    let node = TestNode::start(data.path(), TWO_SHARDS)?;
    run(async {
        let client = node.admin(data.path()).await?;
        let (worker, mut seen) = worker(&node, data.path(), 1)?;
        let mut shards = HashMap::new();
        for index in 0..16 {
            let job = JobBuilder::new(format!("busy-{index}")).handler("any").every(Duration::from_millis(1));
            let submitted = client.submit(&job, SubmitMode::Create).await?;
            shards.insert(format!("busy-{index}"), submitted.job.partition().0 % 2);
        }
        let mut counts = [0_u32; 2];
        // Both shards always have due jobs: of 400 executions each gets its share, give or take the start.
        for _ in 0..400 {
            let (name, _, _) = next(&mut seen).await?;
            counts[usize::from(shards[&name])] += 1;
        }
        assert!(counts.iter().all(|count| *count >= 100), "one shard starves: {counts:?}");
        worker.drain().await?;
        client.close().await;
        Ok(())
    })?;
    node.stop(Duration::from_secs(5))
}

#[test]
fn a_failed_attempt_is_retried_and_the_watch_tells_each_transition() -> anyhow::Result<()> {
    let data = data_directory()?;
    let node = TestNode::start(data.path(), TWO_SHARDS)?;
    run(async {
        let client = node.admin(data.path()).await?;
        let filter = ExecutionFilter { job: "flaky".to_owned(), ..ExecutionFilter::default() };
        let mut watch = client.watch(filter).await?;
        let (worker, _seen) = worker(&node, data.path(), 4)?;
        let retry = RetryPolicy { initial_ms: 10, ..RetryPolicy::default() };
        let job = JobBuilder::new("flaky").handler("any").after(Duration::ZERO).retry(retry);
        client.submit(&job, SubmitMode::Create).await?;
        let mut states = Vec::new();
        while states.last() != Some(&ExecutionState::Succeeded) {
            if let Transition::Execution(execution) = watch.next().await.context("the watch ended")?? {
                states.push(execution.state);
            }
        }
        let expected =
            [ExecutionState::Running, ExecutionState::Retrying, ExecutionState::Running, ExecutionState::Succeeded];
        assert_eq!(states, expected);
        let executions = client.executions(ExecutionFilter::default())?.collect().await?;
        assert!(executions.iter().any(|found| found.state == ExecutionState::Succeeded && found.output == b"done"));
        worker.drain().await?;
        client.close().await;
        Ok(())
    })?;
    node.stop(Duration::from_secs(5))
}

#[test]
fn jobs_survive_a_restart_with_another_number_of_shards() -> anyhow::Result<()> {
    let data = data_directory()?;
    for (round, shards) in [1, 2, 3, 1].into_iter().enumerate() {
        let text = TWO_SHARDS.replace("shards = 2", &format!("shards = {shards}"));
        let node = TestNode::start(data.path(), &text)?;
        run(async {
            let client = node.admin(data.path()).await?;
            let found = client.list(JobFilter::default())?.collect().await?;
            assert_eq!(found.len(), round * 10, "every job of the rounds before is there");
            for index in 0..10 {
                let job =
                    JobBuilder::new(format!("far-{round}-{index}")).handler("any").every(Duration::from_secs(86_400));
                client.submit(&job, SubmitMode::Create).await?;
            }
            client.close().await;
            Ok(())
        })?;
        node.stop(Duration::from_secs(5))?;
    }
    Ok(())
}

#[test]
fn refusals_are_typed_and_name_what_is_wrong() -> anyhow::Result<()> {
    let data = data_directory()?;
    let node = TestNode::start(data.path(), TWO_SHARDS)?;
    run(async {
        let client = node.admin(data.path()).await?;
        let code = |error: RequestError| match error {
            RequestError::Refused(refusal) => Ok(refusal.code),
            other => Err(anyhow::anyhow!("expected a refusal, not {other}")),
        };
        let far = || JobBuilder::new("far").handler("any").every(Duration::from_secs(86_400));
        client.submit(&far(), SubmitMode::Create).await?;
        let again = client.submit(&far(), SubmitMode::Create).await.expect_err("the name is taken");
        assert_eq!(code(again)?, RefusalCode::AlreadyExists);
        let conflict =
            client.submit(&far().expected_revision(7), SubmitMode::Upsert).await.expect_err("another revision");
        assert_eq!(code(conflict)?, RefusalCode::RevisionConflict);
        for (job, expected) in [
            (far().cron("* * * * *").zone("Mars/Base"), RefusalCode::InvalidField),
            (far().cron("61 * * * *"), RefusalCode::InvalidField),
            (far().tenant("nobody"), RefusalCode::UnknownTenant),
        ] {
            let refused = client.submit(&job, SubmitMode::Upsert).await.expect_err("the definition is wrong");
            assert_eq!(code(refused)?, expected);
        }
        let job = client.delete("no-such-job").await.expect_err("no such job");
        assert_eq!(code(job)?, RefusalCode::UnknownJob);
        client.close().await;
        Ok(())
    })?;
    node.stop(Duration::from_secs(5))
}

#[test]
fn a_draining_node_finishes_what_runs() -> anyhow::Result<()> {
    let data = data_directory()?;
    let node = TestNode::start(data.path(), TWO_SHARDS)?;
    let (started, mut has_started) = mpsc::unbounded_channel();
    let finish = Arc::new(tokio::sync::Notify::new());
    run(async {
        let client = node.admin(data.path()).await?;
        let release = Arc::clone(&finish);
        let worker = Worker::builder(node.connect_config(data.path(), "worker", 0)?)
            .pool("standard")
            .default_handler(move |_| {
                let (started, release) = (started.clone(), Arc::clone(&release));
                async move {
                    // The test waits for this one word.
                    let _ = started.send(());
                    release.notified().await;
                    Ok(Output(b"late".to_vec()))
                }
            })
            .build()?
            .start();
        client.submit(&JobBuilder::new("slow").handler("any").after(Duration::ZERO), SubmitMode::Create).await?;
        has_started.recv().await.context("the worker ended")?;
        node.control().drain(PATIENCE);
        // The shards hear of it in their next turn; from then on nothing new is taken.
        let mut number = 0;
        loop {
            number += 1;
            let far = JobBuilder::new(format!("new-{number}")).handler("any").every(Duration::from_secs(86_400));
            if client.submit(&far, SubmitMode::Create).await.is_err() {
                break;
            }
        }
        finish.notify_one();
        // The node's end, not a time, ends the wait for the worker.
        drop(client);
        tokio::task::spawn_blocking(move || node.stop(PATIENCE)).await??;
        drop(worker);
        Ok(())
    })?;
    let node = TestNode::start(data.path(), TWO_SHARDS)?;
    run(async {
        let client = node.admin(data.path()).await?;
        let executions = client.executions(ExecutionFilter::default())?.collect().await?;
        assert!(executions.iter().any(|found| found.job_name == "slow" && found.state == ExecutionState::Succeeded));
        client.close().await;
        Ok(())
    })?;
    node.stop(Duration::from_secs(5))
}

//! What handlers say about their attempts reaches the shard that owns them, and comes back after a restart of the node, which forgets it.

use anyhow::Context as _;
use std::{collections::BTreeSet, time::Duration};
use tickwheel_client::{
    Attempt, Client, ExecutionFilter, Failure, JobBuilder, Output, SubmitMode, Worker, WorkerHandle,
};
use tickwheel_tests::{data_directory, run, server::Server};
use tokio::{sync::mpsc, time::sleep};

const SETTINGS: &str = "[node]\nshards = 2\npartitions = 8\n[log]\nsegment_bytes = 4194304\n";
const JOBS: usize = 8;
/// How long to wait before the executions are listed again.
const INTERVAL: Duration = Duration::from_millis(20);

/// A worker whose handlers give the test their attempts and run until they are asked to stop.
fn talking_worker(server: &Server) -> anyhow::Result<(WorkerHandle, mpsc::UnboundedReceiver<Attempt>)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let handler = move |attempt: Attempt| {
        let sender = sender.clone();
        async move {
            sender.send(attempt.clone())?;
            attempt.cancelled().await;
            Ok::<_, Failure>(Output::none())
        }
    };
    let worker = Worker::builder(server.connect_config("worker")?).pool("standard").concurrency(JOBS);
    Ok((worker.default_handler(handler).build()?.start(), receiver))
}

/// The statuses of all executions, once there are so many.
async fn statuses(client: &Client, count: usize) -> anyhow::Result<Vec<String>> {
    loop {
        let all = client.executions(ExecutionFilter::default())?.collect().await?;
        let mut said: Vec<_> = all.into_iter().map(|one| one.status).filter(|status| !status.is_empty()).collect();
        if said.len() == count {
            said.sort();
            return Ok(said);
        }
        sleep(INTERVAL).await;
    }
}

#[test]
fn what_handlers_say_is_shown_by_every_shard_and_again_after_a_restart() -> anyhow::Result<()> {
    let folder = data_directory()?;
    let data = folder.path().join("data");
    let server = Server::new(folder.path(), &data, SETTINGS)?;
    let mut process = server.start()?;
    run(async {
        let client = server.client().await?;
        let (worker, mut attempts) = talking_worker(&server)?;
        let (mut held, mut shards) = (Vec::new(), BTreeSet::new());
        for index in 0..JOBS {
            let job = JobBuilder::new(format!("talks-{index}")).handler("any").after(Duration::ZERO);
            shards.insert(client.submit(&job, SubmitMode::Create).await?.job.partition().0 % 2);
            held.push(attempts.recv().await.context("the worker ended")?);
        }
        assert_eq!(shards.len(), 2, "some frames of the worker are forwarded to the shard that is not its home");
        let expected: Vec<_> = (0..JOBS).map(|index| format!("talks-{index} is half done")).collect();
        for attempt in &held {
            attempt.status(format!("{} is half done", attempt.job_name()))?;
        }
        assert_eq!(statuses(&client, JOBS).await?, expected);

        process.kill()?;
        process = server.start()?;
        assert_eq!(statuses(&client, JOBS).await?, expected, "the worker has told them again");
        for attempt in &held {
            attempt.status("")?;
        }
        statuses(&client, 0).await?;
        for attempt in &held {
            client.cancel(attempt.execution()).await?;
        }
        worker.drain().await?;
        client.close().await;
        Ok(())
    })?;
    process.kill()
}

//! A drive that fails under a running server: the server ends and names the file, nothing that it acknowledged is lost, and it starts
//! again once the drive works.
//!
//! The error is a real one: the drive below the file system refuses ([`tickwheel_tests::disk`]), the kernel hands it up as EIO to
//! whoever waits, through `io_uring` or otherwise.

use anyhow::{Context as _, ensure};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tickwheel_client::{Client, JobBuilder, JobFilter, Lane, SubmitMode};
use tickwheel_tests::{
    confine::with_own_mounts,
    data_directory,
    disk::{Disk, Fault},
    process::server_binary,
    run,
    server::{Server, check_succeeded},
};
use tickwheel_wire::frame::{
    request::Submitted,
    work::{Completed, Dispatch, DispatchHead, Outcome, Verdict},
};

const SETTINGS: &str = "[node]\nshards = 1\npartitions = 8\n[log]\nsegment_bytes = 4194304\n";
const DISK_MIB: u32 = 160;
/// Acknowledged submissions before the drive fails.
const SUBMITTED_MIN: usize = 64;
/// The exit status that says: the log has failed.
const LOG_FAILED: i32 = 19;

/// Names of jobs whose submission was acknowledged.
type Acknowledged = Arc<Mutex<Vec<String>>>;

fn count(acknowledged: &Acknowledged) -> usize {
    acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Submits jobs that are due tomorrow, until it is aborted.
async fn submit(client: Client, acknowledged: Acknowledged) {
    for first in (0..).step_by(4) {
        let far = |index| JobBuilder::new(format!("far-{index}")).handler("any").every(Duration::from_secs(86_400));
        let jobs: Vec<_> = (first..first + 4).map(far).collect();
        for (index, result) in (first..).zip(client.submit_many(jobs.iter(), SubmitMode::Create).await) {
            if result.is_ok() {
                acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(format!("far-{index}"));
            }
        }
    }
}

/// An execution whose completion was accepted.
async fn complete_one(server: &Server) -> anyhow::Result<DispatchHead> {
    let mut worker = server.peer("worker").await?;
    worker.attach(7, "standard").await?;
    let mut admin = server.peer("admin").await?;
    admin.submit(1, &JobBuilder::new("done").tenant("default").handler("any").after(Duration::ZERO)).await?;
    admin.hear().await?.decode::<Submitted>()?;
    let head = worker.hear().await?.decode::<Dispatch<'_>>()?.head;
    worker.complete(Lane::P1, &head, Outcome::Succeeded, b"kept").await?;
    ensure!(worker.hear().await?.decode::<Completed>()?.verdict == Verdict::Accepted, "not accepted");
    Ok(head)
}

/// The drive gets `fault` while jobs are submitted without end; it loses its cache and is repaired.
fn check_fault(disk: &Disk, folder: &std::path::Path, fault: Fault) -> anyhow::Result<()> {
    disk.mount()?;
    let data = disk.data().join(format!("{fault:?}"));
    std::fs::create_dir(&data)?;
    let server = Server::new(folder, &data, SETTINGS)?;
    // The certificates are this test's, and nobody has synced them.
    disk.unmount()?;
    disk.mount()?;
    let mut process = server.start()?;
    let acknowledged = Acknowledged::default();
    let done = run(async {
        let done = complete_one(&server).await?;
        let submitting = tokio::spawn(submit(server.client().await?, Arc::clone(&acknowledged)));
        while count(&acknowledged) < SUBMITTED_MIN {
            tokio::task::yield_now().await;
        }
        disk.set_fault(fault);
        let status = process.ended()?;
        submitting.abort();
        let said = server.said()?;
        ensure!(status.code() == Some(LOG_FAILED), "{fault:?}: {status}: {said}");
        let last = said.lines().last().context("the server said nothing")?;
        // A commit or the next segment, whichever meets the fault first.
        for word in ["log of shard 0 failed: stream 1 has failed: cannot ", " log/1", "(os error 5)", "acknowledged"] {
            ensure!(last.contains(word), "{fault:?}: {word:?} is not in {last}");
        }
        println!("{last}");
        Ok(done)
    })?;
    disk.unmount()?;
    disk.lose_cache();
    disk.set_fault(Fault::None);
    disk.mount()?;
    let mut process = server.start()?;
    run(async {
        let client = server.client().await?;
        let found = client.list(JobFilter::default())?.collect().await?;
        let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for name in &acknowledged {
            let is_there = found.iter().any(|job| job.definition.name == *name);
            ensure!(is_there, "{fault:?}: {name} was acknowledged and is gone");
        }
        check_succeeded(&mut server.peer("admin").await?, &done, b"kept").await?;
        println!("{fault:?}: {} acknowledged jobs are there", acknowledged.len());
        client.close().await;
        Ok(())
    })?;
    process.kill()?;
    disk.unmount()
}

#[test]
fn a_failing_drive_ends_the_server_with_the_file_and_loses_nothing_acknowledged() -> anyhow::Result<()> {
    server_binary()?;
    let folder = data_directory()?;
    with_own_mounts(|| {
        let Some(disk) = Disk::make(folder.path(), DISK_MIB)? else { return Ok(()) };
        [Fault::Writes, Fault::Flushes, Fault::OneFlush]
            .into_iter()
            .try_for_each(|fault| check_fault(&disk, folder.path(), fault))
    })
}

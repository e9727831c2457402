//! A small file system that a running server fills up with its log: what is new is refused, what runs may end, and nothing acknowledged is
//! lost, neither by a kill nor by a start that finds the disk still full.

use anyhow::{Context as _, ensure};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    time::Duration,
};
use tickwheel_client::{Client, JobBuilder, JobFilter, Lane, RefusalCode, RequestError, SubmitMode};
use tickwheel_tests::{
    confine::with_own_mounts,
    data_directory,
    disk::{make_image, mount_image, unmount},
    peer::Peer,
    process::server_binary,
    run,
    server::{Server, check_succeeded},
};
use tickwheel_wire::frame::{
    request::Submitted,
    work::{Completed, Dispatch, DispatchHead, Outcome, Verdict},
};

const SETTINGS: &str = "[node]\nshards = 1\npartitions = 8\n[log]\nsegment_bytes = 4194304\n";
const DISK_MIB: u32 = 176;
/// More than a start needs, so that its removal is enough.
const BALLAST_MIB: u64 = 72;
/// The exit status that says: no space.
const NO_SPACE: i32 = 13;
const HELD: u64 = 8;

fn large(name: &str) -> JobBuilder {
    JobBuilder::new(name).handler("any").payload(vec![7; 200 << 10]).every(Duration::from_secs(86_400))
}

/// Appends zeroes to the file: `limit_mib` MiB, or as many as there is room for.
fn fill(path: &Path, limit_mib: u64) -> anyhow::Result<()> {
    let (mut file, zeroes) = (File::create(path)?, vec![0; 64 << 10]);
    for _ in 0..limit_mib * 16 {
        match file.write_all(&zeroes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error.into()),
        }
    }
    // Where space is only promised when it is written, this is when it is taken.
    match file.sync_all() {
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error.into()),
        _ => Ok(()),
    }
}

/// A worker that holds attempts of as many jobs.
async fn hold(server: &Server) -> anyhow::Result<(Peer, Vec<DispatchHead>)> {
    let (mut worker, mut admin) = (server.peer("worker").await?, server.peer("admin").await?);
    worker.attach(7, "standard").await?;
    let mut held = Vec::new();
    for index in 0..HELD {
        let job = JobBuilder::new(format!("held-{index}")).tenant("default").handler("any").after(Duration::ZERO);
        admin.submit(index, &job).await?;
        admin.hear().await?.decode::<Submitted>()?;
        held.push(worker.hear().await?.decode::<Dispatch<'_>>()?.head);
    }
    Ok((worker, held))
}

/// Submits until the disk is full; the names of what was acknowledged.
async fn submit_until_refused(client: &Client) -> anyhow::Result<Vec<String>> {
    let mut acknowledged = Vec::new();
    loop {
        let name = format!("large-{}", acknowledged.len());
        match client.submit(&large(&name), SubmitMode::Create).await {
            Ok(_) => acknowledged.push(name),
            Err(RequestError::Refused(refusal)) if refusal.code == RefusalCode::OutOfSpace => return Ok(acknowledged),
            Err(other) => return Err(other.into()),
        }
        ensure!(acknowledged.len() < 1_000, "200 MB were accepted by a disk of {DISK_MIB} MiB");
    }
}

async fn check_refused(client: &Client) -> anyhow::Result<()> {
    match client.submit(&large("refused"), SubmitMode::Create).await {
        Err(RequestError::Refused(refusal)) if refusal.code == RefusalCode::OutOfSpace => Ok(()),
        other => anyhow::bail!("{other:?} on a full disk"),
    }
}

/// Everything is there, and what is new is accepted and runs.
async fn check(server: &Server, acknowledged: &[String], held: &[DispatchHead]) -> anyhow::Result<()> {
    let (client, mut admin) = (server.client().await?, server.peer("admin").await?);
    let found = client.list(JobFilter::default())?.collect().await?;
    for name in acknowledged {
        ensure!(found.iter().any(|job| job.definition.name == *name), "{name} was acknowledged and is gone");
    }
    ensure!(found.iter().all(|job| job.definition.name != "refused"), "what was refused is there");
    for attempt in held {
        check_succeeded(&mut admin, attempt, b"held").await?;
    }
    client.submit(&large("after"), SubmitMode::Create).await.context("there is room again")?;
    let mut worker = server.peer("worker").await?;
    worker.attach(8, "standard").await?;
    client.submit(&JobBuilder::new("runs").handler("any").after(Duration::ZERO), SubmitMode::Create).await?;
    let head = worker.hear().await?.decode::<Dispatch<'_>>()?.head;
    worker.complete(Lane::P1, &head, Outcome::Succeeded, b"").await?;
    ensure!(worker.hear().await?.decode::<Completed>()?.verdict == Verdict::Accepted, "not accepted");
    client.close().await;
    Ok(())
}

/// Fills the disk in `root` under a server, kills it, starts it on the full disk, and again with room.
fn check_full(folder: &Path, root: &Path) -> anyhow::Result<()> {
    let (data, ballast, filler) = (root.join("data"), root.join("ballast"), root.join("filler"));
    fs::create_dir(&data)?;
    fill(&ballast, BALLAST_MIB)?;
    let server = Server::new(folder, &data, SETTINGS)?;
    let mut process = server.start()?;
    let (acknowledged, held) = run(async {
        let client = server.client().await?;
        let (mut worker, held) = hold(&server).await?;
        let acknowledged = submit_until_refused(&client).await?;
        ensure!(acknowledged.len() > 50, "the log had room for hardly anything: {}", acknowledged.len());
        fill(&filler, u64::from(DISK_MIB))?;
        check_refused(&client).await?;
        for attempt in &held {
            worker.complete(Lane::P1, attempt, Outcome::Succeeded, b"held").await?;
            let completed: Completed = worker.hear().await?.decode()?;
            ensure!((completed.job, completed.verdict) == (attempt.job, Verdict::Accepted), "{completed:?}");
        }
        check_refused(&client).await?;
        Ok((acknowledged, held))
    })?;
    process.kill()?;
    let status = server.start()?.ended()?;
    let said = server.said()?;
    ensure!(status.code() == Some(NO_SPACE), "{status} on a full disk: {said}");
    ensure!(said.contains("no space left") && said.lines().count() == 1, "{said}");
    fs::remove_file(&ballast)?;
    let mut process = server.start()?;
    run(check(&server, &acknowledged, &held))?;
    println!("{} acknowledged jobs and {HELD} completions are there", acknowledged.len());
    process.kill()
}

#[test]
fn a_small_disk_that_is_full_loses_nothing_and_accepts_again_when_there_is_room() -> anyhow::Result<()> {
    server_binary()?;
    let folder = data_directory()?;
    with_own_mounts(|| {
        let (image, root) = (folder.path().join("image"), folder.path().join("root"));
        fs::create_dir(&root)?;
        if !make_image(&image, DISK_MIB)? {
            return Ok(());
        }
        if let Err(error) = mount_image(&image, &root) {
            eprintln!("skipped: a file system on a loop device cannot be mounted here: {error:#}");
            return Ok(());
        }
        check_full(folder.path(), &root)?;
        unmount(&root)
    })
}

//! A small file system that a running server fills up with its log: what is new is refused, what runs may end, and nothing acknowledged is
//! lost, neither by a kill nor by a start that finds the disk still full.

use anyhow::{Context as _, ensure};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tickwheel_client::{Client, JobBuilder, JobFilter, Lane, RefusalCode, RequestError, SubmitMode};
use tickwheel_tests::{
    PATIENCE,
    confine::with_own_mounts,
    data_directory,
    disk::{make_image, mount_image, unmount},
    peer::Peer,
    process::{Process, server_binary},
    run,
    server::{Server, check_succeeded},
};
use tickwheel_wire::{
    InstanceId,
    frame::{
        request::Submitted,
        work::{Attach, Attached, Completed, Dispatch, DispatchHead, Outcome, Verdict},
    },
};

const SETTINGS: &str = "[node]\nshards = 1\npartitions = 8\n[log]\nsegment_bytes = 4194304\n";
const DISK_MIB: u32 = 176;
/// More than a start needs, so that its removal is enough.
const BALLAST_MIB: u64 = 72;
/// The exit status that says: no space.
const NO_SPACE: i32 = 13;
/// The output of what is completed on the full disk.
const OUTPUT: [u8; 4 << 10] = [7; 4 << 10];

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
async fn hold(server: &Server, capacity: u32) -> anyhow::Result<(Peer, Vec<DispatchHead>)> {
    let (mut worker, mut admin) = (server.peer("worker").await?, server.peer("admin").await?);
    worker.say(Lane::Control, &Attach { request_id: 1, instance: InstanceId(7), capacity, pools: "standard" }).await?;
    worker.hear().await?.decode::<Attached>()?;
    let mut held = Vec::new();
    for index in 0..capacity {
        let job = JobBuilder::new(format!("held-{index}")).tenant("default").handler("any").after(Duration::ZERO);
        admin.submit(index.into(), &job).await?;
    }
    for _ in 0..capacity {
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
        check_succeeded(&mut admin, attempt, &OUTPUT).await?;
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

/// A server on a disk that has become full, with a worker that holds attempts.
struct Full {
    server: Server,
    process: Process,
    client: Client,
    worker: Peer,
    held: Vec<DispatchHead>,
    acknowledged: Vec<String>,
    ballast: PathBuf,
}

/// Starts a server on the disk in `root`, and fills it; its worker holds so many attempts.
async fn fill_up(folder: &Path, root: &Path, held: u32) -> anyhow::Result<Full> {
    let (data, ballast) = (root.join("data"), root.join("ballast"));
    fs::create_dir(&data)?;
    fill(&ballast, BALLAST_MIB)?;
    let server = Server::new(folder, &data, SETTINGS)?;
    let process = server.start()?;
    let client = server.client().await?;
    let (worker, held) = hold(&server, held).await?;
    let acknowledged = submit_until_refused(&client).await?;
    ensure!(acknowledged.len() > 50, "the log had room for hardly anything: {}", acknowledged.len());
    fill(&root.join("filler"), u64::from(DISK_MIB))?;
    check_refused(&client).await?;
    Ok(Full { server, process, client, worker, held, acknowledged, ballast })
}

/// Kills the server, starts it on the full disk, and again with room.
fn check_restart(mut full: Full) -> anyhow::Result<()> {
    full.process.kill()?;
    let status = full.server.start()?.ended()?;
    let said = full.server.said()?;
    ensure!(status.code() == Some(NO_SPACE), "{status} on a full disk: {said}");
    ensure!(said.contains("no space left") && said.lines().count() == 1, "{said}");
    fs::remove_file(&full.ballast)?;
    let mut process = full.server.start()?;
    run(check(&full.server, &full.acknowledged, &full.held))?;
    println!("{} acknowledged jobs and {} completions are there", full.acknowledged.len(), full.held.len());
    process.kill()
}

/// Completes what is held; how many of the reports the log had room for. The others are to be repeated, says the server.
async fn complete(full: &mut Full, from: usize) -> anyhow::Result<usize> {
    for attempt in &full.held[from..] {
        full.worker.complete(Lane::P1, attempt, Outcome::Succeeded, &OUTPUT).await?;
    }
    let mut accepted = 0;
    for attempt in &full.held[from..] {
        let Completed { job, verdict, .. } = full.worker.hear().await?.decode()?;
        ensure!(job == attempt.job, "another was answered");
        match verdict {
            Verdict::Accepted => accepted += 1,
            Verdict::Overloaded => {}
            other => anyhow::bail!("{other} for {attempt:?}"),
        }
    }
    Ok(accepted)
}

/// Runs `body` with a folder, and in it the root of a small file system of its own.
fn with_small_disk(body: impl FnOnce(&Path, &Path) -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
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
        body(folder.path(), &root)?;
        unmount(&root)
    })
}

#[test]
fn a_small_disk_that_is_full_loses_nothing_and_accepts_again_when_there_is_room() -> anyhow::Result<()> {
    with_small_disk(|folder, root| {
        let full = run(async {
            let mut full = fill_up(folder, root, 400).await?;
            let accepted = complete(&mut full, 0).await?;
            ensure!(
                accepted == full.held.len(),
                "the reserve had room for {accepted} reports: {}",
                full.server.said()?
            );
            check_refused(&full.client).await?;
            Ok(full)
        })?;
        check_restart(full)
    })
}

#[test]
fn what_the_reserve_has_no_room_for_is_to_be_repeated_until_there_is_some() -> anyhow::Result<()> {
    with_small_disk(|folder, root| {
        run(async {
            let mut full = fill_up(folder, root, 2_000).await?;
            let accepted = complete(&mut full, 0).await?;
            ensure!((400..2_000).contains(&accepted), "the reserve had room for {accepted} reports of 4 KiB");
            println!("the reserve had room for {accepted} reports");
            check_refused(&full.client).await?;
            fs::remove_file(&full.ballast)?;
            let started = Instant::now();
            while complete(&mut full, accepted).await? < 2_000 - accepted {
                ensure!(started.elapsed() < PATIENCE, "there is room, but reports are not taken");
            }
            let Full { server, acknowledged, held, worker, mut process, .. } = full;
            drop(worker);
            check(&server, &acknowledged, &held).await?;
            process.kill()
        })
    })
}

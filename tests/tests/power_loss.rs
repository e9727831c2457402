//! The power fails under a real server, at many moments of its life: starts with one and two shards, commits, new segments, snapshots.
//!
//! The drive below the server's file system remembers its writes and flushes ([`tickwheel_tests::disk`]); beside them stands a ledger
//! of what the server acknowledged, each entry with the number of steps that the drive had taken by then. Then, for many moments, the drive
//! is rebuilt as a loss of power leaves it: once with nothing that was not flushed, once with any of the sectors that were on their way. Mounted, its file
//! system replays its journal and a node recovers what was acknowledged up to that moment, and nothing that was not even submitted.
//!
//! `TICKWHEEL_CUTS` sets the number of moments, half of them just after an acknowledgement; 12 by default. The same on the simulated disk, at
//! every step, is `storage/tests/crash.rs`.

use anyhow::{Context as _, ensure};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tickwheel_client::{JobBuilder, JobFilter, Lane};
use tickwheel_tests::{
    TestNode,
    confine::{mount_memory, with_own_mounts},
    data_directory,
    disk::{Disk, mount_image, unmount, write_image},
    mix,
    peer::Peer,
    process::server_binary,
    run,
    server::{Server, check_succeeded},
};
use tickwheel_wire::frame::{
    request::Submitted,
    work::{Completed, Dispatch, DispatchHead, Outcome, Verdict},
};

const DISK_MIB: u32 = 192;
/// Payloads that make a log of several segments, and snapshots, of few jobs.
const PAYLOAD_BYTES: usize = 100 << 10;
const ROUNDS: usize = 14;
const JOBS_PER_ROUND: usize = 4;

fn cuts() -> u64 {
    env::var("TICKWHEEL_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

fn settings(shards: u16) -> String {
    format!("[node]\nshards = {shards}\npartitions = 8\n[log]\nsegment_bytes = 4194304\nsnapshot_bytes = 1048576\n")
}

/// What is known of a job from outside, in steps of the drive.
#[derive(Debug)]
struct Known {
    /// Before it was submitted.
    sent: usize,
    /// When the submission was acknowledged.
    acknowledged: usize,
    /// When the completion of its execution was accepted.
    completed: Option<(usize, DispatchHead)>,
}

type Ledger = BTreeMap<String, Known>;

/// Jobs are submitted together, the first of them due at once; its execution is completed.
async fn round(
    disk: &Disk,
    admin: &mut Peer,
    worker: &mut Peer,
    names: &[String],
    ledger: &mut Ledger,
) -> anyhow::Result<()> {
    let sent = disk.position();
    for (request_id, name) in (0..).zip(names) {
        let job = JobBuilder::new(name).tenant("default").handler("any").payload(vec![7; PAYLOAD_BYTES]);
        let delay = if request_id == 0 { Duration::ZERO } else { Duration::from_secs(86_400) };
        admin.submit(request_id, &job.after(delay)).await?;
    }
    for _ in names {
        let answer: Submitted = admin.hear().await?.decode()?;
        let name = &names[usize::try_from(answer.request_id)?];
        ledger.insert(name.clone(), Known { sent, acknowledged: disk.position(), completed: None });
    }
    let head = worker.hear().await?.decode::<Dispatch<'_>>()?.head;
    worker.complete(Lane::P1, &head, Outcome::Succeeded, b"kept").await?;
    let completed: Completed = worker.hear().await?.decode()?;
    ensure!(completed.verdict == Verdict::Accepted, "{completed:?}");
    ledger.get_mut(&names[0]).context("it was acknowledged")?.completed = Some((disk.position(), head));
    Ok(())
}

/// Lets servers run on the disk, each killed at its end, and writes down what they acknowledged.
fn record(disk: &Disk, server: &Server) -> anyhow::Result<Ledger> {
    let mut ledger = Ledger::new();
    for (life, shards) in [1, 2, 1].into_iter().enumerate() {
        server.configure(&settings(shards))?;
        let mut process = server.start()?;
        run(async {
            let (mut admin, mut worker) = (server.peer("admin").await?, server.peer("worker").await?);
            worker.attach(100 + life as u128, "standard").await?;
            for number in 0..ROUNDS {
                let names: Vec<_> = (0..JOBS_PER_ROUND).map(|index| format!("job-{life}-{number}-{index}")).collect();
                round(disk, &mut admin, &mut worker, &names, &mut ledger).await?;
            }
            Ok(())
        })?;
        process.kill()?;
    }
    Ok(ledger)
}

/// What a node on `data` says of the jobs is what the ledger has at `moment`.
fn check(data: &Path, ledger: &Ledger, moment: usize) -> anyhow::Result<()> {
    let node = TestNode::start(data, &settings(1))?;
    run(async {
        let client = node.admin(data).await?;
        let found = client.list(JobFilter::default())?.collect().await?;
        let found: BTreeMap<_, _> = found.iter().map(|job| (job.definition.name.as_str(), job)).collect();
        let mut admin = Peer::open(node.connect_config(data, "admin", 0)?).await?;
        for (name, known) in ledger {
            let is_there = found.contains_key(name.as_str());
            ensure!(is_there || known.acknowledged > moment, "{name} was acknowledged and is gone: {known:?}");
            ensure!(!is_there || known.sent <= moment, "{name} is there before it was submitted: {known:?}");
            if let Some((_, head)) = known.completed.filter(|(completed, _)| *completed <= moment) {
                check_succeeded(&mut admin, &head, b"kept").await.with_context(|| format!("{name}: {known:?}"))?;
            }
        }
        let unknown = found.keys().find(|name| !ledger.contains_key(**name));
        ensure!(unknown.is_none(), "{unknown:?} was never submitted");
        admin.submit(9, &JobBuilder::new("after").tenant("default").handler("any").after(Duration::ZERO)).await?;
        admin.hear().await?.decode::<Submitted>()?;
        client.close().await;
        Ok(())
    })?;
    node.stop(Duration::ZERO)
}

/// Some moments just after an acknowledgement, and some between `first` and the end.
fn moments(disk: &Disk, ledger: &Ledger, first: usize) -> Vec<usize> {
    let told = ledger.values().flat_map(|known| [Some(known.acknowledged), known.completed.map(|(at, _)| at)]);
    let told: Vec<_> = told.flatten().collect();
    let span = disk.position() - first;
    let random = |salt: u64, below: usize| usize::try_from(mix(salt) % below as u64).expect("small");
    let mut moments: Vec<_> = (0..cuts())
        .map(|index| if index % 2 == 0 { told[random(index, told.len())] } else { first + random(index, span) })
        .collect();
    moments.sort_unstable();
    moments
}

/// Rebuilds the drive as it was left at `moment` and checks what a node makes of it.
fn check_moment(disk: &Disk, memory: &Path, ledger: &Ledger, moment: usize, is_torn: bool) -> anyhow::Result<()> {
    let (image, folder) = (memory.join("image"), memory.join("crashed"));
    let mut sector = mix(moment as u64);
    let keeps = || {
        sector = mix(sector);
        is_torn && sector.is_multiple_of(2)
    };
    write_image(&disk.crash(moment, keeps), &image)?;
    mount_image(&image, &folder)?;
    check(&folder.join("data"), ledger, moment)
        .with_context(|| format!("after {moment} steps of the drive, torn: {is_torn}"))?;
    unmount(&folder)
}

#[test]
fn a_loss_of_power_at_any_moment_loses_nothing_acknowledged() -> anyhow::Result<()> {
    server_binary()?;
    let folder = data_directory()?;
    with_own_mounts(|| {
        let Some(disk) = Disk::make(folder.path(), DISK_MIB)? else { return Ok(()) };
        disk.mount()?;
        let data: PathBuf = disk.data().join("data");
        fs::create_dir(&data)?;
        let server = Server::new(folder.path(), &data, &settings(1))?;
        // So far nobody has promised anything.
        disk.unmount()?;
        disk.mount()?;
        let first = disk.position();
        let ledger = record(&disk, &server)?;
        let memory = folder.path().join("memory");
        fs::create_dir(&memory)?;
        mount_memory(&memory, 2 * DISK_MIB)?;
        fs::create_dir(memory.join("crashed"))?;
        let moments = moments(&disk, &ledger, first);
        for moment in &moments {
            for is_torn in [false, true] {
                check_moment(&disk, &memory, &ledger, *moment, is_torn)?;
            }
        }
        println!("{} steps, {} jobs, {} losses of power", disk.position() - first, ledger.len(), 2 * moments.len());
        disk.unmount()
    })
}

//! What the machine can refuse a server: at its start, where it ends with one line, a remedy and an exit status of its own,
//! and leaves the data as it found it; and while it runs, when the disk is full.

use anyhow::{Context as _, ensure};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    net::UdpSocket,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tickwheel_client::{Client, JobBuilder, Lane, RefusalCode, RequestError, SubmitMode};
use tickwheel_tests::{
    PATIENCE, TestNode,
    bystander::Bystander,
    confine::{mount, mount_memory, with_own_mounts, without_io_uring},
    data_directory,
    peer::Peer,
    process::server_binary,
    run,
    server::check_succeeded,
};
use tickwheel_wire::frame::{
    request::Submitted,
    work::{Completed, Dispatch, DispatchHead, Outcome, Verdict},
};

const SETTINGS: &str = "[node]\nshards = 1\npartitions = 8\n[log]\nsegment_bytes = 4194304\n";
/// Longer than any start that is refused.
const START_SECONDS: &str = "40";

/// A folder with a data directory in which a server has run before.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let scene = Self::empty()?;
        scene.fill()?;
        Ok(scene)
    }

    /// The data directory exists, but no server has run in it.
    fn empty() -> anyhow::Result<Self> {
        let scene = Self { folder: data_directory()? };
        fs::create_dir(scene.data())?;
        fs::write(scene.config(), SETTINGS)?;
        Ok(scene)
    }

    /// Lets a server run on the data, and a client leave a job there.
    fn fill(&self) -> anyhow::Result<()> {
        let node = TestNode::start(&self.data(), SETTINGS)?;
        run(async {
            let client = node.admin(&self.data()).await?;
            let far = JobBuilder::new("kept").handler("any").every(Duration::from_secs(86_400));
            client.submit(&far, SubmitMode::Create).await?;
            client.close().await;
            Ok(())
        })?;
        node.stop(PATIENCE)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("tickwheel.toml")
    }

    /// A command that starts the real server on the data, behind the words of `wrapper`.
    fn server(&self, wrapper: &[&str], listen: &str) -> anyhow::Result<Command> {
        let mut words: Vec<OsString> = ["timeout", START_SECONDS].iter().chain(wrapper).map(Into::into).collect();
        words.extend([server_binary()?.into(), "server".into(), "--listen".into(), listen.into()]);
        words.extend(["--data".into(), self.data().into(), "--config".into(), self.config().into()]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        Ok(command)
    }

    /// A server runs again on the data, and everything is there.
    fn check_starts_again(&self) -> anyhow::Result<()> {
        let node = TestNode::start(&self.data(), SETTINGS)?;
        run(async {
            let client = node.admin(&self.data()).await?;
            client.get("kept").await?;
            client.close().await;
            Ok(())
        })?;
        node.stop(PATIENCE)
    }
}

/// Every file below `folder` with its contents.
fn contents(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.clone(), fs::read(path)?);
            }
        }
    }
    Ok(files)
}

/// The server ends with `status` and one line that holds every one of `words`.
fn check_refused(mut server: Command, status: i32, words: &[&str]) -> anyhow::Result<()> {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TICKWHEEL_") {
            server.env_remove(name);
        }
    }
    let output = server.output().context("the server was not started")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(status), "{} instead of status {status}: {err}", output.status);
    ensure!(out.is_empty() && err.lines().count() == 1, "more than one line: {out}{err}");
    for word in words {
        ensure!(err.contains(word), "{word:?} is not in {err}");
    }
    Ok(())
}

/// As [`check_refused`]; not a byte of the data is another afterwards, and the next server runs.
fn check_refused_without_a_trace(scene: &Scene, server: Command, status: i32, words: &[&str]) -> anyhow::Result<()> {
    let before = contents(&scene.data())?;
    check_refused(server, status, words)?;
    ensure!(contents(&scene.data())? == before, "the data was changed by a start that failed");
    Ok(())
}

/// Makes a file that leaves `left_bytes` of its file system free, more or less.
fn fill_disk(path: &Path, left_bytes: u64) -> anyhow::Result<()> {
    let mut filler = File::create(path)?;
    let zeroes = vec![0; 64 << 10];
    let mut written_bytes = 0;
    loop {
        match filler.write(&zeroes) {
            Ok(bytes) => written_bytes += bytes as u64,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filler.set_len(written_bytes.saturating_sub(left_bytes))?)
}

#[test]
fn a_port_in_use_is_told_with_the_address() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let taken = UdpSocket::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let server = scene.server(&[], &address)?;
    check_refused_without_a_trace(&scene, server, 14, &[&address, "--listen"])?;
    scene.check_starts_again()
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let data = scene.data();
    let server = scene.server(&[], "127.0.0.1:0")?;
    let node = TestNode::start(&data, SETTINGS)?;
    run(async {
        let bystander = Bystander::start(&node, &data).await?;
        let directory = format!("data directory {} is in use", data.display());
        tokio::task::spawn_blocking(move || check_refused(server, 12, &[&directory, "--data"])).await??;
        bystander.leave().await
    })?;
    node.stop(Duration::ZERO)?;
    scene.check_starts_again()
}

#[test]
fn denied_io_uring_is_told_with_its_remedy() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    // Built before the filter is there: compilers may want rings of their own.
    let server = scene.server(&[], "127.0.0.1:0")?;
    let words = ["io_uring", "kernel.io_uring_disabled=0"];
    without_io_uring(|| check_refused_without_a_trace(&scene, server, 15, &words))?;
    scene.check_starts_again()
}

#[test]
fn too_little_lockable_memory_is_told_with_its_remedy() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    // Root could raise the limit, and needs none, by two capabilities.
    let limited = ["prlimit", "--memlock=65536:65536"];
    let unprivileged = ["setpriv", "--bounding-set=-sys_resource,-ipc_lock"];
    let is_root = fs::metadata("/proc/self")?.uid() == 0;
    let wrapper = if is_root { [&limited[..], &unprivileged].concat() } else { limited.to_vec() };
    let works = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped: limits or capabilities cannot be lowered here");
        return Ok(());
    }
    let server = scene.server(&wrapper, "127.0.0.1:0")?;
    check_refused(server, 16, &["65536 bytes", "524288", "ulimit -l 512", "LimitMEMLOCK=512K"])?;
    scene.check_starts_again()
}

#[test]
fn a_read_only_data_directory_is_told_with_its_path() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    server_binary()?;
    with_own_mounts(|| {
        let data = scene.data().display().to_string();
        mount(&["--bind", &data, &data])?;
        mount(&["-o", "remount,bind,ro", &data])?;
        let server = scene.server(&[], "127.0.0.1:0")?;
        check_refused_without_a_trace(&scene, server, 11, &[&data, "Read-only", "--data"])
    })?;
    // Outside, it can be written.
    scene.check_starts_again()
}

#[test]
fn a_disk_that_is_full_at_the_start_is_told_with_what_is_needed() -> anyhow::Result<()> {
    let scene = Scene::empty()?;
    server_binary()?;
    with_own_mounts(|| {
        mount_memory(&scene.data(), 128)?;
        let words = ["no space left", "67108864 bytes", "--data"];
        let filler = scene.data().join("filler");
        // Nothing is left for a server that never ran.
        fill_disk(&filler, 0)?;
        check_refused(scene.server(&[], "127.0.0.1:0")?, 13, &words)?;
        fs::remove_file(&filler)?;
        scene.fill()?;
        for left_bytes in [0, 32 << 20] {
            fill_disk(&filler, left_bytes)?;
            check_refused_without_a_trace(&scene, scene.server(&[], "127.0.0.1:0")?, 13, &words)?;
            fs::remove_file(&filler)?;
        }
        scene.check_starts_again()
    })
}

/// A disk of a running node that is filled, and emptied again.
struct FullDisk {
    node: TestNode,
    data: PathBuf,
    filler: PathBuf,
}

impl FullDisk {
    fn payload_job(name: String) -> JobBuilder {
        JobBuilder::new(name).handler("any").payload(vec![7; 200 << 10]).every(Duration::from_secs(86_400))
    }

    /// Fills the disk, and the log until nothing is accepted any more; the names of what was.
    async fn fill(&self, client: &Client) -> anyhow::Result<Vec<String>> {
        fill_disk(&self.filler, 0)?;
        let mut accepted = Vec::new();
        loop {
            let name = format!("before-{}", accepted.len());
            match client.submit(&Self::payload_job(name.clone()), SubmitMode::Create).await {
                Ok(_) => accepted.push(name),
                Err(RequestError::Refused(refusal)) if refusal.code == RefusalCode::OutOfSpace => return Ok(accepted),
                Err(other) => return Err(other.into()),
            }
            ensure!(accepted.len() < 1_000, "200 MB were accepted by a disk that is full");
        }
    }

    /// Nothing fires for many intervals of the bystander's job.
    async fn check_silence(&self, admin: &mut Peer) -> anyhow::Result<()> {
        let fired = admin.counter("fired").await?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(400) {
            ensure!(admin.counter("fired").await? == fired, "something fired on a full disk");
        }
        Ok(())
    }

    /// Frees the space and submits until something is accepted; its name.
    async fn empty(&self, client: &Client) -> anyhow::Result<String> {
        fs::remove_file(&self.filler)?;
        loop {
            let name = "after".to_owned();
            match client.submit(&Self::payload_job(name.clone()), SubmitMode::Create).await {
                Ok(_) => return Ok(name),
                Err(RequestError::Refused(refusal)) if refusal.code == RefusalCode::OutOfSpace => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(other) => return Err(other.into()),
            }
        }
    }
}

/// A worker that holds attempts of as many jobs.
async fn hold(node: &TestNode, data: &Path, count: u64) -> anyhow::Result<(Peer, Vec<DispatchHead>)> {
    let mut worker = Peer::open(node.connect_config(data, "worker", 0)?).await?;
    worker.attach(7, "standard").await?;
    let mut admin = Peer::open(node.connect_config(data, "admin", 0)?).await?;
    let mut held = Vec::new();
    for index in 0..count {
        let job = JobBuilder::new(format!("held-{index}")).tenant("default").handler("any").after(Duration::ZERO);
        admin.submit(index, &job).await?;
        admin.hear().await?.decode::<Submitted>()?;
        held.push(worker.hear().await?.decode::<Dispatch<'_>>()?.head);
    }
    Ok((worker, held))
}

#[test]
fn a_disk_that_fills_up_refuses_what_is_new_takes_completions_and_recovers() -> anyhow::Result<()> {
    let scene = Scene::empty()?;
    with_own_mounts(|| {
        mount_memory(&scene.data(), 128)?;
        let data = scene.data();
        let node = TestNode::start(&data, SETTINGS)?;
        let disk = FullDisk { node, filler: data.join("filler"), data };
        let (names, held) = run(async {
            let client = disk.node.admin(&disk.data).await?;
            let mut admin = Peer::open(disk.node.connect_config(&disk.data, "admin", 0)?).await?;
            let (mut worker, held) = hold(&disk.node, &disk.data, 8).await?;
            let bystander = Bystander::start(&disk.node, &disk.data).await?;
            let mut names = disk.fill(&client).await?;
            disk.check_silence(&mut admin).await?;
            let paused = client.pause("bystander").await.expect_err("a command is something new");
            assert_eq!(paused.refusal_code(), Some(RefusalCode::OutOfSpace));
            client.get("bystander").await.context("queries are answered")?;
            for attempt in &held {
                worker.complete(Lane::P1, attempt, Outcome::Succeeded, b"held").await?;
                let completed: Completed = worker.hear().await?.decode()?;
                assert_eq!((completed.job, completed.verdict), (attempt.job, Verdict::Accepted));
            }
            disk.check_silence(&mut admin).await?;
            names.push(disk.empty(&client).await?);
            bystander.leave().await?;
            client.close().await;
            Ok((names, held))
        })?;
        let FullDisk { node, data, .. } = disk;
        node.stop(Duration::ZERO)?;
        let node = TestNode::start(&data, SETTINGS)?;
        run(async {
            let client = node.admin(&data).await?;
            for name in &names {
                client.get(name).await.with_context(|| format!("{name} was acknowledged and is gone"))?;
            }
            let mut admin = Peer::open(node.connect_config(&data, "admin", 0)?).await?;
            for attempt in &held {
                check_succeeded(&mut admin, attempt, b"held").await?;
            }
            client.close().await;
            Ok(())
        })?;
        node.stop(Duration::ZERO)
    })
}

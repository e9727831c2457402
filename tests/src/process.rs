//! Server and worker processes that tests start, kill and start again.

use crate::PATIENCE;
use anyhow::{Context as _, ensure};
use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A process that ends with the value.
pub struct Process(Child);

impl Process {
    /// Starts `program` with its output on the test's own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<Self> {
        Self::start_with(program, arguments, Stdio::inherit())
    }

    /// Starts `program`; what it says of errors goes to the file `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_logged(program: &Path, arguments: &[impl AsRef<OsStr>], log: &Path) -> anyhow::Result<Self> {
        Self::start_with(program, arguments, File::create(log)?.into())
    }

    fn start_with(program: &Path, arguments: &[impl AsRef<OsStr>], errors: Stdio) -> anyhow::Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .env("TICKWHEEL_LOG", "warn")
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self(child))
    }

    /// Waits until it has ended by itself, [`PATIENCE`] at most.
    ///
    /// # Errors
    /// When it does not end.
    pub fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            ensure!(started.elapsed() < PATIENCE, "the process does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it where it is (SIGSTOP), until [`Process::go_on`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it has ended.
    pub fn go_on(&mut self) -> anyhow::Result<()> {
        self.signal("CONT")
    }

    fn signal(&mut self, name: &str) -> anyhow::Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "the process has ended by itself: {ended:?}");
        let command = format!("kill -{name} {}", self.0.id());
        ensure!(Command::new("sh").args(["-c", &command]).status()?.success(), "no signal {name}");
        Ok(())
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "the process has ended by itself: {ended:?}");
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The `tickwheel` binary of this build, built now if it is missing or older than the sources. A test of the whole workspace has built
/// it before; a test of this package alone has not.
///
/// # Errors
/// When it cannot be built.
pub fn server_binary() -> anyhow::Result<&'static Path> {
    static BINARY: Mutex<Option<&'static Path>> = Mutex::new(None);
    let mut found = BINARY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(binary) = *found {
        return Ok(binary);
    }
    // Tests lie in TARGET/PROFILE/deps.
    let profile_folder = env::current_exe()?.ancestors().nth(2).context("a test lies in a target folder")?.to_owned();
    let binary = profile_folder.join("tickwheel");
    if !is_newer_than_sources(&binary)? {
        build(&profile_folder)?;
    }
    Ok(found.insert(Box::leak(binary.into_boxed_path())))
}

fn build(profile_folder: &Path) -> anyhow::Result<()> {
    let mut build = Command::new(env::var_os("CARGO").context("tests are run by cargo")?);
    build.args(["build", "--quiet", "--package", "tickwheel-server", "--bin", "tickwheel", "--target-dir"]);
    build.arg(profile_folder.parent().context("a profile lies in a target folder")?);
    if profile_folder.ends_with("release") {
        build.arg("--release");
    }
    ensure!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success(), "the server cannot be built");
    Ok(())
}

fn is_newer_than_sources(binary: &Path) -> anyhow::Result<bool> {
    let Ok(built) = fs::metadata(binary).and_then(|metadata| metadata.modified()) else { return Ok(false) };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<PathBuf> =
        ["wire", "engine", "net", "storage", "client", "server"].map(|name| root.join(name).join("src")).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.metadata()?.modified()? > built {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A port of the loopback from which on `count` UDP ports are free at the moment.
///
/// # Errors
/// When there is none.
pub fn free_ports(count: u16) -> anyhow::Result<u16> {
    for _ in 0..100 {
        let first = UdpSocket::bind("127.0.0.1:0")?;
        let port = first.local_addr()?.port();
        let rest: Result<Vec<_>, _> = (1..count).map(|offset| UdpSocket::bind(("127.0.0.1", port + offset))).collect();
        if rest.is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no {count} neighbouring ports are free")
}

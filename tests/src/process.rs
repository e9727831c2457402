//! Server and worker processes that tests start, kill and start again.

use anyhow::{Context as _, ensure};
use std::{
    env,
    ffi::OsStr,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

/// A process that ends with the value.
pub struct Process(Child);

impl Process {
    /// Starts `program` with its output on the test's own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .env("TICKWHEEL_LOG", "warn")
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self(child))
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

/// The `tickwheel` binary of this build, brought up to date.
///
/// # Errors
/// When it cannot be built.
pub fn server_binary() -> anyhow::Result<&'static Path> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(binary) = BINARY.get() {
        return Ok(binary);
    }
    // Tests lie in TARGET/PROFILE/deps.
    let profile_folder = env::current_exe()?.ancestors().nth(2).context("a test lies in a target folder")?.to_owned();
    let mut build = Command::new(env::var_os("CARGO").context("tests are run by cargo")?);
    build.args(["build", "--quiet", "--package", "tickwheel-server", "--bin", "tickwheel", "--target-dir"]);
    build.arg(profile_folder.parent().context("a profile lies in a target folder")?);
    if profile_folder.ends_with("release") {
        build.arg("--release");
    }
    ensure!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success(), "the server cannot be built");
    Ok(BINARY.get_or_init(|| profile_folder.join("tickwheel")))
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

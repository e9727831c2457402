//! A server of the run's own: fresh data, fresh certificates, free ports, killed in the end.
//!
//! Everything is done through the `tickwheel` command line, as a person would. The server's words go to `server.log` in the data folder.
//! Invariants: the process is gone and, unless it is to be kept, the folder is removed when [`Spawned`] goes out of scope. It is ended
//! by `SIGKILL`, which it must survive anyway; a drain is not what is measured.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs::{self, File, OpenOptions},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// How often free ports are looked for.
const PORT_TRIES: u32 = 100;
/// How much of the server's log an error shows, in bytes.
const LOG_TAIL_BYTES: usize = 2_000;

/// How to start it.
#[derive(Clone, Debug)]
pub(crate) struct SpawnPlan {
    /// The `tickwheel` binary; none: beside this process's own.
    pub binary: Option<PathBuf>,
    /// A configuration file.
    pub config: Option<PathBuf>,
    /// Where the data folder is made.
    pub parent: PathBuf,
    pub shards: u16,
    /// Tells this run's folder from others.
    pub run: u32,
    /// Whether the folder stays.
    pub keep: bool,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Spawned {
    plan: SpawnPlan,
    binary: PathBuf,
    data: PathBuf,
    listen: SocketAddr,
    child: Option<Child>,
}

impl Spawned {
    /// Makes folder and certificates and starts the process. It may not listen yet.
    ///
    /// # Errors
    /// When the binary is missing, or a command fails.
    pub fn start(plan: SpawnPlan) -> Result<Self> {
        let binary = binary(&plan)?;
        let data = plan.parent.join(format!("loadgen-{:08x}", plan.run));
        fs::create_dir_all(data.join("certs")).with_context(|| format!("cannot create {}", data.display()))?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports(plan.shards)?));
        let mut spawned = Self { plan, binary, data, listen, child: None };
        for arguments in
            [&["ca"][..], &["server"], &["admin"], &["worker", "--pool", tickwheel_wire::job::POOL_DEFAULT]]
        {
            spawned.make_certificate(arguments)?;
        }
        spawned.launch()?;
        Ok(spawned)
    }

    /// Kills it (`SIGKILL`) and waits for its end.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.check()?;
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again on the same data and ports.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        assert!(self.child.is_none(), "one process at a time holds the data");
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.binary);
        command.arg("server").arg("--data").arg(&self.data);
        command.arg("--listen").arg(self.listen.to_string());
        command.arg("--shards").arg(self.plan.shards.to_string());
        if let Some(config) = &self.plan.config {
            command.arg("--config").arg(config);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Fails if the process has ended by itself.
    ///
    /// # Errors
    /// With its exit status and the last lines of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            Some(status) => bail!("the server ended ({status}): {}", tail(&self.log())),
            None => Ok(()),
        }
    }

    /// Its process id, unless it was killed.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Address of its first shard.
    pub const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Folder of its certificates.
    pub fn certs(&self) -> PathBuf {
        self.data.join("certs")
    }

    fn log(&self) -> PathBuf {
        self.data.join("server.log")
    }

    fn make_certificate(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.binary)
            .arg("certs")
            .args(arguments)
            .arg("--out")
            .arg(self.certs())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`certs {}` failed: {}", arguments.join(" "), said.trim());
        Ok(())
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.plan.keep {
            eprintln!("tickwheel-loadgen: the data is kept in {}", self.data.display());
        } else if let Err(error) = fs::remove_dir_all(&self.data) {
            eprintln!("tickwheel-loadgen: cannot remove {}: {error}", self.data.display());
        }
    }
}

fn binary(plan: &SpawnPlan) -> Result<PathBuf> {
    let binary = match &plan.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe().context("where is this program?")?.with_file_name("tickwheel"),
    };
    ensure!(binary.is_file(), "there is no {}; build it, or name it with --server-bin", binary.display());
    Ok(binary)
}

/// A port that is free together with the `count - 1` that follow. Someone may still be faster; then the server says so.
fn free_ports(count: u16) -> Result<u16> {
    for _ in 0..PORT_TRIES {
        let first = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = first.local_addr()?.port();
        let Some(end) = port.checked_add(count) else { continue };
        let rest: Result<Vec<_>, _> =
            (port + 1..end).map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port))).collect();
        if rest.is_ok() {
            return Ok(port);
        }
    }
    bail!("no {count} free ports in a row")
}

/// The end of the log, or why there is none.
fn tail(log: &Path) -> String {
    match File::open(log).and_then(std::io::read_to_string) {
        Ok(text) => {
            let start = text.char_indices().map(|(at, _)| at).find(|at| text.len() - at <= LOG_TAIL_BYTES).unwrap_or(0);
            text[start..].trim().to_owned()
        }
        Err(error) => format!("{}: {error}", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_a_row_are_free() {
        let first = free_ports(3).unwrap();
        let sockets: Vec<_> = (first..first + 3).map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port))).collect();
        assert!(sockets.iter().all(Result::is_ok), "{sockets:?}");
    }

    #[test]
    fn a_missing_binary_is_named() {
        let plan = SpawnPlan {
            binary: Some("/nowhere/tickwheel".into()),
            config: None,
            parent: "/nowhere".into(),
            shards: 1,
            run: 1,
            keep: false,
        };
        assert!(Spawned::start(plan).unwrap_err().to_string().contains("/nowhere/tickwheel"));
    }
}

//! One command from its start to the end of its process group.
//!
//! The group's leader is watched through a process descriptor, which tells that it has ended without reaping it: until it is
//! reaped nobody else can get its number, so the group can be signalled safely. Commands start by `posix_spawn`, which copies no
//! page tables; only a change of user needs a fork.

use super::{CommandError, account::Account, capture::Capture, sys};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    future::Future,
    io,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::PathBuf,
    pin::{Pin, pin},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};
use tickwheel_client::StopReason;
use tickwheel_wire::limits::OUTPUT_BYTES_MAX;
use tokio::{
    io::unix::AsyncFd,
    net::unix::pipe::{Receiver, Sender},
    time::timeout,
};

/// How long the process group of a command that was asked to stop, or has ended, may go on before it is killed.
pub const GRACE: Duration = Duration::from_secs(5);

/// Bytes taken from the command's output at a time.
const READ_BYTES: usize = 8 << 10;
/// Room for the error in front of the output of a failed command.
const MESSAGE_BYTES: usize = 96;

/// All that is to be known for starting a command.
#[derive(Debug)]
pub(super) struct Plan {
    pub program: PathBuf,
    /// At least one; the first is what the program is told as its own name.
    pub argv: Vec<String>,
    /// All of its variables.
    pub env: BTreeMap<OsString, OsString>,
    pub dir: Option<PathBuf>,
    pub stdin: Vec<u8>,
    pub output_bytes_max: usize,
    /// Another user than the present one.
    pub switch_to: Option<Account>,
}

/// Runs a command to its end; see [`super::execute`].
pub(super) async fn run(plan: &Plan, stop: impl Future<Output = StopReason>) -> Result<Vec<u8>, CommandError> {
    let not_started = |source| CommandError::Spawn { program: plan.argv[0].clone(), source };
    let (group, pipes) = Group::start(plan).map_err(not_started)?;
    let mut capture = Capture::new(plan.output_bytes_max);
    let stopped = {
        let talk = pin!(pipes.talk(&plan.stdin, &mut capture));
        group.follow(talk, pin!(stop)).await.map_err(CommandError::Lost)?
    };
    let status = group.end().await.map_err(CommandError::Lost)?;
    conclude(stopped, status, capture)
}

/// A command that was stopped has not done its work, whatever its status says.
fn conclude(stopped: Option<StopReason>, status: ExitStatus, capture: Capture) -> Result<Vec<u8>, CommandError> {
    if stopped.is_none() && status.success() {
        return Ok(capture.render(OUTPUT_BYTES_MAX));
    }
    let output = capture.render(OUTPUT_BYTES_MAX - MESSAGE_BYTES);
    Err(match (stopped, status.code(), status.signal()) {
        (Some(reason), ..) => CommandError::Stopped { reason, output },
        (None, Some(code), _) => CommandError::ExitStatus { code, output },
        (None, None, signal) => CommandError::Signal { signal: signal.unwrap_or_default(), output },
    })
}

/// This side of a command's pipes.
struct Pipes {
    stdin: Option<Sender>,
    output: Receiver,
}

impl Pipes {
    /// Writes `input` to the command and takes what it writes, until both sides are done.
    async fn talk(self, input: &[u8], capture: &mut Capture) {
        tokio::join!(feed(self.stdin, input), drain(self.output, capture));
    }
}

/// Writes until everything is written or nobody reads any more; a command need not read its input.
async fn feed(stdin: Option<Sender>, mut input: &[u8]) {
    let Some(stdin) = stdin else { return };
    while !input.is_empty() && stdin.writable().await.is_ok() {
        match stdin.try_write(input) {
            Ok(count) => input = &input[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Reads until nobody can write any more.
async fn drain(output: Receiver, capture: &mut Capture) {
    let mut buffer = [0; READ_BYTES];
    while output.readable().await.is_ok() {
        match output.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => capture.push(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// A running command and everything that it has started, as far as it stayed in its process group.
struct Group {
    /// Not reaped before the group was killed; absent afterwards.
    leader: Option<Child>,
    /// Readable once the leader has ended.
    ended: Option<AsyncFd<OwnedFd>>,
}

impl Group {
    fn start(plan: &Plan) -> io::Result<(Self, Pipes)> {
        let (output, out) = io::pipe()?;
        let output = Receiver::from_owned_fd(output.into())?;
        let mut command = command(plan)?;
        command.stdout(out.try_clone()?).stderr(out);
        let stdin = if plan.stdin.is_empty() {
            command.stdin(Stdio::null());
            None
        } else {
            let (reader, writer) = io::pipe()?;
            command.stdin(reader);
            Some(Sender::from_owned_fd(writer.into())?)
        };
        let mut group = Self { leader: Some(command.spawn()?), ended: None };
        // This side's copies of the command's ends; with them open, the output would never end.
        drop(command);
        group.ended = Some(sys::process_descriptor(group.id())?);
        Ok((group, Pipes { stdin, output }))
    }

    fn id(&self) -> u32 {
        self.leader.as_ref().expect("only `end` takes the leader, and it takes the group").id()
    }

    /// Waits until the leader has ended and the talk is over, asking the group to stop when `stop` says so. After the leader's end
    /// or that question there are [`GRACE`] left.
    async fn follow(
        &self,
        mut talk: Pin<&mut impl Future<Output = ()>>,
        stop: Pin<&mut impl Future<Output = StopReason>>,
    ) -> io::Result<Option<StopReason>> {
        let mut talked = false;
        let mut stop = stop;
        let stopped = loop {
            tokio::select! {
                // A command that has ended was not stopped.
                biased;
                ended = self.ended() => break ended.map(|()| None)?,
                () = &mut talk, if !talked => talked = true,
                reason = &mut stop => break Some(reason),
            }
        };
        if stopped.is_some() {
            self.signal(libc::SIGTERM);
            // A command that was halted could not react otherwise.
            self.signal(libc::SIGCONT);
        }
        let rest = async {
            if !talked {
                talk.await;
            }
            self.ended().await
        };
        // What has not come to its end by itself is killed next.
        timeout(GRACE, rest).await.unwrap_or(Ok(()))?;
        Ok(stopped)
    }

    async fn ended(&self) -> io::Result<()> {
        let descriptor = self.ended.as_ref().expect("set at the start");
        descriptor.readable().await.map(drop)
    }

    /// Kills what is left of the group, waits for the leader's end and reaps it.
    async fn end(mut self) -> io::Result<ExitStatus> {
        self.signal(libc::SIGKILL);
        self.ended().await?;
        self.leader.take().expect("taken here only").wait()
    }

    fn signal(&self, signal: libc::c_int) {
        // The leader is there, as a zombie at least, so this fails only for a group of another user, which the leader's own
        // choice of user can bring about.
        if let Err(error) = sys::signal_group(self.id(), signal) {
            tracing::warn!(group = self.id(), signal, "cannot signal a command: {error}");
        }
    }
}

impl Drop for Group {
    /// Ends the group of a command that nobody waits for any more.
    fn drop(&mut self) {
        let Some(mut leader) = self.leader.take() else { return };
        // Nothing but a leader of another user makes this fail, and there is nobody left to tell.
        let _ = sys::signal_group(leader.id(), libc::SIGKILL);
        if !matches!(leader.try_wait(), Ok(Some(_))) {
            // Reaping may take a moment, and this may be a thread that must not wait. Without a thread, the process's end
            // reaps it.
            let _ = thread::Builder::new().name("tw-reaper".to_owned()).spawn(move || leader.wait());
        }
    }
}

fn command(plan: &Plan) -> io::Result<Command> {
    let mut command = Command::new(&plan.program);
    command.arg0(&plan.argv[0]).args(&plan.argv[1..]).env_clear().envs(&plan.env).process_group(0);
    match (&plan.switch_to, &plan.dir) {
        (Some(account), dir) => sys::become_user(&mut command, account, dir.as_ref().map(AsRef::as_ref))?,
        (None, Some(dir)) => drop(command.current_dir(dir)),
        (None, None) => {}
    }
    Ok(command)
}

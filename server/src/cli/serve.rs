//! `tickwheel dev` and `tickwheel server`: a node in this process, until a signal or a failure ends it.

use super::{
    args::{CERTS_DEFAULT, SERVER_DEFAULT, ServeArguments, ServerArguments},
    connection,
    error::CliError,
    output, signals, worker,
};
use crate::{
    certificates,
    command_worker::AllowList,
    config::{
        Configuration, Overrides, POOLS_BUILT_IN,
        file::{ConfigurationFile, FileError},
    },
    data_directory::DataDirectory,
    fatal::Fatal,
    jobs_file,
    node::Node,
};
use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};
use tickwheel_client::ConnectConfig;
use tokio::sync::oneshot;

/// Commands that the worker of `dev` runs at a time.
const DEV_CONCURRENCY: usize = 16;
/// How long `dev` waits for its worker after the server has ended.
const WORKER_END_TIMEOUT: Duration = Duration::from_secs(10);
/// The jobs file that comes with the source.
const EXAMPLE: &str = "examples/jobs.toml";

pub(super) fn server(arguments: &ServeArguments) -> Result<(), CliError> {
    let (configuration, directory) = open(arguments)?;
    let limit = configuration.drain();
    let node = Node::start(configuration, &directory)?;
    output::write(&started(&node, &directory))?;
    let control = node.control();
    signals::on_first(move || {
        tell_draining(limit);
        control.drain(limit);
    })?;
    Ok(node.join()?)
}

pub(super) fn dev(arguments: &ServeArguments) -> Result<(), CliError> {
    let (configuration, directory) = open(arguments)?;
    let folder = directory.certificates();
    certificates::ensure_local(&folder).map_err(|error| Fatal::Certificates(error.to_string()))?;
    let limit = configuration.drain();
    let node = Node::start(configuration, &directory)?;
    let server = reachable(node.addresses()[0]).to_string();
    let settings = connection::settings(&ServerArguments { server: server.clone(), certs: folder.clone() }, "worker")?;
    let local = LocalWorker::start(settings)?;
    let (stop, ended) = (local.stop, local.ended);
    output::write(&format!("{}{}", started(&node, &directory), next_steps(&server, &folder)))?;
    let control = node.control();
    signals::on_first(move || {
        tell_draining(limit);
        control.drain(limit);
        // The worker may have ended already.
        let _ = stop.send(());
    })?;
    let outcome = node.join();
    // Ended or not: what still runs has had the server's limit, and what was not acknowledged runs again after the next start.
    let _ = ended.recv_timeout(WORKER_END_TIMEOUT);
    Ok(outcome?)
}

fn open(arguments: &ServeArguments) -> Result<(Configuration, DataDirectory), Fatal> {
    let file = arguments.config.as_deref().map_or_else(|| Ok(ConfigurationFile::default()), read_file)?;
    let ServeArguments { data, listen, shards, .. } = arguments;
    let overrides = Overrides { data: data.clone(), listen: *listen, shards: *shards };
    let configuration = Configuration::resolve(file, overrides)?;
    let directory = DataDirectory::open(&configuration)?;
    Ok((configuration, directory))
}

fn read_file(path: &Path) -> Result<ConfigurationFile, Fatal> {
    let wrong = |problem: String| Fatal::Configuration(format!("{}{problem}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(format!(": {error}")))?;
    ConfigurationFile::parse(&text).map_err(|error| match error {
        FileError::Parse(error) => {
            let (line, problem) = jobs_file::located(&text, &error);
            wrong(format!(":{line}: {problem}"))
        }
        other => wrong(format!(": {other}")),
    })
}

fn tell_draining(limit: Duration) {
    let seconds = limit.as_secs();
    eprintln!("draining: nothing new is accepted, what runs has {seconds} s to end; a second signal ends at once");
}

/// An address that this machine can connect to, for one that is listened on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// What runs, and where its files lie.
fn started(node: &Node, directory: &DataDirectory) -> String {
    let addresses: Vec<_> = node.addresses().iter().map(SocketAddr::to_string).collect();
    let shards = if addresses.len() == 1 { "1 shard" } else { &format!("{} shards", addresses.len()) };
    format!(
        "Tickwheel {} is running: {shards} on UDP {}\n  data          {}\n  certificates  {}\n",
        env!("CARGO_PKG_VERSION"),
        addresses.join(", "),
        directory.path().display(),
        directory.certificates().display(),
    )
}

/// The rest of what `dev` says: its worker, and what to try.
fn next_steps(server: &str, certs: &Path) -> String {
    let program = program();
    let mut place = String::new();
    if server != SERVER_DEFAULT {
        place.push_str(&format!(" --server {server}"));
    }
    if certs != Path::new(CERTS_DEFAULT) {
        place.push_str(&format!(" --certs {}", quoted(&certs.to_string_lossy())));
    }
    let apply = if Path::new(EXAMPLE).exists() {
        format!("{program} job apply -f {EXAMPLE}{place}")
    } else {
        let job = r#"[[job]]\nname = "hello"\ncommand = ["date"]\nevery = "10s"\n"#;
        format!("printf '{job}' | {program} job apply -f -{place}")
    };
    format!(
        "  worker        any command that a job names, up to {DEV_CONCURRENCY} at a time, as this user; pools {}\n\n\
         Try next, in another terminal:\n  {apply}\n  {program} job list{place}\n  {program} execution list{place}\n\n\
         Ctrl-C drains and stops; a second one stops at once.\n",
        POOLS_BUILT_IN.join(", "),
    )
}

/// How this program was called.
fn program() -> String {
    if env::var_os("CARGO").is_some() {
        let profile = if cfg!(debug_assertions) { "" } else { "--release " };
        return format!("cargo run {profile}--");
    }
    env::args().next().map_or_else(|| "tickwheel".to_owned(), |program| quoted(&program))
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The worker of `dev`: a thread of this process with a runtime of its own.
struct LocalWorker {
    /// Asks it to drain and end.
    stop: oneshot::Sender<()>,
    /// Disconnected once it has ended.
    ended: mpsc::Receiver<()>,
}

impl LocalWorker {
    fn start(settings: ConnectConfig) -> Result<Self, CliError> {
        let (stop, stopped) = oneshot::channel();
        let (running, ended) = mpsc::channel();
        let body = move || {
            let config = worker::config(settings, Vec::new(), DEV_CONCURRENCY, AllowList::Any);
            if let Err(error) = worker::work(config, stopped) {
                let line = error.line().unwrap_or_default();
                tracing::error!("the local worker has ended, nothing is executed any more: {line}");
            }
            drop(running);
        };
        thread::Builder::new()
            .name("tw-worker".to_owned())
            .spawn(body)
            .map_err(|error| CliError::Failed(format!("no thread for the worker: {error}")))?;
        Ok(Self { stop, ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_an_address_that_it_can_reach() {
        for (listen, told) in
            [("0.0.0.0:7400", "127.0.0.1:7400"), ("[::]:7400", "[::1]:7400"), ("10.1.2.3:7400", "10.1.2.3:7400")]
        {
            assert_eq!(reachable(listen.parse().expect("an address")).to_string(), told);
        }
    }

    #[test]
    fn what_is_to_be_pasted_is_one_word() {
        assert_eq!(quoted("./target/release/tickwheel"), "./target/release/tickwheel");
        assert_eq!(quoted("/home/a b/it's"), r"'/home/a b/it'\''s'");
    }

    #[test]
    fn the_commands_to_try_name_what_is_not_the_default() {
        let text = next_steps("127.0.0.1:7400", Path::new(CERTS_DEFAULT));
        assert!(!text.contains("--server") && !text.contains("--certs"), "{text}");
        let text = next_steps("127.0.0.1:9999", Path::new("/data/x/certs"));
        let tried: Vec<_> =
            text.lines().filter(|line| line.contains(" job ") || line.contains(" execution ")).collect();
        assert!(tried.len() >= 3, "{text}");
        for line in tried.iter().filter(|line| line.contains("--server")) {
            assert!(line.ends_with("--server 127.0.0.1:9999 --certs /data/x/certs"), "{line}");
        }
    }
}

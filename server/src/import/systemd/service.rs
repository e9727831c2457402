//! The service of a timer: what it runs, as whom, how long, and how often it is tried again.
//!
//! A single command is run as it stands. Several (`ExecStartPre=`, `ExecStart=`, `ExecStartPost=`), and those whose failure does not count
//! (`-`), are joined through the shell. The command starts from the variables of the unit, not from the worker's, in `/`.
//!
//! Source: systemd.service(5), systemd.exec(5). Deliberately absent: sandboxes, limits, conditions, dependencies; services that leave
//! a process behind.

use super::{
    RefusedReason, span,
    unit::{Assignment, Problem, Unit},
    words::{self, Word},
};
use crate::{command_worker::CommandPayload, import::printed};
use std::{collections::BTreeMap, time::Duration};
use tickwheel_client::RetryPolicy;

const SERVICE: &str = "Service";
const UNIT: &str = "Unit";
/// Where systemd looks for programs.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
/// How many starts systemd allows in how long.
const START_LIMIT_DEFAULT: (u16, Duration) = (5, Duration::from_secs(10));
const RESTART_DELAY_DEFAULT: Duration = Duration::from_millis(100);
/// Most attempts that a job may have.
const ATTEMPTS_MAX: u16 = 1_000;
/// The keys whose commands are run, in this order.
const COMMANDS: [&str; 3] = ["ExecStartPre", "ExecStart", "ExecStartPost"];
/// Keys that are read, or say nothing about a run.
const KNOWN: &[&str] = &[
    "Type",
    "ExecStartPre",
    "ExecStart",
    "ExecStartPost",
    "Environment",
    "WorkingDirectory",
    "User",
    "Restart",
    "RestartSec",
    "TimeoutStartSec",
    "TimeoutSec",
    "RuntimeMaxSec",
    "StartLimitBurst",
    "StartLimitInterval",
    "StartLimitIntervalSec",
    "TimeoutStopSec",
    "StandardOutput",
    "StandardError",
    "SyslogIdentifier",
];
const KNOWN_OF_UNIT: &[&str] = &[
    "Description",
    "Documentation",
    "StartLimitBurst",
    "StartLimitInterval",
    "StartLimitIntervalSec",
    "DefaultDependencies",
];
/// Keys without which the command would not be the same.
const UNAVAILABLE: &[(&str, &str)] = &[
    ("EnvironmentFile", "what the file holds is not known here; write its variables as `Environment=`"),
    ("ExecCondition", "an execution begins whatever a condition says"),
    ("ExecStopPost", "nothing is run behind an execution that failed"),
    ("DynamicUser", "users are not made up here; name one with `User=`"),
    ("RootDirectory", "commands run in the worker's file system"),
    ("RootImage", "commands run in the worker's file system"),
    ("StandardInputText", "standard input stays empty"),
    ("StandardInputData", "standard input stays empty"),
];

/// What an execution runs, and by which rules.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub payload: CommandPayload,
    pub timeout: Option<Duration>,
    pub retry: RetryPolicy,
    pub notes: Vec<String>,
}

/// Reads the service called `name`.
pub(super) fn read(unit: &Unit, name: &str, start: &Assignment) -> Result<Run, Problem> {
    let mut reader = Reader { unit, name, notes: Vec::new() };
    reader.refuse_unavailable()?;
    let kind = unit.last(SERVICE, "Type").map_or("simple", |kind| kind.value.as_str());
    if kind == "forking" {
        return Err(unit.last(SERVICE, "Type").unwrap_or(start).problem(RefusedReason::Forking));
    }
    let env = reader.environment()?;
    let argv = reader.argv(&env, start)?;
    let payload = reader.payload(argv, env)?;
    let timeout = reader.timeout(kind == "oneshot")?;
    let retry = reader.retry()?;
    reader.ignored();
    Ok(Run { payload, timeout, retry, notes: reader.notes })
}

/// A command and whether its failure counts.
struct Command {
    argv: Vec<String>,
    may_fail: bool,
}

struct Reader<'a> {
    unit: &'a Unit,
    name: &'a str,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn last(&self, key: &'a str) -> Option<&'a Assignment> {
        self.unit.last(SERVICE, key)
    }

    fn refuse_unavailable(&self) -> Result<(), Problem> {
        for (key, why) in UNAVAILABLE {
            let found = self.unit.all(SERVICE, key).into_iter().find(|line| line.boolean() != Ok(false));
            if let Some(line) = found {
                return Err(line.problem(RefusedReason::Unavailable { key: (*key).to_owned(), why }));
            }
        }
        Ok(())
    }

    fn environment(&self) -> Result<BTreeMap<String, String>, Problem> {
        let mut env = BTreeMap::new();
        for line in self.unit.all(SERVICE, "Environment") {
            let at = |reason| line.problem(reason);
            for Word { text, .. } in words::split(&line.value).map_err(at)? {
                let text = words::specify(&text, self.name).map_err(at)?;
                let (name, value) =
                    text.split_once('=').ok_or_else(|| at(RefusedReason::Value { expected: "NAME=value" }))?;
                if !words::is_variable(name) {
                    return Err(at(RefusedReason::Value { expected: "NAME=value" }));
                }
                env.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(env)
    }

    /// One command as it stands, or several as one of the shell.
    fn argv(&mut self, env: &BTreeMap<String, String>, start: &Assignment) -> Result<Vec<String>, Problem> {
        if self.unit.all(SERVICE, "ExecStart").is_empty() {
            return Err(start.problem(RefusedReason::NoCommand { service: self.name.to_owned() }));
        }
        let mut commands = Vec::new();
        for key in COMMANDS {
            for line in self.unit.all(SERVICE, key) {
                commands.push(self.command(line, env)?);
            }
        }
        if let [Command { argv, may_fail: false }] = &commands[..] {
            return Ok(argv.clone());
        }
        let shell = |command: &Command| {
            let words: Vec<_> = command.argv.iter().map(|word| words::shell_quoted(word)).collect();
            if command.may_fail { format!("{{ {} || :; }}", words.join(" ")) } else { words.join(" ") }
        };
        let script = commands.iter().map(shell).collect::<Vec<_>>().join(" && ");
        let what = if commands.len() > 1 { "the commands are joined through" } else { "`-`: the command is run by" };
        self.note(format!("{what} `/bin/sh`, which the worker must allow"));
        Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), script])
    }

    fn command(&mut self, line: &Assignment, env: &BTreeMap<String, String>) -> Result<Command, Problem> {
        let at = |reason| line.problem(reason);
        let words = words::split(&line.value).map_err(at)?;
        if words.iter().any(|word| word.text == ";" && !word.is_quoted) {
            return Err(at(RefusedReason::Semicolon));
        }
        let mut words = words.into_iter().map(|word| word.text);
        let first = words.next().unwrap_or_default();
        let program = first.trim_start_matches(['-', '@', ':', '+', '!', '|']);
        let prefixes = &first[..first.len() - program.len()];
        let is_privileged = prefixes.contains(['+', '!']);
        if prefixes.contains('|') || (is_privileged && self.last("User").is_some()) {
            let prefix = prefixes.chars().find(|prefix| "+!|".contains(*prefix)).unwrap_or_default();
            return Err(at(RefusedReason::Prefix { prefix }));
        }
        let mut argv = vec![words::specify(program, self.name).map_err(at)?];
        if argv[0].is_empty() {
            return Err(at(RefusedReason::NoProgram));
        }
        if prefixes.contains('@') {
            let title = words.next().unwrap_or_default();
            self.note(format!("`@`: the command is not told that it is called `{title}`"));
        }
        for word in words {
            let word = words::specify(&word, self.name).map_err(at)?;
            if prefixes.contains(':') {
                argv.push(word);
            } else {
                argv.extend(words::expand(&word, env).map_err(at)?);
            }
        }
        Ok(Command { argv, may_fail: prefixes.contains('-') })
    }

    fn payload(&mut self, argv: Vec<String>, mut env: BTreeMap<String, String>) -> Result<CommandPayload, Problem> {
        env.entry("PATH".to_owned()).or_insert_with(|| PATH_DEFAULT.to_owned());
        let user = self.specified("User")?;
        if user.is_none() {
            self.note("without `User=` it runs as the worker's own user");
        }
        let mut dir = Some(self.specified("WorkingDirectory")?.unwrap_or_else(|| "/".to_owned()));
        if let Some(required) = dir.as_deref().and_then(|dir| dir.strip_prefix('-')) {
            self.note("`WorkingDirectory=-`: a folder that does not exist is an error here");
            dir = Some(required.to_owned());
        }
        // No folder is the user's own.
        let dir = dir.filter(|dir| dir != "~");
        Ok(CommandPayload { env, dir, user, clean_env: true, ..CommandPayload::new(argv) })
    }

    /// A value with its specifiers written out.
    fn specified(&self, key: &'a str) -> Result<Option<String>, Problem> {
        let Some(line) = self.last(key) else { return Ok(None) };
        words::specify(&line.value, self.name).map(Some).map_err(|reason| line.problem(reason))
    }

    /// The start of a oneshot is its run; what another service may take to start says nothing.
    fn timeout(&self, is_oneshot: bool) -> Result<Option<Duration>, Problem> {
        let keys: &[&str] = if is_oneshot { &["TimeoutSec", "TimeoutStartSec"] } else { &["RuntimeMaxSec"] };
        let lines = self.unit.section(SERVICE).filter(|line| keys.contains(&line.key.as_str()));
        let Some(line) = lines.last().filter(|line| !line.value.is_empty()) else { return Ok(None) };
        span::parse_limit(&line.value).ok_or_else(|| line.problem(RefusedReason::Value { expected: "a time span" }))
    }

    fn retry(&mut self) -> Result<RetryPolicy, Problem> {
        let once = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
        let Some(restart) = self.last("Restart") else { return Ok(once) };
        match restart.value.as_str() {
            "no" => return Ok(once),
            "on-failure" => {}
            "always" | "on-success" => return Err(restart.problem(RefusedReason::RunsForEver)),
            "on-abnormal" | "on-abort" | "on-watchdog" => {
                self.note(format!("`Restart={}`: a failed attempt is not repeated", restart.value));
                return Ok(once);
            }
            _ => return Err(restart.problem(RefusedReason::Value { expected: "a rule for restarts" })),
        }
        let delay = self.restart_span(&[(SERVICE, "RestartSec")])?.unwrap_or(RESTART_DELAY_DEFAULT);
        let within = self.restart_span(&[
            (UNIT, "StartLimitIntervalSec"),
            (UNIT, "StartLimitInterval"),
            (SERVICE, "StartLimitInterval"),
        ])?;
        let burst = self.unit.last(UNIT, "StartLimitBurst").or_else(|| self.last("StartLimitBurst"));
        let burst = match burst {
            Some(line) => {
                line.value.parse().map_err(|_| line.problem(RefusedReason::Value { expected: "a number" }))?
            }
            None => START_LIMIT_DEFAULT.0,
        };
        // A command that fails at once is started again until the limit holds, which slower starts never reach.
        let is_limited = burst > 0 && delay.saturating_mul(burst.into()) < within.unwrap_or(START_LIMIT_DEFAULT.1);
        if !is_limited {
            self.note(format!("`Restart=on-failure` would go on for ever; there are at most {ATTEMPTS_MAX} attempts"));
        }
        let delay_ms = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        Ok(RetryPolicy {
            attempts_max: if is_limited { burst.min(ATTEMPTS_MAX) } else { ATTEMPTS_MAX },
            initial_ms: delay_ms,
            delay_ms_max: delay_ms,
            multiplier_milli: 1_000,
            jitter_percent: 0,
        })
    }

    /// The span that the first of these keys has.
    fn restart_span(&self, keys: &[(&'a str, &'a str)]) -> Result<Option<Duration>, Problem> {
        let Some(line) = keys.iter().find_map(|(section, key)| self.unit.last(section, key)) else { return Ok(None) };
        let span =
            span::parse(&line.value).ok_or_else(|| line.problem(RefusedReason::Value { expected: "a time span" }));
        span.map(Some)
    }

    /// A note of the keys that have no effect.
    fn ignored(&mut self) {
        let unknown = |section: &'a str, known: &'static [&'static str]| {
            let lines = self.unit.section(section).filter(move |line| !known.contains(&line.key.as_str()));
            lines.filter(|line| !line.value.is_empty() && line.boolean() != Ok(false)).map(|line| line.key.as_str())
        };
        let mut keys: Vec<_> = unknown(SERVICE, KNOWN)
            .chain(unknown(UNIT, KNOWN_OF_UNIT))
            .filter(|key| UNAVAILABLE.iter().all(|(unavailable, _)| unavailable != key))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        if !keys.is_empty() {
            let has = if keys.len() == 1 { "has" } else { "have" };
            self.note(format!("{} {has} no effect here", printed::keys(&keys)));
        }
    }
}

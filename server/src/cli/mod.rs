//! The command line: arguments in, one answer or one error line out.
//!
//! `args` holds the raw arguments; each group of commands resolves its own. Answers go to the standard output, everything else to
//! the standard error. Exit status: 0, 1 (failed), 2 (wrong usage), and from 10 the fatal ends of a server
//! ([`crate::fatal::Fatal`]). Deliberately absent: decisions; what a command asks for is done by the server or by another module.

mod apply;
mod args;
mod backlog;
mod bulk;
mod calendar;
mod certs;
mod connection;
mod cron;
mod error;
mod execution;
mod export;
mod filter;
mod import;
mod job;
mod logging;
mod output;
mod plan;
mod serve;
mod signals;
mod source;
mod times;
mod views;
mod worker;

use args::{Arguments, Command};
use clap::{Parser as _, error::ErrorKind};
use error::CliError;
use std::process::ExitCode;

/// Runs the command that the process's arguments name, and says how the process is to exit.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_parsed(&error),
    };
    match execute(&arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(line) = error.line() {
                eprintln!("error: {}", output::printable(&line));
            }
            ExitCode::from(error.exit_status())
        }
    }
}

fn execute(command: &Command) -> Result<(), CliError> {
    let serves = matches!(command, Command::Dev(_) | Command::Server(_) | Command::Worker(_));
    logging::start(if serves { "info" } else { "warn" })?;
    match command {
        Command::Dev(arguments) => serve::dev(arguments),
        Command::Server(arguments) => serve::server(arguments),
        Command::Worker(arguments) => worker::run(arguments),
        Command::Job(command) => job::run(command),
        Command::Execution(command) => execution::run(command),
        Command::Calendar(command) => calendar::run(command),
        Command::Cron(command) => cron::run(command),
        Command::Certs(command) => certs::run(command),
    }
}

/// Help and version as the parser prints them; what is wrong, in one line.
fn not_parsed(error: &clap::Error) -> ExitCode {
    let whole = !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if whole {
        // When nobody can read the help, there is nothing left to do.
        let _ = error.print();
    } else {
        eprintln!("{}", usage_line(&error.render().to_string()));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The parser's message without the usage that follows it.
fn usage_line(message: &str) -> String {
    let end = ["\nUsage:", "\nFor more information"].iter().filter_map(|mark| message.find(mark)).min();
    let words: Vec<_> = message[..end.unwrap_or(message.len())].split_whitespace().collect();
    format!("{}; see --help", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_usage_is_one_line() {
        for (line, expected) in [
            (vec!["job", "get"], "error: the following required arguments were not provided: <NAME>; see --help"),
            (
                vec!["job", "list", "--output", "xml"],
                "error: invalid value 'xml' for '--output <FORM>' [possible values: table, json]; see --help",
            ),
        ] {
            let error = Arguments::try_parse_from(std::iter::once("tickwheel").chain(line)).expect_err("it is wrong");
            assert_eq!(usage_line(&error.render().to_string()), expected);
        }
    }
}

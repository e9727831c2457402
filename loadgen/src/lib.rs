//! Open-loop load generator: jobs that the server fires, workers that complete them at once, and a ledger of its own.
//!
//! The load is a set of schedules in the server, so what is due does not wait for what was slow: every latency counts from the time
//! that a firing was meant for, never from the time at which the generator got round to it ("coordinated omission", Gil Tene).
//! Phases are random, fixed by the seed. What was lost, run twice or fired early is judged by `ledger` alone, from what the
//! workers saw; the server's counters only explain firings that its policies skipped, and its cost.
//!
//! | module | what it holds |
//! |---|---|
//! | `arguments`, `plan` | the command line, and what follows from it: jobs, phases, intervals |
//! | `fleet`, `worker`, `cores` | threads with a runtime each, the hot loop of one connection, where the threads run |
//! | `ledger`, `tally` | what every job did, and the counts and histograms of one thread |
//! | `node`, `pipeline` | admin sessions: counters, and requests by the million |
//! | `spawned`, `process` | a server of its own, and what the system says of it |
//! | `run` | one file per profile |
//! | `report` | the JSON object |
//!
//! Deliberately absent: judgement. Budgets are compared by whoever reads the figures.

mod arguments;
mod clock;
mod cores;
mod fleet;
mod ledger;
mod node;
mod pipeline;
mod plan;
mod process;
mod progress;
mod report;
mod run;
mod spawned;
mod tally;
mod worker;

use clap::Parser as _;
use std::process::ExitCode;

/// Runs the load that the command line asks for. The exit status is 0 when every firing was accounted for, else 1; 2 for wrong usage.
pub fn main() -> ExitCode {
    match run::run(&arguments::Arguments::parse()) {
        Ok(clean) if clean => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tickwheel-loadgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

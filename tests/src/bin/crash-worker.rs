//! The victim of the crash test: a worker that writes down what it starts and what it has finished, until it is killed.
//!
//! Arguments: address, data directory, ledger file, and if wanted after how many milliseconds of silence it gives a session up. A line of the ledger is `start|end JOB SEQUENCE TOKEN`; each is one write, so a
//! kill cannot tear it.

use anyhow::Context as _;
use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tickwheel_client::{Attempt, ConnectConfig, Output, Worker};
use tickwheel_tests::credentials;

fn note(ledger: &File, word: &str, attempt: &Attempt) {
    let execution = attempt.execution();
    let line = format!("{word} {} {} {}\n", execution.job, execution.fire_sequence.0, attempt.token().0);
    (&*ledger).write_all(line.as_bytes()).expect("the ledger can be written");
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().context("an address")?;
    let data = PathBuf::from(arguments.next().context("a data directory")?);
    let ledger =
        Arc::new(OpenOptions::new().append(true).create(true).open(arguments.next().context("a ledger file")?)?);
    let mut config = ConnectConfig::new(address, credentials(&data, "worker")?);
    if let Some(idle_ms) = arguments.next() {
        config.idle_timeout = Duration::from_millis(idle_ms.parse()?);
        config.keep_alive = config.idle_timeout / 4;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let worker = Worker::builder(config)
            .pool("standard")
            .concurrency(32)
            .default_handler(move |attempt| {
                let ledger = Arc::clone(&ledger);
                async move {
                    note(&ledger, "start", &attempt);
                    tokio::time::sleep(Duration::from_millis(attempt.token().0 % 20)).await;
                    note(&ledger, "end", &attempt);
                    Ok(Output(Vec::new()))
                }
            })
            .build()?;
        Ok(worker.run(std::future::pending()).await?)
    })
}

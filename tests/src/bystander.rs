//! Someone who does nothing wrong, while others do: a worker whose one job fires again and again.
//!
//! It stands on raw sessions, which reconnect nothing and repeat nothing: a lost session, a firing that is missing, comes
//! twice or out of order, and a completion that is not accepted are errors.

use crate::{TestNode, peer::Peer};
use anyhow::{Context as _, bail, ensure};
use std::{path::Path, time::Duration};
use tickwheel_client::{JobBuilder, Lane};
use tickwheel_wire::frame::{
    FrameType,
    request::Submitted,
    work::{Completed, Dispatch, Outcome, Verdict},
};
use tokio::{sync::watch, task::JoinHandle};

/// A pool that it has for itself.
const POOL: &str = "spot";
/// How often its job fires.
const EVERY: Duration = Duration::from_millis(20);
/// Firings that must follow whatever it stood by.
const FIRINGS_AFTER: u64 = 3;

/// The bystander.
#[derive(Debug)]
pub struct Bystander {
    firings: watch::Receiver<u64>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Bystander {
    /// Starts on the first shard of `node` and waits until its job has fired twice.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn start(node: &TestNode, data: &Path) -> anyhow::Result<Self> {
        let mut worker = Peer::open(node.connect_config(data, "worker", 0)?).await?;
        worker.attach(0xB0B, POOL).await?;
        let mut admin = Peer::open(node.connect_config(data, "admin", 0)?).await?;
        let job = JobBuilder::new("bystander").tenant("default").handler("any").pool(POOL).every(EVERY);
        admin.submit(1, &job).await?;
        admin.hear().await?.decode::<Submitted>()?;
        let (sender, firings) = watch::channel(0);
        let task = tokio::spawn(work(worker, sender));
        let mut bystander = Self { firings, task };
        bystander.wait_for(2).await?;
        Ok(bystander)
    }

    /// Waits for some more firings and leaves; whatever it noticed is an error.
    ///
    /// # Errors
    /// What it noticed.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        let seen = *self.firings.borrow();
        self.wait_for(seen + FIRINGS_AFTER).await?;
        self.task.abort();
        Ok(())
    }

    async fn wait_for(&mut self, count: u64) -> anyhow::Result<()> {
        if self.firings.wait_for(|firings| *firings >= count).await.is_err() {
            (&mut self.task).await.context("the bystander panicked")??;
            bail!("the bystander ended by itself");
        }
        Ok(())
    }
}

async fn work(mut worker: Peer, firings: watch::Sender<u64>) -> anyhow::Result<()> {
    loop {
        let message = worker.hear().await.context("the bystander's session has ended")?;
        match message.frame_type {
            FrameType::Dispatch => {
                let dispatch: Dispatch<'_> = message.decode()?;
                let (sequence, expected) = (dispatch.head.fire_sequence.0, *firings.borrow() + 1);
                ensure!(
                    dispatch.head.attempt == 1 && sequence == expected,
                    "{dispatch:?} instead of firing {expected}"
                );
                worker.complete(message.lane, &dispatch.head, Outcome::Succeeded, b"").await?;
                firings.send_replace(sequence);
            }
            FrameType::Completed => {
                let completed: Completed = message.decode()?;
                ensure!(completed.verdict == Verdict::Accepted && message.lane == Lane::P1, "{completed:?}");
            }
            other => bail!("the bystander heard {other:?}"),
        }
    }
}

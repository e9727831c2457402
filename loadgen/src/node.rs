//! Admin sessions with every shard of the server: what they have counted, and where they are.
//!
//! Invariant: one request at a time per session; requests by the million have sessions of their own ([`crate::pipeline`]).

use anyhow::{Context as _, Result, bail};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tickwheel_client::{ConnectConfig, Dialer, FrameBatch, Lane, Session, ShardId, Topology};
use tickwheel_wire::frame::{
    Frame as _, FrameType,
    request::{Counters, ReadCounters},
    session::Refused,
};

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Counters that tell how things stand, not how often something happened.
const GAUGES: [&str; 3] = ["jobs", "executions_in_flight", "memory_bytes"];

/// What all shards have counted together, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// The count of this name, 0 if there is none.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What happened since `earlier`; gauges are taken as they stand now.
    pub fn since(&self, earlier: &Self) -> Self {
        let since = |(name, &count): (&String, &u64)| {
            let change =
                if GAUGES.contains(&name.as_str()) { count } else { count.saturating_sub(earlier.count(name)) };
            (name.clone(), change)
        };
        Self(self.0.iter().map(since).collect())
    }

    fn add(&mut self, counters: &Counters<'_>) -> Result<()> {
        for entry in counters.entries() {
            let (name, count) = entry?;
            *self.0.entry(name.to_owned()).or_default() += count;
        }
        Ok(())
    }

    /// All counts, for the report.
    pub fn into_inner(self) -> BTreeMap<String, u64> {
        self.0
    }
}

/// The server as an admin sees it.
#[derive(Debug)]
pub(crate) struct Node {
    dialer: Dialer,
    addresses: Vec<SocketAddr>,
    sessions: Vec<Session>,
    topology: Arc<Topology>,
}

impl Node {
    /// Opens a session with every shard.
    ///
    /// # Errors
    /// When one of them cannot be reached.
    pub async fn connect(config: &ConnectConfig) -> Result<Self> {
        let dialer = Dialer::new(config.clone())?;
        let mut found = tokio::net::lookup_host(&config.address)
            .await
            .with_context(|| format!("the address {} cannot be resolved", config.address))?;
        let host = found.next().with_context(|| format!("the name {} stands for no address", config.address))?;
        let first = dialer.open(host).await?;
        let topology = Arc::clone(first.topology());
        let (mut first, mut addresses, mut sessions) = (Some(first), Vec::new(), Vec::new());
        for shard in 0..topology.shard_count() {
            let port = topology.port(ShardId(shard)).expect("each shard has a port");
            let address = SocketAddr::new(host.ip(), port);
            addresses.push(address);
            let session = match first.take_if(|_| topology.shard == ShardId(shard)) {
                Some(first) => first,
                None => dialer.open(address).await.with_context(|| format!("shard {shard}"))?,
            };
            sessions.push(session);
        }
        Ok(Self { dialer, addresses, sessions, topology })
    }

    /// Address of each shard.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What the server told about itself.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// How many shards it has.
    pub fn shard_count(&self) -> u16 {
        self.topology.shard_count()
    }

    /// Opens another session with a shard.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn open(&self, shard: u16) -> Result<Session> {
        Ok(self.dialer.open(self.addresses[usize::from(shard)]).await?)
    }

    /// What all shards have counted together.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub async fn counts(&mut self) -> Result<Counts> {
        let mut question = Vec::new();
        ReadCounters { request_id: 1 }.encode(&mut question);
        for session in &mut self.sessions {
            session.send(Lane::Control, &question).await.context("the counters cannot be asked for")?;
        }
        let (mut counts, mut batch) = (Counts::default(), FrameBatch::new());
        for session in &mut self.sessions {
            tokio::time::timeout(ANSWER_MAX, read_counters(session, &mut batch, &mut counts))
                .await
                .context("the server does not answer")?
                .context("the counters cannot be read")?;
        }
        Ok(counts)
    }
}

async fn read_counters(session: &mut Session, batch: &mut FrameBatch, counts: &mut Counts) -> Result<()> {
    loop {
        session.receive(batch).await?;
        for frame in batch.frames() {
            match frame.frame_type {
                FrameType::Counters => return counts.add(&Counters::decode_body(frame.body)?),
                FrameType::Refused => bail!("the counters were refused: {}", Refused::decode_body(frame.body)?.message),
                // Nothing else was asked on this session.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(entries: &[(&str, u64)]) -> Counts {
        let mut bytes = Vec::new();
        for (name, count) in entries {
            Counters::push(&mut bytes, name, *count);
        }
        let mut counts = Counts::default();
        for shard in 0..2 {
            counts.add(&Counters { request_id: 1, shard, counters: &bytes }).unwrap();
        }
        counts
    }

    #[test]
    fn counts_of_shards_add_up_and_gauges_are_not_differences() {
        let (earlier, later) =
            (counts(&[("turns", 10), ("jobs", 3)]), counts(&[("turns", 25), ("jobs", 3), ("new", 1)]));
        let since = later.since(&earlier);
        assert_eq!([since.count("turns"), since.count("jobs"), since.count("new"), since.count("none")], [30, 6, 2, 0]);
    }
}

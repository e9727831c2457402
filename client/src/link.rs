//! What client and worker share below their protocols: sending without waiting, and finding the way to a shard.
//!
//! An [`Outbox`] is a bounded set of lane buffers that the owner fills without waiting; [`Outbox::drive`] writes them out, each
//! lane by itself, so that a full lane holds up no other. A [`Directory`] knows the node's topology as last heard and opens
//! sessions with the shard that is wanted.

use crate::{
    batch::{LANE_COUNT, Lane},
    error::{ConnectError, SessionError},
    session::{Dialer, Session, SessionSender},
    topology::Topology,
};
use quinn::{Connection, SendStream, VarInt};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tickwheel_wire::{ShardId, frame::Frame};
use tokio::sync::Notify;

/// Buffers above this are given back to the allocator once they are written.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

#[derive(Debug, Default)]
struct LaneBox {
    bytes: Mutex<Vec<u8>>,
    filled: Notify,
}

impl LaneBox {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        // Nothing that can panic runs under the lock, so a poisoned one still holds whole frames.
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drive(&self, mut stream: SendStream) -> Result<(), SessionError> {
        let mut writing = Vec::new();
        loop {
            std::mem::swap(&mut writing, &mut *self.lock());
            if writing.is_empty() {
                self.filled.notified().await;
                continue;
            }
            stream.write_all(&writing).await?;
            writing.clear();
            writing.shrink_to(BUFFER_BYTES_KEPT);
        }
    }
}

/// Frames on their way out of one session.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    lanes: [LaneBox; LANE_COUNT],
}

impl Outbox {
    /// Appends a frame. The owner keeps the bound: see [`Outbox::queued_bytes`].
    pub fn push<'a>(&self, lane: Lane, frame: &impl Frame<'a>) {
        let lane = &self.lanes[lane.index()];
        frame.encode(&mut lane.lock());
        lane.filled.notify_one();
    }

    /// Appends whole encoded frames.
    pub fn push_bytes(&self, lane: Lane, frames: &[u8]) {
        let lane = &self.lanes[lane.index()];
        lane.lock().extend_from_slice(frames);
        lane.filled.notify_one();
    }

    /// Bytes that wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.lock().len()).sum()
    }

    /// Writes out what is pushed, for as long as the future is polled. Ends only with the session.
    pub async fn drive(&self, lanes: [SendStream; LANE_COUNT]) -> SessionError {
        let [control, p0, p1, p2] = lanes;
        let [to_control, to_p0, to_p1, to_p2] = &self.lanes;
        let all = async {
            tokio::try_join!(to_control.drive(control), to_p0.drive(p0), to_p1.drive(p1), to_p2.drive(p2)).map(drop)
        };
        all.await.expect_err("a lane's writer ends only with an error")
    }
}

/// Closes the connection when it goes out of scope.
#[derive(Debug)]
pub(crate) struct CloseOnDrop(Connection);

impl CloseOnDrop {
    /// Takes the sending direction apart.
    pub fn split(sender: SessionSender) -> (Self, [SendStream; LANE_COUNT]) {
        let (connection, lanes) = sender.into_lanes();
        (Self(connection), lanes)
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(VarInt::from_u32(0), b"done");
    }
}

/// The way to the shards of a node.
#[derive(Debug)]
pub(crate) struct Directory {
    dialer: Dialer,
    known: Mutex<Option<Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    topology: Arc<Topology>,
    /// Where the session that told it was opened; the other shards have the same host.
    host: SocketAddr,
}

impl Directory {
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, known: Mutex::new(None) }
    }

    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The topology as last heard; none before the first session.
    pub fn topology(&self) -> Option<Arc<Topology>> {
        self.known().map(|known| known.topology)
    }

    fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a session with the shard that `wanted` picks; with another one if the node has no such shard any more.
    ///
    /// With `afresh` the topology as last heard is not trusted (the node may have come back with other shards): the configured
    /// address is asked first.
    pub async fn open(&self, wanted: impl Fn(&Topology) -> ShardId, afresh: bool) -> Result<Session, ConnectError> {
        if let Some((known, false)) = self.known().map(|known| (known, afresh))
            && let Some(port) = known.topology.port(wanted(&known.topology))
        {
            return self.dial(SocketAddr::new(known.host.ip(), port)).await;
        }
        let (session, host) = self.dial_configured().await?;
        let topology = session.topology();
        let shard = wanted(topology);
        match topology.port(shard) {
            Some(port) if shard != topology.shard => {
                session.close();
                self.dial(SocketAddr::new(host.ip(), port)).await
            }
            _ => Ok(session),
        }
    }

    /// Dials the configured address: each of the addresses that its name stands for, until one answers.
    async fn dial_configured(&self) -> Result<(Session, SocketAddr), ConnectError> {
        let address = &self.dialer.config().address;
        let unresolved = |source| ConnectError::Resolve { address: address.clone(), source };
        let mut failure = None;
        for candidate in tokio::net::lookup_host(address).await.map_err(unresolved)? {
            match self.dial(candidate).await {
                Ok(session) => return Ok((session, candidate)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| unresolved(std::io::Error::other("the name stands for no address"))))
    }

    async fn dial(&self, address: SocketAddr) -> Result<Session, ConnectError> {
        let session = self.dialer.open(address).await?;
        let known = Known { topology: Arc::clone(session.topology()), host: address };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(session)
    }
}

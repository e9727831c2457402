//! What reaches a shard core: frames of sessions here and elsewhere on the node, and the words of its siblings.

use super::Identity;
use crate::dispatcher::{LoanMessage, PoolSet};
use std::sync::Arc;
use tickwheel_wire::{InstanceId, SessionRef, ShardId};

/// One input of [`super::Shard::handle`].
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A frame of a session whose `Hello` was answered. It belongs here: it concerns a partition of this shard
    /// ([`tickwheel_wire::frame::request_head`], [`tickwheel_wire::frame::work_job`]), or it is `Attach` or `Capacity` and this is the
    /// session's own shard.
    Frame {
        /// Who sent it; may be a session of another shard.
        session: SessionRef,
        /// Who that is.
        identity: &'a Identity,
        /// The lane it came on, which the answer takes too.
        lane: u8,
        /// Type from the frame's header.
        frame_type: u16,
        /// The frame's body.
        body: &'a [u8],
    },
    /// A session of this shard has ended. The siblings are told by the core.
    SessionClosed {
        /// Which.
        session: SessionRef,
    },
    /// A session reads too slowly: what is queued for it is at its bound. Its watches end with a notice.
    SessionBacklogged {
        /// Which.
        session: SessionRef,
    },
    /// A sibling's message.
    Peer {
        /// The sibling.
        from: ShardId,
        /// What it says.
        message: PeerMessage,
    },
}

/// What shard cores of one node tell each other. Messages from one shard to another stay in order.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// About borrowed credit.
    Loan(LoanMessage),
    /// A worker has attached to the sender.
    WorkerUp(Arc<WorkerProfile>),
    /// A session of the sender has ended.
    SessionClosed(SessionRef),
    /// An execution of the sender runs on this worker of the receiver: it came back with it.
    Occupied(SessionRef),
    /// That execution has ended.
    Vacated(SessionRef),
}

/// A worker as every shard of its node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerProfile {
    /// Its session.
    pub session: SessionRef,
    /// Its instance.
    pub instance: InstanceId,
    /// Its name, from its certificate.
    pub name: Box<str>,
    /// The pools it serves.
    pub pools: PoolSet,
}

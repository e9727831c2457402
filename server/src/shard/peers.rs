//! What the shards of a node hand each other: frames that belong elsewhere, the cores' messages, and frames for a
//! session that lives elsewhere.
//!
//! Everything for one sibling in one turn travels in at most three envelopes over a bounded queue. A full queue refuses: then
//! envelopes wait here, and past `BACKLOG_MAX` of them frames of clients are refused, typed, at once. Answers and the
//! cores' messages are never refused: the requests and the credit behind them bound them.
//!
//! Invariant: what one shard tells another arrives in order, the cores' messages of a turn before its frames, so that a worker
//! is announced before it is heard.

use crate::runtime::queues::{Full, Port};
use std::{collections::VecDeque, mem, ops::Range, sync::Arc};
use tickwheel_engine::shard::{Identity, Output, PeerMessage};
use tickwheel_wire::{SessionRef, ShardId, planted::Mistake};

/// Envelopes that may wait for a full queue before frames are refused.
const BACKLOG_MAX: usize = 64;

/// One message between shards.
#[derive(Debug)]
pub enum Envelope {
    /// A core's message to its sibling.
    Core(PeerMessage),
    /// Frames of the sender's sessions that concern the receiver's partitions.
    Frames(FrameBatch),
    /// Frames for the receiver's sessions; what they tell is durable.
    Deliveries(Deliveries),
    /// A session of the sender reads too slowly: the receiver's watches for it end.
    Backlogged(SessionRef),
}

/// Frames on their way to the shard that owns their partition.
#[derive(Debug, Default)]
pub struct FrameBatch {
    frames: Vec<ForwardedFrame>,
    bytes: Vec<u8>,
}

/// Head of a forwarded frame.
#[derive(Debug)]
pub struct ForwardedFrame {
    /// Who sent it.
    pub session: SessionRef,
    /// Who that is.
    pub identity: Arc<Identity>,
    /// The lane it came on.
    pub lane: u8,
    /// Its type.
    pub frame_type: u16,
    range: Range<usize>,
}

impl FrameBatch {
    /// The frames in order, each with its body.
    pub fn iter(&self) -> impl Iterator<Item = (&ForwardedFrame, &[u8])> {
        self.frames.iter().map(|frame| (frame, &self.bytes[frame.range.clone()]))
    }
}

/// Frames for sessions of another shard.
#[derive(Debug, Default)]
pub struct Deliveries {
    outputs: Vec<Output>,
    bytes: Vec<u8>,
}

impl Deliveries {
    /// The outputs in order, each with its frames.
    pub fn iter(&self) -> impl Iterator<Item = (&Output, &[u8])> {
        self.outputs.iter().map(|output| (output, &self.bytes[output.range.clone()]))
    }
}

/// The queue to a sibling cannot take more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Congested;

/// One shard's side of the exchange.
#[derive(Debug)]
pub struct Peers {
    port: Port<Envelope>,
    outboxes: Vec<Outbox>,
}

#[derive(Debug, Default)]
struct Outbox {
    core: Vec<PeerMessage>,
    frames: FrameBatch,
    deliveries: Deliveries,
    backlog: VecDeque<Envelope>,
}

impl Peers {
    /// The exchange through `port`.
    pub fn new(port: Port<Envelope>) -> Self {
        let outboxes = (0..port.shard_count()).map(|_| Outbox::default()).collect();
        Self { port, outboxes }
    }

    /// Queues a core's message.
    pub fn tell(&mut self, to: ShardId, message: PeerMessage) {
        self.outboxes[usize::from(to.0)].core.push(message);
    }

    /// Queues a frame for the shard that owns its partition.
    ///
    /// # Errors
    /// When too much waits for that shard already.
    pub fn forward(
        &mut self,
        to: ShardId,
        session: SessionRef,
        identity: &Arc<Identity>,
        lane: u8,
        frame_type: u16,
        body: &[u8],
    ) -> Result<(), Congested> {
        let outbox = &mut self.outboxes[usize::from(to.0)];
        if outbox.backlog.len() >= BACKLOG_MAX {
            return Err(Congested);
        }
        let start = outbox.frames.bytes.len();
        outbox.frames.bytes.extend_from_slice(body);
        let range = start..outbox.frames.bytes.len();
        outbox.frames.frames.push(ForwardedFrame { session, identity: Arc::clone(identity), lane, frame_type, range });
        Ok(())
    }

    /// Queues frames for a session of another shard.
    pub fn deliver(&mut self, session: SessionRef, lane: u8, frames: &[u8]) {
        let deliveries = &mut self.outboxes[usize::from(session.shard.0)].deliveries;
        let start = deliveries.bytes.len();
        deliveries.bytes.extend_from_slice(frames);
        deliveries.outputs.push(Output { session, lane, range: start..deliveries.bytes.len() });
    }

    /// Tells every sibling that a session of this shard reads too slowly.
    pub fn tell_backlogged(&mut self, session: SessionRef) {
        let own = usize::from(session.shard.0);
        for (index, outbox) in self.outboxes.iter_mut().enumerate() {
            if index != own {
                outbox.backlog.push_back(Envelope::Backlogged(session));
            }
        }
    }

    /// The next envelope and its sender.
    pub fn receive(&mut self) -> Option<(ShardId, Envelope)> {
        self.port.try_receive()
    }

    /// Whether an envelope waits; may be asked right before a sleep.
    pub fn has_messages(&self) -> bool {
        self.port.has_messages()
    }

    /// Whether something waits for a queue that was full.
    pub fn has_backlog(&self) -> bool {
        self.outboxes.iter().any(|outbox| !outbox.backlog.is_empty())
    }

    /// Sends what the turn queued and wakes the receivers; how many system calls that took.
    pub fn flush(&mut self) -> u64 {
        for (index, outbox) in self.outboxes.iter_mut().enumerate() {
            let to = ShardId(u16::try_from(index).expect("shards are few"));
            outbox.seal();
            while let Some(envelope) = outbox.backlog.pop_front() {
                if let Err(Full(envelope)) = self.port.try_send(to, envelope) {
                    if !Mistake::FullQueueDrops.is_made() {
                        outbox.backlog.push_front(envelope);
                    }
                    break;
                }
            }
        }
        self.port.flush()
    }
}

impl Outbox {
    fn seal(&mut self) {
        self.backlog.extend(self.core.drain(..).map(Envelope::Core));
        if !self.frames.frames.is_empty() {
            self.backlog.push_back(Envelope::Frames(mem::take(&mut self.frames)));
        }
        if !self.deliveries.outputs.is_empty() {
            self.backlog.push_back(Envelope::Deliveries(mem::take(&mut self.deliveries)));
        }
    }
}

//! What a turn of the core produced: events to log, and frames to send once those events are durable.
//!
//! One [`Effects`] is reused turn after turn; in the steady state nothing in it allocates. The caller hands every section to the
//! log as one batch, and sends the outputs only when that batch, and every batch before it, is durable.

use crate::hashing::Map;
use std::ops::Range;
use tickwheel_wire::{PartitionId, SessionRef};

/// The events of one partition within one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// Sequence number of the first event; the events before it, from 1, are in earlier batches.
    pub first_sequence: u64,
    /// How many events.
    pub event_count: u32,
    /// Their bytes, one behind the other; see [`tickwheel_wire::event`].
    pub bytes: &'a [u8],
}

/// Frames for one lane of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The session, which may be another shard's.
    pub session: SessionRef,
    /// The lane: 0 control, 1 to 3 work of priority P0 to P2.
    pub lane: u8,
    /// Where the frames lie in [`Effects::bytes`].
    pub range: Range<usize>,
}

/// Collects the events of one partition during a turn.
#[derive(Debug, Default)]
pub struct EventBuffer {
    pub(crate) first_sequence: u64,
    pub(crate) event_count: u32,
    pub(crate) bytes: Vec<u8>,
    /// Whether it is among the buffers that the turn touched.
    is_touched: bool,
}

impl EventBuffer {
    /// The events' bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many events there are.
    pub const fn event_count(&self) -> u32 {
        self.event_count
    }

    /// Sequence number of the first event; meaningless when there is none.
    pub const fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// Forgets the events, keeps the memory.
    pub fn clear(&mut self) {
        self.event_count = 0;
        self.bytes.clear();
        self.is_touched = false;
    }
}

/// Everything that one turn produced.
#[derive(Debug, Default)]
pub struct Effects {
    buffers: Vec<EventBuffer>,
    touched: Vec<PartitionId>,
    outputs: Vec<Output>,
    bytes: Vec<u8>,
    /// Bytes of watched transitions per session in this turn.
    pub(super) watched: Map<SessionRef, usize>,
}

impl Effects {
    /// Without any effect.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything, keeps the memory. To be called once the caller has taken what it needs.
    pub fn clear(&mut self) {
        for partition in self.touched.drain(..) {
            self.buffers[usize::from(partition.0)].clear();
        }
        self.outputs.clear();
        self.bytes.clear();
        self.watched.clear();
    }

    /// Whether there is neither an event nor an output.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.sections().next().is_none()
    }

    /// The events by partition, in order of first touch.
    pub fn sections(&self) -> impl Iterator<Item = Section<'_>> + Clone {
        self.touched.iter().filter_map(|&partition| {
            let buffer = &self.buffers[usize::from(partition.0)];
            (buffer.event_count > 0).then_some(Section {
                partition,
                first_sequence: buffer.first_sequence,
                event_count: buffer.event_count,
                bytes: &buffer.bytes,
            })
        })
    }

    /// Bytes of events in all sections.
    pub fn event_bytes(&self) -> usize {
        self.sections().map(|section| section.bytes.len()).sum()
    }

    /// The frames to send, in order, once everything logged so far is durable.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// What the outputs' ranges lie in.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes outputs and their bytes out, giving emptied buffers in return, so that the caller can keep them until the
    /// batch is durable without copying.
    pub fn swap_outputs(&mut self, outputs: &mut Vec<Output>, bytes: &mut Vec<u8>) {
        outputs.clear();
        bytes.clear();
        std::mem::swap(&mut self.outputs, outputs);
        std::mem::swap(&mut self.bytes, bytes);
    }

    /// The buffer of `partition`'s events.
    #[inline]
    pub(crate) fn buffer(&mut self, partition: PartitionId) -> &mut EventBuffer {
        let index = usize::from(partition.0);
        if index >= self.buffers.len() {
            self.buffers.resize_with(index + 1, EventBuffer::default);
        }
        let buffer = &mut self.buffers[index];
        if !buffer.is_touched {
            buffer.is_touched = true;
            self.touched.push(partition);
        }
        buffer
    }

    /// Appends frames for a lane of a session: `encode` appends whole frames to the bytes given.
    #[inline]
    pub(crate) fn send(&mut self, session: SessionRef, lane: u8, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        encode(&mut self.bytes);
        let end = self.bytes.len();
        match self.outputs.last_mut() {
            Some(last) if last.session == session && last.lane == lane && last.range.end == start => {
                last.range.end = end;
            }
            _ => self.outputs.push(Output { session, lane, range: start..end }),
        }
    }
}

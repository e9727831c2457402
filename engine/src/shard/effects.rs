//! What a turn of the core produced: events to log, and frames to send once those events are durable.
//!
//! One [`Effects`] is reused turn after turn; in the steady state nothing in it allocates. The caller hands the sections of each
//! [`Batch`] to the log at once, and sends its outputs only when that batch, and every batch before it, is durable.
//!
//! A log takes no batch beyond its limit, so effects that grow long, because the log is busy or a turn did much, are split. A split
//! comes between two decisions, never within one: what belongs together becomes durable together.
//!
//! Invariant: a batch holds at most the bytes of events at which it is closed, and one decision more.

use crate::hashing::Map;
use std::{collections::VecDeque, mem, ops::Range};
use tickwheel_wire::{PartitionId, SessionRef};

/// Emptied batches kept for reuse.
const SPARE_MAX: usize = 4;

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
    /// Where the frames lie in [`Batch::bytes`].
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

/// What one commit of the log is to hold, and the outputs that wait for it.
#[derive(Debug, Default)]
pub struct Batch {
    buffers: Vec<EventBuffer>,
    touched: Vec<PartitionId>,
    outputs: Vec<Output>,
    bytes: Vec<u8>,
    /// The buffer that was granted last, and the bytes of events in all others.
    granted: usize,
    other_bytes: usize,
}

impl Batch {
    /// Whether there is neither an event nor an output.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.event_bytes() == 0
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
    #[inline]
    pub fn event_bytes(&self) -> usize {
        self.other_bytes + self.buffers.get(self.granted).map_or(0, |buffer| buffer.bytes.len())
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
        mem::swap(&mut self.outputs, outputs);
        mem::swap(&mut self.bytes, bytes);
    }

    fn clear(&mut self) {
        for partition in self.touched.drain(..) {
            self.buffers[usize::from(partition.0)].clear();
        }
        self.outputs.clear();
        self.bytes.clear();
        self.other_bytes = 0;
    }

    #[inline]
    fn buffer(&mut self, partition: PartitionId) -> &mut EventBuffer {
        let index = usize::from(partition.0);
        if index >= self.buffers.len() {
            self.buffers.resize_with(index + 1, EventBuffer::default);
        }
        if index != self.granted {
            self.other_bytes += self.buffers[self.granted].bytes.len();
            self.other_bytes -= self.buffers[index].bytes.len();
            self.granted = index;
        }
        let buffer = &mut self.buffers[index];
        if !buffer.is_touched {
            buffer.is_touched = true;
            self.touched.push(partition);
        }
        buffer
    }
}

/// Everything that was decided and not taken yet: batches, oldest first.
#[derive(Debug)]
pub struct Effects {
    /// Those that are closed; each holds events.
    closed: VecDeque<Batch>,
    closed_bytes: usize,
    open: Batch,
    spare: Vec<Batch>,
    batch_bytes: usize,
    /// Bytes of watched transitions per session since no batch was closed.
    pub(super) watched: Map<SessionRef, usize>,
}

impl Default for Effects {
    fn default() -> Self {
        Self::new()
    }
}

impl Effects {
    /// Without any effect, and in one batch however much it becomes.
    pub fn new() -> Self {
        Self::split_at(usize::MAX)
    }

    /// Without any effect; a batch is closed before the next decision once it has `batch_bytes` of events.
    pub fn split_at(batch_bytes: usize) -> Self {
        Self {
            closed: VecDeque::new(),
            closed_bytes: 0,
            open: Batch::default(),
            spare: Vec::new(),
            batch_bytes,
            watched: Map::default(),
        }
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        while !self.closed.is_empty() {
            self.drop_oldest();
        }
        self.drop_oldest();
    }

    /// Whether there is neither an event nor an output.
    pub fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.is_empty()
    }

    /// The batches, oldest first; the last one may be empty, or without events.
    pub fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.closed.iter().chain([&self.open])
    }

    /// The batch that the log has to take first.
    pub fn oldest(&self) -> &Batch {
        self.closed.front().unwrap_or(&self.open)
    }

    /// The same, to take its outputs.
    pub fn oldest_mut(&mut self) -> &mut Batch {
        self.closed.front_mut().unwrap_or(&mut self.open)
    }

    /// Forgets the oldest batch, keeps its memory. To be called once the caller has taken what it needs.
    pub fn drop_oldest(&mut self) {
        match self.closed.pop_front() {
            Some(mut batch) => {
                self.closed_bytes -= batch.event_bytes();
                batch.clear();
                if self.spare.len() < SPARE_MAX {
                    self.spare.push(batch);
                }
            }
            None => self.open.clear(),
        }
        if self.closed.is_empty() {
            self.watched.clear();
        }
    }

    /// Bytes of events in all batches.
    #[inline]
    pub fn event_bytes(&self) -> usize {
        self.closed_bytes + self.open.event_bytes()
    }

    /// How many commits the events take, batch by batch.
    pub fn commit_count(&self) -> usize {
        self.closed.len() + usize::from(self.open.event_bytes() > 0)
    }

    /// The buffer for one decision about `partition`.
    #[inline]
    pub(crate) fn buffer(&mut self, partition: PartitionId) -> &mut EventBuffer {
        if self.open.event_bytes() >= self.batch_bytes {
            self.close();
        }
        self.open.buffer(partition)
    }

    #[cold]
    fn close(&mut self) {
        let next = self.spare.pop().unwrap_or_default();
        let full = mem::replace(&mut self.open, next);
        self.closed_bytes += full.event_bytes();
        self.closed.push_back(full);
    }

    /// Bytes of the outputs in the open batch.
    pub(crate) fn output_bytes(&self) -> usize {
        self.open.bytes.len()
    }

    /// Appends frames for a lane of a session: `encode` appends whole frames to the bytes given.
    #[inline]
    pub(crate) fn send(&mut self, session: SessionRef, lane: u8, encode: impl FnOnce(&mut Vec<u8>)) {
        let Batch { outputs, bytes, .. } = &mut self.open;
        let start = bytes.len();
        encode(bytes);
        let end = bytes.len();
        match outputs.last_mut() {
            Some(last) if last.session == session && last.lane == lane && last.range.end == start => {
                last.range.end = end;
            }
            _ => outputs.push(Output { session, lane, range: start..end }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickwheel_wire::{SessionId, ShardId};

    /// Notes a decision of so many bytes about a partition, and tells somebody.
    fn decide(effects: &mut Effects, partition: u16, sequence: u64, length: usize) {
        let buffer = effects.buffer(PartitionId(partition));
        if buffer.event_count == 0 {
            buffer.first_sequence = sequence;
        }
        buffer.event_count += 1;
        buffer.bytes.extend(std::iter::repeat_n(7, length));
        let session = SessionRef { shard: ShardId(0), session: SessionId(1) };
        effects.send(session, 0, |out| out.push(u8::try_from(sequence).expect("few")));
    }

    #[test]
    fn a_batch_is_closed_before_the_decision_after_its_limit() {
        let mut effects = Effects::split_at(100);
        for (partition, sequence, length) in [(0, 1, 60), (3, 1, 39), (0, 2, 500), (0, 3, 1), (3, 2, 100), (5, 1, 0)] {
            decide(&mut effects, partition, sequence, length);
        }
        assert_eq!((effects.event_bytes(), effects.commit_count()), (700, 2));
        let sections: Vec<Vec<_>> = effects
            .batches()
            .map(|batch| {
                batch
                    .sections()
                    .map(|section| (section.partition.0, section.first_sequence, section.event_count))
                    .collect()
            })
            .collect();
        assert_eq!(sections, [vec![(0, 1, 2), (3, 1, 1)], vec![(0, 3, 1), (3, 2, 1)], vec![(5, 1, 1)]]);
        let mut told = Vec::new();
        while !effects.is_empty() {
            told.push((effects.oldest().event_bytes(), effects.oldest().bytes().to_vec()));
            effects.drop_oldest();
        }
        assert_eq!(told, [(599, vec![1, 1, 2]), (101, vec![3, 2]), (0, vec![1])]);
        assert_eq!((effects.event_bytes(), effects.commit_count()), (0, 0));
    }

    #[test]
    fn a_batch_in_use_again_holds_nothing_of_before() {
        let mut effects = Effects::split_at(10);
        for round in 1..20 {
            for partition in 0..3 {
                decide(&mut effects, partition, round, 10);
            }
            assert_eq!((effects.event_bytes(), effects.commit_count()), (30, 3));
            effects.clear();
            assert!(effects.is_empty() && effects.batches().count() == 1);
        }
    }
}

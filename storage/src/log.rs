//! The log of one shard incarnation on files: appends batches as blocks to pre-zeroed segments, several in flight.
//!
//! Life of a segment: prepared ahead by the device's helper, opened when the one before has no room for the next block, closed once
//! full, removed once the snapshots of all its partitions cover it.
//!
//! Invariants:
//! - The durable prefix is contiguous: a block counts only when all before it do.
//! - Blocks of one stream never overlap and never cross segments.
//! - Segments are removed one at a time, oldest first, and only while the next one is closed and durable too. So the first segment
//!   that recovery finds is either segment 0 or begins with a block that was durable, and none is missing in between.
//! - The reserve (segments that are ready but kept back) is opened only when the disk is known to be full.
//! - After the first failed write or preparation nothing is submitted any more: the failure stays.
//! - Memory: at most `in_flight_max` buffers, each at most `batch_bytes_max`; appending does not allocate once they have grown.
//!
//! Deliberately absent: a clock. Who knows the time calls [`Log::retry_space`] about once a second while the disk is full.
//! Segments are not reused: removing one and zeroing another doubles the bytes written, but keeps old blocks from ever being met again.

use crate::{
    Admission, AlignedBuffer, AppendError, CommitLog, CommitSequence, Completion, Device, DeviceError, Durability,
    FileId, LogError, OpId, Section, Task, align_up,
    block::{self, BlockHeader},
    layout,
    segment::{BLOCKS_FROM, SegmentHeader},
};
use std::{collections::VecDeque, sync::Arc};
use tickwheel_wire::{PartitionCount, PartitionId, StreamId, planted::Mistake};

/// Buffers start at this size, so that the usual batches of a lightly loaded shard never make them grow.
const BUFFER_BYTES_MIN: usize = 64 << 10;

/// How a log is laid out and bounded. The defaults are those of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Length of a segment, a multiple of 4096. Default 64 MiB.
    pub segment_bytes: u64,
    /// The most that one batch may take on disk; fits a segment. Default 4 MiB.
    pub batch_bytes_max: usize,
    /// How many commits may be in flight, 1 or more. Default 4.
    pub in_flight_max: usize,
    /// Segments kept ready for ordinary use, 1 or more. Default 1.
    pub ahead_segments: usize,
    /// Segments kept ready for a full disk, besides. Default 1.
    pub reserve_segments: usize,
    /// Starts the CRC of every block, so that no payload can pass for one: random, and never shown to users.
    pub salt: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            batch_bytes_max: 4 << 20,
            in_flight_max: 4,
            ahead_segments: 1,
            reserve_segments: 1,
            salt: 0,
        }
    }
}

impl LogOptions {
    fn check(&self) {
        let room = self.segment_bytes.checked_sub(BLOCKS_FROM).expect("a segment holds its header");
        assert!(self.segment_bytes.is_multiple_of(BLOCKS_FROM), "segments are aligned");
        assert!(align_up(self.batch_bytes_max) as u64 <= room, "a batch fits a segment");
        assert!(u32::try_from(self.batch_bytes_max).is_ok(), "a batch is below 4 GiB");
        assert!(self.batch_bytes_max >= block::HEADER_BYTES, "an empty batch fits");
        assert!(self.in_flight_max >= 1 && self.ahead_segments >= 1, "a log makes progress");
    }
}

/// Whether the log has room to take on new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceState {
    /// The disk is not known to be full.
    Ample,
    /// The disk is full: only [`Admission::Reserve`] is served, within what is left.
    Reserve {
        /// Bytes left in prepared segments.
        left_bytes: u64,
    },
    /// The same, and what is left holds two of the longest batches at most: room for what has been decided already, but for nothing more.
    UsedUp,
}

/// A log stream on files. See the module.
#[derive(Debug)]
pub struct Log<D> {
    device: D,
    options: LogOptions,
    stream: StreamId,
    partitions: Vec<PartitionState>,
    current: Option<CurrentSegment>,
    ready: VecDeque<ReadySegment>,
    closed: VecDeque<ClosedSegment>,
    next_segment_index: u64,
    preparing: Option<OpId>,
    removing: Option<OpId>,
    /// The commits after `durable`, in order; `true` once done.
    in_flight: VecDeque<(OpId, bool)>,
    durable: u64,
    predecessor: u32,
    pool: Vec<AlignedBuffer>,
    completions: Vec<Completion>,
    is_space_out: bool,
    failure: Option<LogError>,
}

/// What the log knows of a partition; all zero for one that it does not hold.
#[derive(Clone, Copy, Debug, Default)]
struct PartitionState {
    /// The sequence that its next section must start with.
    next_sequence: u64,
    /// Its last event in the current segment; 0 if it has none there.
    last_in_current: u64,
    /// The newest durable snapshot.
    snapshot_sequence: u64,
}

#[derive(Debug)]
struct ReadySegment {
    file: FileId,
    index: u64,
}

#[derive(Debug)]
struct CurrentSegment {
    file: FileId,
    index: u64,
    offset: u64,
}

#[derive(Debug)]
struct ClosedSegment {
    /// Open until the last block is durable.
    file: Option<FileId>,
    index: u64,
    last_block: u64,
    /// The last event of each partition that has any here.
    last_sequences: Vec<(PartitionId, u64)>,
}

impl<D: Device> Log<D> {
    /// Begins the log of `stream`, whose directory exists and is empty. `partitions` are those that it will hold, each with the
    /// sequence of its last event so far (0 if it has none). Segments are being prepared on return; see [`is_ready`](Self::is_ready).
    ///
    /// Costs 96 KiB besides its buffers.
    ///
    /// # Panics
    /// If `options` are out of their ranges.
    pub fn create(device: D, stream: StreamId, partitions: &[(PartitionId, u64)], options: LogOptions) -> Self {
        options.check();
        let mut states = vec![PartitionState::default(); usize::from(PartitionCount::MAX)];
        for (partition, last_sequence) in partitions {
            states[usize::from(partition.0)].next_sequence = last_sequence + 1;
        }
        let mut log = Self {
            device,
            options,
            stream,
            partitions: states,
            current: None,
            ready: VecDeque::with_capacity(options.ahead_segments + options.reserve_segments),
            closed: VecDeque::new(),
            next_segment_index: 0,
            preparing: None,
            removing: None,
            in_flight: VecDeque::with_capacity(options.in_flight_max),
            durable: 0,
            predecessor: 0,
            pool: Vec::with_capacity(options.in_flight_max),
            completions: Vec::new(),
            is_space_out: false,
            failure: None,
        };
        log.prepare_ahead();
        log
    }

    /// Whether the first append can be served. Until then `append` answers [`AppendError::Full`], or
    /// [`AppendError::OutOfSpace`] when the disk is full from the start.
    pub fn is_ready(&self) -> bool {
        self.current.is_some() || self.ready.len() > self.options.reserve_segments
    }

    /// Whether new work should be refused. Judge by this before deciding anything that must be logged.
    pub fn space_state(&self) -> SpaceState {
        if !self.is_space_out || self.ready.len() > self.options.reserve_segments {
            return SpaceState::Ample;
        }
        let ready_bytes = self.ready.len() as u64 * (self.options.segment_bytes - BLOCKS_FROM);
        let left_bytes = ready_bytes + self.current_room_bytes();
        if left_bytes > 2 * self.options.batch_bytes_max as u64 {
            SpaceState::Reserve { left_bytes }
        } else {
            SpaceState::UsedUp
        }
    }

    /// Tries again to prepare a segment after the disk was full. Does nothing otherwise.
    pub fn retry_space(&mut self) {
        if self.is_space_out && self.failure.is_none() {
            self.submit_prepare();
        }
    }

    /// Tells that a snapshot of `partition` up to and including event `sequence` is durable: log that all its partitions'
    /// snapshots cover is removed by later polls.
    pub fn snapshot_taken(&mut self, partition: PartitionId, sequence: u64) {
        let state = &mut self.partitions[usize::from(partition.0)];
        state.snapshot_sequence = state.snapshot_sequence.max(sequence);
    }

    /// The stream.
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    /// How many commits are in flight: appended, but not yet in the durable prefix.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    /// How many bytes of log are on disk, full and current segments together.
    pub fn retained_bytes(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |segment| segment.offset);
        self.closed.len() as u64 * self.options.segment_bytes + current
    }

    /// The device, for what only it knows (a wake-up descriptor, counters).
    pub const fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    fn current_room_bytes(&self) -> u64 {
        self.current.as_ref().map_or(0, |segment| self.options.segment_bytes - segment.offset)
    }

    /// Makes the current segment one with room for `bytes`.
    fn make_room(&mut self, bytes: u64, admission: Admission) -> Result<(), AppendError> {
        if admission == Admission::Ordinary && self.space_state() != SpaceState::Ample {
            return Err(AppendError::OutOfSpace);
        }
        if self.current_room_bytes() >= bytes {
            return Ok(());
        }
        let kept_back = if self.is_space_out { 0 } else { self.options.reserve_segments };
        if self.ready.len() <= kept_back {
            return Err(if self.is_space_out { AppendError::OutOfSpace } else { AppendError::Full });
        }
        let next = self.ready.pop_front().expect("more are ready than are kept back");
        let opened = CurrentSegment { file: next.file, index: next.index, offset: BLOCKS_FROM };
        if let Some(full) = self.current.replace(opened) {
            self.close_segment(&full);
        }
        self.prepare_ahead();
        Ok(())
    }

    fn close_segment(&mut self, full: &CurrentSegment) {
        let mut last_sequences = Vec::new();
        for (partition, state) in (0u16..).zip(&mut self.partitions) {
            if state.last_in_current != 0 {
                last_sequences.push((PartitionId(partition), state.last_in_current));
                state.last_in_current = 0;
            }
        }
        let last_block = self.durable + self.in_flight.len() as u64;
        self.closed.push_back(ClosedSegment { file: Some(full.file), index: full.index, last_block, last_sequences });
    }

    /// Starts the next preparation, if one is needed and none runs.
    fn prepare_ahead(&mut self) {
        let wanted = self.options.ahead_segments + self.options.reserve_segments;
        if !self.is_space_out && self.ready.len() < wanted {
            self.submit_prepare();
        }
    }

    fn submit_prepare(&mut self) {
        if self.preparing.is_some() {
            return;
        }
        let index = self.next_segment_index;
        let LogOptions { salt, segment_bytes, .. } = self.options;
        let batch_bytes_max = u32::try_from(self.options.batch_bytes_max).expect("checked at the start");
        let head = SegmentHeader { salt, stream: self.stream, index, segment_bytes, batch_bytes_max }.encode();
        let task = Task::Prepare { path: layout::segment(self.stream, index), bytes: segment_bytes, head };
        self.preparing = Some(self.device.submit_task(task));
    }

    fn complete(&mut self, completion: Completion) {
        if let Some(buffer) = completion.buffer {
            assert!(self.pool.len() < self.options.in_flight_max, "a buffer returns once");
            self.pool.push(buffer);
        }
        if self.preparing == Some(completion.op) {
            self.preparing = None;
            self.prepared(completion.result);
            return;
        }
        if let Err(source) = completion.result {
            self.fail(source);
            return;
        }
        if self.removing == Some(completion.op) {
            self.removing = None;
            self.retry_space();
            return;
        }
        let commit = self.in_flight.iter_mut().find(|(op, _)| *op == completion.op);
        commit.expect("every other operation is a commit").1 = true;
    }

    fn prepared(&mut self, result: Result<Option<FileId>, DeviceError>) {
        match result {
            Ok(file) => {
                let file = file.expect("a preparation opens its file");
                self.ready.push_back(ReadySegment { file, index: self.next_segment_index });
                self.next_segment_index += 1;
                self.is_space_out = false;
            }
            Err(error) if error.is_out_of_space() => self.is_space_out = true,
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, source: DeviceError) {
        let error = LogError::Device { stream: self.stream, source: Arc::new(source) };
        self.failure.get_or_insert(error);
    }

    /// Moves the durable prefix over what is done, and what depends on it.
    fn advance(&mut self) {
        while self.in_flight.front().is_some_and(|(_, is_done)| *is_done) {
            self.in_flight.pop_front();
            self.durable += 1;
        }
        let device = &mut self.device;
        for segment in &mut self.closed {
            if segment.last_block <= self.durable
                && let Some(file) = segment.file.take()
            {
                device.close(file);
            }
        }
        self.remove_covered();
        self.prepare_ahead();
    }

    fn remove_covered(&mut self) {
        let (Some(oldest), Some(next)) = (self.closed.front(), self.closed.get(1)) else { return };
        let is_covered = |(partition, last): &(PartitionId, u64)| {
            self.partitions[usize::from(partition.0)].snapshot_sequence >= *last
        };
        let all_covered = if Mistake::LogTrimmedTooFar.is_made() {
            oldest.last_sequences.iter().any(is_covered)
        } else {
            oldest.last_sequences.iter().all(is_covered)
        };
        let is_removable = next.file.is_none() && all_covered;
        if self.removing.is_none() && is_removable {
            let path = layout::segment(self.stream, oldest.index);
            self.removing = Some(self.device.submit_task(Task::Remove { path }));
            self.closed.pop_front();
        }
    }

    /// An empty buffer with room for `bytes`, from the pool if one is large enough.
    fn take_buffer(&mut self, bytes: usize) -> AlignedBuffer {
        if let Some(at) = self.pool.iter().position(|buffer| buffer.capacity() >= bytes) {
            let mut buffer = self.pool.swap_remove(at);
            buffer.clear();
            return buffer;
        }
        // Replacing a small one keeps their number bounded.
        self.pool.pop();
        let generous = bytes.max(BUFFER_BYTES_MIN).next_power_of_two();
        AlignedBuffer::with_capacity(generous.min(self.options.batch_bytes_max).max(bytes))
    }

    /// Checks that `section` continues its partition and takes note of it.
    fn account(&mut self, section: &Section<'_>) {
        let state = &mut self.partitions[usize::from(section.partition.0)];
        assert!(section.event_count > 0, "a section holds events");
        assert_eq!(
            section.first_sequence, state.next_sequence,
            "a section continues its partition {} in this log",
            section.partition.0
        );
        state.last_in_current = section.last_sequence();
        state.next_sequence = state.last_in_current + 1;
    }
}

impl<D: Device> CommitLog for Log<D> {
    fn append<'a, B>(&mut self, batch: B, admission: Admission) -> Result<CommitSequence, AppendError>
    where
        B: IntoIterator<Item = Section<'a>>,
        B::IntoIter: Clone,
    {
        if let Some(error) = &self.failure {
            return Err(error.clone().into());
        }
        let sections = batch.into_iter();
        let (bytes, bytes_max) = (block::encoded_bytes(sections.clone()), self.options.batch_bytes_max);
        if bytes > bytes_max {
            return Err(AppendError::TooLarge { bytes, bytes_max });
        }
        if self.in_flight.len() == self.options.in_flight_max {
            return Err(AppendError::Full);
        }
        self.make_room(align_up(bytes) as u64, admission)?;
        sections.clone().for_each(|section| self.account(&section));
        let sequence = self.durable + self.in_flight.len() as u64 + 1;
        let header = BlockHeader {
            crc: 0,
            length_bytes: 0,
            section_count: 0,
            stream: self.stream,
            sequence,
            durable: self.durable,
            predecessor: self.predecessor,
        };
        let mut buffer = self.take_buffer(bytes);
        self.predecessor = block::encode(&mut buffer, &header, self.options.salt, sections);
        let segment = self.current.as_mut().expect("room was made");
        let offset = segment.offset;
        segment.offset += buffer.len() as u64;
        let durability = if Mistake::WriteNotSynced.is_made() { Durability::Unsynced } else { Durability::Synced };
        let op = self.device.submit_write(segment.file, offset, buffer, durability);
        self.in_flight.push_back((op, false));
        Ok(CommitSequence(sequence))
    }

    fn poll(&mut self) -> Result<CommitSequence, LogError> {
        let mut completions = std::mem::take(&mut self.completions);
        self.device.poll(&mut completions);
        completions.drain(..).for_each(|completion| self.complete(completion));
        self.completions = completions;
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        self.advance();
        if Mistake::AcknowledgedBeforeSync.is_made() {
            return Ok(CommitSequence(self.durable + self.in_flight.len() as u64));
        }
        if Mistake::AcknowledgedOutOfOrder.is_made() {
            let newest_done = self.in_flight.iter().rposition(|(_, is_done)| *is_done);
            return Ok(CommitSequence(self.durable + newest_done.map_or(0, |place| place as u64 + 1)));
        }
        Ok(CommitSequence(self.durable))
    }
}

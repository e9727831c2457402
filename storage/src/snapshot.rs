//! A snapshot: the whole state of one partition after its event `sequence`, as opaque chunks that the engine made.
//!
//! ```text
//!  0  [u8; 8]  magic "TWSNAP\0\0"
//!  8  u32      format version
//! 12  u16      partition
//! 14  u16      zero
//! 16  u64      sequence: the last event that the state contains
//! 24  u32      CRC-32C of bytes 0 .. 24
//! 28  u32      zero
//! 32           frames, each padded with zeroes to a multiple of 16
//! ```
//! A frame:
//! ```text
//!  0  u32  CRC-32C of bytes 4 .. 16 + length
//!  4  u32  length of the payload
//!  8  u32  index of the frame, from 0
//! 12  u32  kind: 1 a chunk; 2 the footer, which ends the file but for zeroes
//! 16       payload; of the footer: u64 number of chunks, u64 their bytes, u64 digest of the state
//! ```
//!
//! Invariants: a snapshot is built under a temporary name and appears under its own only when all of it is durable, so one that
//! cannot be read is damage. It is complete only with its footer. It must not be finished before the log holds
//! event `sequence` durably.
//!
//! Deliberately absent: what the chunks hold, and when to take a snapshot (`snapshot_policy.rs`).

use crate::{
    AlignedBuffer, Completion, Damage, Device, DeviceError, Durability, FileId, RecoverError, Task, layout,
    window::Window,
};
use std::path::PathBuf;
use tickwheel_wire::{DecodeError, PartitionId, Reader, Writer};

/// The format of snapshots that this version writes and reads.
pub const SNAPSHOT_VERSION: u32 = 1;
/// The longest chunk.
pub const CHUNK_BYTES_MAX: usize = 64 << 20;
const MAGIC: [u8; 8] = *b"TWSNAP\0\0";
const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 16;
const FRAME_ALIGNMENT: usize = 16;
const CHUNK: u32 = 1;
const FOOTER: u32 = 2;
/// Length of one write.
const WRITE_BYTES: usize = 1 << 20;
/// Writes in flight above which no more chunks are taken.
const IN_FLIGHT_MAX: usize = 4;

/// The chunk was not taken: too many writes are in flight, or the file is not open yet. Try again after a `poll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot writer is busy")]
pub struct SnapshotBusy;

/// A snapshot could not be written. What there was of it is gone and the one before is untouched.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the snapshot of partition {} at event {sequence}: {source}", partition.0)]
pub struct SnapshotError {
    /// The partition.
    pub partition: PartitionId,
    /// The last event that the state contains.
    pub sequence: u64,
    /// The first failure.
    pub source: DeviceError,
}

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotProgress {
    /// None is being written.
    Idle,
    /// One is being written.
    Writing,
    /// One has just become durable; said once, and the writer is idle again.
    Published {
        /// The partition.
        partition: PartitionId,
        /// The last event that the state contains.
        sequence: u64,
    },
}

/// Writes snapshots, one at a time, without ever blocking: `begin`, `push_chunk` any number of times, `finish`; `poll` between.
///
/// Costs about 5 MiB and the largest chunk while it writes. Has a device of its own, so that the log's turn never meets its completions.
#[derive(Debug)]
pub struct SnapshotWriter<D> {
    device: D,
    work: Option<Work>,
    pool: Vec<AlignedBuffer>,
    completions: Vec<Completion>,
}

#[derive(Debug)]
struct Work {
    partition: PartitionId,
    sequence: u64,
    path: PathBuf,
    stage: Stage,
    buffer: AlignedBuffer,
    offset: u64,
    in_flight_count: usize,
    chunk_count: u32,
    total_bytes: u64,
    is_finished: bool,
    failure: Option<DeviceError>,
}

/// At most one task is under way, so a completion without a buffer is that of the stage.
#[derive(Debug)]
enum Stage {
    Creating,
    Open(FileId),
    Publishing,
    /// Nothing is open; the temporary file may still be there.
    Failed,
    Removing,
    /// Nothing is open and nothing is left over.
    Over,
}

impl<D: Device> SnapshotWriter<D> {
    /// A writer over `device`, which it has to itself.
    pub const fn new(device: D) -> Self {
        Self { device, work: None, pool: Vec::new(), completions: Vec::new() }
    }

    /// Starts the snapshot of `partition` after its event `sequence`. Its directory exists.
    ///
    /// # Panics
    /// If one is being written.
    pub fn begin(&mut self, partition: PartitionId, sequence: u64) {
        assert!(self.work.is_none(), "one snapshot at a time");
        let path = layout::snapshot(partition, sequence);
        self.device.submit_task(Task::Create { path: layout::temporary(&path) });
        let mut buffer = AlignedBuffer::with_capacity(WRITE_BYTES);
        buffer.extend_from_slice(&encode_header(partition, sequence));
        self.work = Some(Work {
            partition,
            sequence,
            path,
            stage: Stage::Creating,
            buffer,
            offset: 0,
            in_flight_count: 0,
            chunk_count: 0,
            total_bytes: 0,
            is_finished: false,
            failure: None,
        });
    }

    /// Whether the next [`push_chunk`](Self::push_chunk) will be taken.
    pub fn can_push(&self) -> bool {
        self.work.as_ref().is_some_and(|work| {
            let is_open = matches!(work.stage, Stage::Open(_)) && work.in_flight_count < IN_FLIGHT_MAX;
            !work.is_finished && (is_open || work.failure.is_some())
        })
    }

    /// Adds a chunk of the state. After a failure, chunks are taken and dropped until `poll` has reported it.
    ///
    /// # Errors
    /// [`SnapshotBusy`]: nothing was taken.
    ///
    /// # Panics
    /// If the chunk is longer than [`CHUNK_BYTES_MAX`].
    pub fn push_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotBusy> {
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "chunks are slices of a state");
        if !self.can_push() {
            return Err(SnapshotBusy);
        }
        let work = self.work.as_mut().expect("a chunk can be pushed");
        let index = work.chunk_count;
        work.chunk_count += 1;
        work.total_bytes += chunk.len() as u64;
        self.write_frame(index, CHUNK, chunk);
        Ok(())
    }

    /// Ends the snapshot; `digest` is that of the state. Call it only once event `sequence` is durable in the log.
    ///
    /// # Errors
    /// [`SnapshotBusy`]: try again after a `poll`.
    pub fn finish(&mut self, digest: u64) -> Result<(), SnapshotBusy> {
        if !self.can_push() {
            return Err(SnapshotBusy);
        }
        let work = self.work.as_ref().expect("it can be finished");
        let mut footer = Vec::with_capacity(24);
        Writer::new(&mut footer).u64(u64::from(work.chunk_count)).u64(work.total_bytes).u64(digest);
        self.write_frame(work.chunk_count, FOOTER, &footer);
        self.submit_buffer();
        self.work.as_mut().expect("it was there above").is_finished = true;
        Ok(())
    }

    /// Moves the snapshot forward.
    ///
    /// # Errors
    /// [`SnapshotError`], once; the writer is idle again then.
    pub fn poll(&mut self) -> Result<SnapshotProgress, SnapshotError> {
        let mut completions = std::mem::take(&mut self.completions);
        self.device.poll(&mut completions);
        completions.drain(..).for_each(|completion| self.complete(completion));
        self.completions = completions;
        self.advance()
    }

    /// The device, for what only it knows (a wake-up descriptor, counters).
    pub const fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    fn write_frame(&mut self, index: u32, kind: u32, payload: &[u8]) {
        let mut covered = Vec::with_capacity(FRAME_HEADER_BYTES);
        let length = u32::try_from(payload.len()).expect("chunks are bounded");
        Writer::new(&mut covered).u32(length).u32(index).u32(kind);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&covered), payload);
        self.write(&crc.to_le_bytes());
        self.write(&covered);
        self.write(payload);
        self.write(&[0; FRAME_ALIGNMENT][..payload.len().next_multiple_of(FRAME_ALIGNMENT) - payload.len()]);
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let buffer = &mut self.work.as_mut().expect("a snapshot is being written").buffer;
            let (head, rest) = bytes.split_at(bytes.len().min(buffer.remaining()));
            buffer.extend_from_slice(head);
            bytes = rest;
            if buffer.remaining() == 0 {
                self.submit_buffer();
            }
        }
    }

    /// Sends what is buffered on its way, padded.
    fn submit_buffer(&mut self) {
        let work = self.work.as_mut().expect("a snapshot is being written");
        let Stage::Open(file) = work.stage else { return work.buffer.clear() };
        if work.failure.is_some() || work.buffer.is_empty() {
            return work.buffer.clear();
        }
        let mut next = self.pool.pop().unwrap_or_else(|| AlignedBuffer::with_capacity(WRITE_BYTES));
        next.clear();
        let mut full = std::mem::replace(&mut work.buffer, next);
        full.pad();
        let (offset, length) = (work.offset, full.len() as u64);
        self.device.submit_write(file, offset, full, Durability::Unsynced);
        work.offset += length;
        work.in_flight_count += 1;
    }

    fn complete(&mut self, completion: Completion) {
        let work = self.work.as_mut().expect("an operation belongs to a snapshot");
        if let Some(buffer) = completion.buffer {
            work.in_flight_count -= 1;
            if self.pool.len() < IN_FLIGHT_MAX {
                self.pool.push(buffer);
            }
            if let Err(error) = completion.result {
                work.failure.get_or_insert(error);
            }
            return;
        }
        work.stage = match (&work.stage, completion.result) {
            (Stage::Creating, Ok(file)) => Stage::Open(file.expect("a creation opens its file")),
            // The removal of what is left over is tried once; recovery removes it otherwise.
            (Stage::Publishing, Ok(_)) | (Stage::Removing, _) => Stage::Over,
            (_, result) => {
                work.failure = result.err();
                Stage::Failed
            }
        };
    }

    fn advance(&mut self) -> Result<SnapshotProgress, SnapshotError> {
        let Some(work) = &mut self.work else { return Ok(SnapshotProgress::Idle) };
        if work.in_flight_count > 0 {
            return Ok(SnapshotProgress::Writing);
        }
        let temporary = layout::temporary(&work.path);
        match work.stage {
            Stage::Open(file) if work.failure.is_some() => {
                self.device.close(file);
                self.device.submit_task(Task::Remove { path: temporary });
                work.stage = Stage::Removing;
            }
            Stage::Failed => {
                self.device.submit_task(Task::Remove { path: temporary });
                work.stage = Stage::Removing;
            }
            Stage::Open(file) if work.is_finished => {
                let task = Task::Publish { file, from: temporary, to: work.path.clone() };
                self.device.submit_task(task);
                work.stage = Stage::Publishing;
            }
            Stage::Over => return self.end(),
            _ => {}
        }
        Ok(SnapshotProgress::Writing)
    }

    fn end(&mut self) -> Result<SnapshotProgress, SnapshotError> {
        let Work { partition, sequence, failure, .. } = self.work.take().expect("a snapshot is being written");
        match failure {
            None => Ok(SnapshotProgress::Published { partition, sequence }),
            Some(source) => Err(SnapshotError { partition, sequence, source }),
        }
    }
}

fn encode_header(partition: PartitionId, sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    let mut writer = Writer::new(&mut bytes);
    writer.raw(&MAGIC).u32(SNAPSHOT_VERSION).u16(partition.0).u16(0).u64(sequence);
    let crc = crc32c::crc32c(&bytes);
    Writer::new(&mut bytes).u32(crc).u32(0);
    bytes
}

/// Why a snapshot could not be read into `E`'s sink.
pub enum ReadFault<E> {
    Recover(RecoverError),
    Sink(E),
}

/// A snapshot file being read, frame by frame.
pub struct SnapshotReader<'d, D> {
    device: &'d mut D,
    window: Window,
    offset: u64,
    index: u32,
    total_bytes: u64,
}

impl<'d, D: Device> SnapshotReader<'d, D> {
    /// Opens the snapshot of `partition` at `sequence` and checks its header.
    pub fn open(device: &'d mut D, partition: PartitionId, sequence: u64) -> Result<Self, RecoverError> {
        let window = Window::open(device, layout::snapshot(partition, sequence))?;
        let mut reader = Self { device, window, offset: 0, index: 0, total_bytes: 0 };
        let header = reader.window.bytes(reader.device, 0, HEADER_BYTES)?;
        match header_version(header) {
            Some(version) if version > SNAPSHOT_VERSION => {
                let path = reader.window.path().to_owned();
                return Err(RecoverError::Version { path, found: version, supported: SNAPSHOT_VERSION });
            }
            _ if header != encode_header(partition, sequence) => return Err(reader.damaged()),
            _ => reader.offset = HEADER_BYTES as u64,
        }
        Ok(reader)
    }

    /// Hands every chunk to `sink` and returns the digest of the footer. What the sink was given counts only then.
    pub fn read<E>(mut self, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<u64, ReadFault<E>> {
        let result = loop {
            match self.next_frame(&mut sink) {
                Ok(None) => {}
                Ok(Some(digest)) => break Ok(digest),
                Err(fault) => break Err(fault),
            }
        };
        self.window.close(self.device);
        result
    }

    /// Reads one frame; returns the digest if it was the footer. Ends because every frame moves the offset towards the file's end.
    fn next_frame<E>(&mut self, sink: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<Option<u64>, ReadFault<E>> {
        let (length, index, kind, is_intact) = self.frame().map_err(ReadFault::Recover)?;
        if !is_intact || index != self.index {
            return Err(ReadFault::Recover(self.damaged()));
        }
        let payload_at = self.offset + FRAME_HEADER_BYTES as u64;
        let payload = self.window.bytes(self.device, payload_at, length);
        let payload = payload.map_err(|error| ReadFault::Recover(error.into()))?;
        if kind == CHUNK {
            sink(payload).map_err(ReadFault::Sink)?;
            self.index += 1;
            self.total_bytes += length as u64;
            self.offset = payload_at + length.next_multiple_of(FRAME_ALIGNMENT) as u64;
            return Ok(None);
        }
        let footer = decode_footer(payload);
        match footer {
            Ok((count, bytes, digest))
                if (count, bytes) == (u64::from(self.index), self.total_bytes) && kind == FOOTER =>
            {
                Ok(Some(digest))
            }
            _ => Err(ReadFault::Recover(self.damaged())),
        }
    }

    /// Length of payload, index and kind of the frame at the offset, and whether its checksum is right.
    fn frame(&mut self) -> Result<(usize, u32, u32, bool), RecoverError> {
        let damaged = self.damaged();
        let header = self.window.bytes(self.device, self.offset, FRAME_HEADER_BYTES)?;
        let mut reader = Reader::new(header);
        let mut field = || reader.u32("frame").map_err(|_| ());
        let (Ok(crc), Ok(length), Ok(index), Ok(kind)) = (field(), field(), field(), field()) else {
            return Err(damaged);
        };
        let length = length as usize;
        if length > CHUNK_BYTES_MAX {
            return Err(damaged);
        }
        let frame = self.window.bytes(self.device, self.offset, FRAME_HEADER_BYTES + length)?;
        let is_intact = frame.len() == FRAME_HEADER_BYTES + length && crc32c::crc32c(&frame[4..]) == crc;
        Ok((length, index, kind, is_intact))
    }

    fn damaged(&self) -> RecoverError {
        RecoverError::damaged(self.window.path(), self.offset, Damage::Snapshot)
    }
}

fn header_version(header: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(header);
    (reader.array::<8>("magic").ok()? == MAGIC).then(|| reader.u32("version").ok())?
}

fn decode_footer(payload: &[u8]) -> Result<(u64, u64, u64), DecodeError> {
    let mut reader = Reader::new(payload);
    Ok((reader.u64("chunks")?, reader.u64("bytes")?, reader.u64("digest")?))
}

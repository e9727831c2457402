//! The ring: writes handed to the kernel, completions read from shared memory.
//!
//! Invariants: each write in the kernel has a slot in the table, which owns its buffer and keeps its file open; the slot's index is
//! the submission's user data; a slot is reused only after its completion. The kernel runs a completion's last step on the
//! submitting thread at its next system call (`COOP_TASKRUN`), so a shard that computes is never interrupted; a flag in shared memory tells when one
//! waits, so a shard that makes no other call still gets it.
#![expect(unsafe_code, reason = "the kernel is handed the addresses of buffers that the table keeps alive")]

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
    sync::Arc,
};

use io_uring::{IoUring, opcode, squeue, types};
use tickwheel_storage::{
    ALIGNMENT_BYTES, AlignedBuffer,
    device::{DeviceError, Durability, FileId, OpId},
};

use crate::runtime::{counters::ShardCounters, sys};

/// Most writes that are in the kernel at once; also the size of the submission queue, half that of the completion queue.
pub(super) const IN_KERNEL_MAX: usize = 128;
/// Most submissions that one write takes when the kernel writes less than was asked.
const PIECES_MAX: u32 = 16;

/// A write on its way.
#[derive(Debug)]
pub(super) struct Write {
    op: OpId,
    file_id: FileId,
    file: Arc<File>,
    path: Arc<Path>,
    offset: u64,
    buffer: AlignedBuffer,
    durability: Durability,
    /// How much of the buffer is written, a multiple of the alignment.
    written_bytes: usize,
    pieces: u32,
}

/// A write that is over.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) op: OpId,
    pub(super) buffer: AlignedBuffer,
    pub(super) result: Result<(), DeviceError>,
}

impl Write {
    /// # Panics
    /// If the offset or the length is not aligned, or the buffer is empty.
    pub(super) fn new(
        op: OpId,
        file_id: FileId,
        file: Arc<File>,
        path: Arc<Path>,
        offset: u64,
        buffer: AlignedBuffer,
        durability: Durability,
    ) -> Self {
        let aligned = offset.is_multiple_of(ALIGNMENT_BYTES as u64) && buffer.len().is_multiple_of(ALIGNMENT_BYTES);
        assert!(aligned && !buffer.is_empty(), "{} bytes at {offset} are not aligned", buffer.len());
        Self { op, file_id, file, path, offset, buffer, durability, written_bytes: 0, pieces: 0 }
    }

    fn entry(&self, slot: usize, flags: squeue::Flags) -> squeue::Entry {
        let rest = &self.buffer.as_slice()[self.written_bytes..];
        let length = u32::try_from(rest.len()).expect("buffers are bounded far below 4 GiB");
        let sync = match self.durability {
            Durability::Synced => libc::RWF_DSYNC,
            Durability::Unsynced => 0,
        };
        opcode::Write::new(types::Fd(self.file.as_raw_fd()), rest.as_ptr(), length)
            .offset(self.offset + self.written_bytes as u64)
            .rw_flags(sync)
            .build()
            .flags(flags)
            .user_data(slot as u64)
    }

    /// Takes the kernel's answer: the end of the write, or `None` when a part is still to be written.
    fn advance(&mut self, answer: i32) -> Option<io::Result<()>> {
        let count = match usize::try_from(answer) {
            Ok(0) => return Some(Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => count,
            Err(_) => return Some(Err(io::Error::from_raw_os_error(-answer))),
        };
        if self.written_bytes + count >= self.buffer.len() {
            return Some(Ok(()));
        }
        // Direct I/O wants the rest to start aligned, so what was written of the last unit is written again.
        self.written_bytes += count - count % ALIGNMENT_BYTES;
        self.pieces += 1;
        (self.pieces >= PIECES_MAX).then(|| Err(io::ErrorKind::WriteZero.into()))
    }

    fn end(self, result: io::Result<()>) -> Done {
        let result = result.map_err(|source| DeviceError::new("write", &*self.path, source).at(self.offset));
        Done { op: self.op, buffer: self.buffer, result }
    }
}

/// The ring and the writes that it carries.
pub(super) struct Ring {
    ring: IoUring,
    flags: squeue::Flags,
    /// By user data. Declared after the ring and emptied by `drop`, so no buffer is freed under the kernel's hands.
    table: Vec<Option<Write>>,
    free_slots: Vec<usize>,
    /// Accepted and not yet in the kernel.
    waiting: VecDeque<Write>,
    counters: Arc<ShardCounters>,
}

impl Ring {
    pub(super) fn new(worker_cores: &[usize], offload: bool, counters: Arc<ShardCounters>) -> io::Result<Self> {
        let entry_count = u32::try_from(IN_KERNEL_MAX).expect("a small constant");
        let ring = IoUring::builder().setup_coop_taskrun().setup_taskrun_flag().build(entry_count)?;
        if !worker_cores.is_empty() {
            // By default the kernel's workers run on the shard's own core.
            ring.submitter().register_iowq_aff(&sys::core_set(worker_cores))?;
        }
        Ok(Self {
            ring,
            flags: if offload { squeue::Flags::ASYNC } else { squeue::Flags::empty() },
            table: std::iter::repeat_with(|| None).take(IN_KERNEL_MAX).collect(),
            free_slots: (0..IN_KERNEL_MAX).collect(),
            waiting: VecDeque::with_capacity(IN_KERNEL_MAX),
            counters,
        })
    }

    #[inline]
    pub(super) fn enqueue(&mut self, write: Write) {
        self.counters.device_writes.add(1);
        self.waiting.push_back(write);
    }

    pub(super) fn has_writes_of(&self, file: FileId) -> bool {
        self.table.iter().flatten().chain(&self.waiting).any(|write| write.file_id == file)
    }

    #[inline]
    pub(super) fn has_work(&mut self) -> bool {
        (!self.waiting.is_empty() && !self.free_slots.is_empty())
            || !self.ring.completion().is_empty()
            || self.needs_enter()
    }

    /// Hands over what waits, with one system call at most, and takes what is done.
    #[inline]
    pub(super) fn poll(&mut self, done: &mut Vec<Done>) {
        if self.free_slots.len() == IN_KERNEL_MAX && self.waiting.is_empty() {
            return;
        }
        self.complete(done);
        self.push_waiting();
        if self.needs_enter() {
            self.enter(0);
            self.complete(done);
        }
    }

    fn needs_enter(&mut self) -> bool {
        let submission = self.ring.submission();
        !submission.is_empty() || submission.taskrun()
    }

    fn enter(&self, want: usize) {
        self.counters.system_calls.add(1);
        match self.ring.submit_and_wait(want) {
            Ok(_) => {}
            // The kernel is short of memory, or a signal came: what was not taken stays in the queue for the next poll.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ENOMEM)) => {}
            Err(error) => panic!("io_uring refuses submissions that it accepted before: {error}"),
        }
    }

    fn push_waiting(&mut self) {
        while !self.waiting.is_empty() {
            let Some(slot) = self.free_slots.pop() else { return };
            let write = self.waiting.pop_front().expect("it is not empty");
            self.push(slot, write);
        }
    }

    fn push(&mut self, slot: usize, write: Write) {
        let entry = write.entry(slot, self.flags);
        self.table[slot] = Some(write);
        // SAFETY: the entry's buffer and descriptor belong to the write in `table[slot]`, which stays there, unmoved on
        // the heap, until the kernel's completion for this slot is seen; `drop` waits for it as well.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the queue has a place for each slot");
    }

    fn complete(&mut self, done: &mut Vec<Done>) {
        while let Some((user_data, answer)) = self.next_completion() {
            let slot = usize::try_from(user_data).expect("the index of a slot");
            let mut write = self.table[slot].take().expect("one completion per submission");
            match write.advance(answer) {
                Some(result) => {
                    self.free_slots.push(slot);
                    done.push(write.end(result));
                }
                None => self.push(slot, write),
            }
        }
    }

    fn next_completion(&mut self) -> Option<(u64, i32)> {
        self.ring.completion().next().map(|entry| (entry.user_data(), entry.result()))
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring keeps its descriptor open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for Ring {
    /// Waits until the kernel has let go of every buffer.
    fn drop(&mut self) {
        let mut done = Vec::new();
        while self.free_slots.len() < IN_KERNEL_MAX {
            self.enter(1);
            self.complete(&mut done);
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let in_kernel_count = IN_KERNEL_MAX - self.free_slots.len();
        f.debug_struct("Ring").field("in_kernel", &in_kernel_count).field("waiting", &self.waiting.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(bytes: usize, durability: Durability) -> Write {
        let mut buffer = AlignedBuffer::with_capacity(bytes);
        buffer.set_len(bytes);
        let file = Arc::new(File::open("/dev/null").expect("it is always there"));
        Write::new(OpId(1), FileId(0), file, Path::new("segment").into(), 8192, buffer, durability)
    }

    /// What `entry` asks for: offset, length and flags of the write, as the kernel's layout of a submission has them.
    fn asked(write: &Write) -> (u64, u32, i32) {
        let entry = write.entry(0, squeue::Flags::empty());
        // SAFETY: an entry is the kernel's submission of 64 plain bytes.
        let bytes: &[u8; 64] = unsafe { &*(&raw const entry).cast() };
        let word = |at: usize| bytes[at..at + 4].try_into().expect("four bytes");
        let offset = u64::from_ne_bytes(bytes[8..16].try_into().expect("eight bytes"));
        (offset, u32::from_ne_bytes(word(24)), i32::from_ne_bytes(word(28)))
    }

    #[test]
    fn a_durable_write_asks_for_its_sync_and_another_does_not() {
        assert_eq!(asked(&write(4096, Durability::Synced)), (8192, 4096, libc::RWF_DSYNC));
        assert_eq!(asked(&write(4096, Durability::Unsynced)), (8192, 4096, 0));
    }

    #[test]
    fn a_short_write_goes_on_where_it_is_aligned() {
        let mut write = write(16384, Durability::Synced);
        assert!(write.advance(5000).is_none());
        assert_eq!(asked(&write), (8192 + 4096, 16384 - 4096, libc::RWF_DSYNC));
        assert!(write.advance(8192).is_none());
        assert_eq!(asked(&write), (8192 + 12288, 4096, libc::RWF_DSYNC));
        assert!(matches!(write.advance(4096), Some(Ok(()))));
    }

    #[test]
    fn a_write_that_makes_no_progress_ends_with_an_error() {
        let mut stuck = write(8192, Durability::Synced);
        let ends = (0..PIECES_MAX).filter_map(|_| stuck.advance(512)).collect::<Vec<_>>();
        assert!(matches!(&ends[..], [Err(error)] if error.kind() == io::ErrorKind::WriteZero));
        assert!(matches!(write(4096, Durability::Synced).advance(0), Some(Err(_))));
        let failed = write(4096, Durability::Synced).advance(-libc::EIO).expect("it is over").expect_err("it failed");
        assert_eq!(failed.raw_os_error(), Some(libc::EIO));
    }
}

//! Large sequential reads of one file: a window that follows the reader and is refilled when it runs out.
//!
//! Invariant: at least [`READ_BYTES`] are asked of the device at once. Memory: that much, or the longest piece asked for.
//! Deliberately absent: read-ahead; the kernel or the device may do it.

use crate::{ALIGNMENT_BYTES, AlignedBuffer, Device, DeviceError, FileId, align_up};
use std::path::{Path, PathBuf};

/// How much is read at once.
pub const READ_BYTES: usize = 2 << 20;

pub struct Window {
    file: FileId,
    path: PathBuf,
    buffer: AlignedBuffer,
    /// Where in the file the buffer begins.
    start: u64,
    /// Whether the buffer ends where the file does.
    is_at_end: bool,
}

impl Window {
    pub fn open(device: &mut impl Device, path: PathBuf) -> Result<Self, DeviceError> {
        let file = device.open(&path)?;
        Ok(Self { file, path, buffer: AlignedBuffer::with_capacity(READ_BYTES), start: 0, is_at_end: false })
    }

    /// Turns to another file, keeping the memory.
    pub fn reopen(&mut self, device: &mut impl Device, path: PathBuf) -> Result<(), DeviceError> {
        let file = device.open(&path)?;
        device.close(self.file);
        (self.file, self.path, self.start, self.is_at_end) = (file, path, 0, false);
        self.buffer.clear();
        Ok(())
    }

    pub fn close(self, device: &mut impl Device) {
        device.close(self.file);
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `length` bytes at `offset`, fewer only at the end of the file.
    pub fn bytes(&mut self, device: &mut impl Device, offset: u64, length: usize) -> Result<&[u8], DeviceError> {
        let is_held = |window: &Self| {
            let end = window.start + window.buffer.len() as u64;
            offset >= window.start && (offset + length as u64 <= end || window.is_at_end)
        };
        if !is_held(self) {
            self.fill(device, offset, length)?;
        }
        let from = usize::try_from(offset - self.start).expect("the window starts near the offset");
        let held = self.buffer.as_slice().get(from..).unwrap_or_default();
        Ok(&held[..length.min(held.len())])
    }

    fn fill(&mut self, device: &mut impl Device, offset: u64, length: usize) -> Result<(), DeviceError> {
        self.start = offset - offset % ALIGNMENT_BYTES as u64;
        let needed = align_up(length + ALIGNMENT_BYTES);
        if self.buffer.capacity() < needed {
            self.buffer = AlignedBuffer::with_capacity(needed);
        }
        self.buffer.clear();
        self.is_at_end = false;
        device.read_at(self.file, self.start, &mut self.buffer)?;
        self.is_at_end = self.buffer.len() < self.buffer.capacity();
        Ok(())
    }
}

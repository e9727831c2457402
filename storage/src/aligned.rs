//! Memory for direct I/O: bytes that start at a multiple of [`ALIGNMENT_BYTES`].
//!
//! Invariants: a buffer never moves and never grows once made, so a kernel may hold its address while the buffer is in
//! flight; its length never exceeds its capacity, which is a multiple of the alignment. Made from a plain vector with a
//! little slack in front, which needs no unsafe code. Deliberately absent: any knowledge of what the bytes mean.

use std::fmt;

/// What addresses, offsets and lengths of direct I/O are multiples of.
pub const ALIGNMENT_BYTES: usize = 4096;

/// `bytes` rounded up to a multiple of [`ALIGNMENT_BYTES`].
pub const fn align_up(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT_BYTES)
}

/// A byte buffer whose address is a multiple of [`ALIGNMENT_BYTES`], with a fixed capacity.
pub struct AlignedBuffer {
    storage: Vec<u8>,
    start: usize,
    length: usize,
    capacity: usize,
}

impl AlignedBuffer {
    /// An empty buffer that can hold `capacity_bytes`, rounded up to the alignment (at least one unit of it).
    ///
    /// Costs the capacity and 4 KiB; the memory comes zeroed and is touched only when written.
    pub fn with_capacity(capacity_bytes: usize) -> Self {
        let capacity = align_up(capacity_bytes.max(1));
        let storage = vec![0; capacity + ALIGNMENT_BYTES];
        let start = storage.as_ptr().align_offset(ALIGNMENT_BYTES);
        assert!(start < ALIGNMENT_BYTES, "a byte pointer can always be aligned");
        Self { storage, start, length: 0, capacity }
    }

    /// The bytes written so far. Their address is aligned.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }

    /// The bytes written so far, to change them.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.length]
    }

    /// How many bytes are written.
    #[inline]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether no byte is written.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many bytes fit, a multiple of the alignment.
    #[inline]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bytes still fit.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.capacity - self.length
    }

    /// Forgets the bytes. What they were stays in memory until overwritten.
    #[inline]
    pub const fn clear(&mut self) {
        self.length = 0;
    }

    /// Sets the length, for one who fills the buffer through [`as_mut_slice`](Self::as_mut_slice) or a system call.
    /// Bytes that were never written are zero or left from an earlier use.
    ///
    /// # Panics
    /// If `length` exceeds the capacity.
    #[inline]
    pub const fn set_len(&mut self, length: usize) {
        assert!(length <= self.capacity, "a buffer never grows");
        self.length = length;
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// If they do not fit.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.remaining(), "a buffer never grows");
        let end = self.start + self.length;
        self.storage[end..end + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Appends zeroes until the length is a multiple of the alignment.
    pub fn pad(&mut self) {
        let padded = align_up(self.length);
        let (from, to) = (self.start + self.length, self.start + padded);
        self.storage[from..to].fill(0);
        self.length = padded;
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("len", &self.length).field("capacity", &self.capacity).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_stays_aligned_when_it_is_moved() {
        let mut buffers: Vec<_> = (0..100).map(|n| AlignedBuffer::with_capacity(n * 100)).collect();
        for buffer in &mut buffers {
            buffer.extend_from_slice(&[7; 60]);
            assert_eq!(buffer.as_slice().as_ptr().align_offset(ALIGNMENT_BYTES), 0);
            assert_eq!(buffer.capacity() % ALIGNMENT_BYTES, 0);
        }
    }

    #[test]
    fn padding_overwrites_what_an_earlier_use_left() {
        let mut buffer = AlignedBuffer::with_capacity(5000);
        buffer.extend_from_slice(&[9; 8192]);
        buffer.clear();
        buffer.extend_from_slice(&[1; 10]);
        buffer.pad();
        assert_eq!(buffer.len(), 4096);
        assert!(buffer.as_slice()[10..].iter().all(|byte| *byte == 0));
    }
}

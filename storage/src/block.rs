//! A block: one commit on disk. It begins at a multiple of 4096 in its segment and is padded with zeroes to the next.
//!
//! ```text
//!  0  u32  magic "TWBK"
//!  4  u32  CRC-32C of bytes 8 .. length, started from the stream's salt
//!  8  u32  length: this header and the sections, without the padding
//! 12  u32  how many sections
//! 16  u64  stream
//! 24  u64  sequence in the stream, from 1
//! 32  u64  durable: the highest sequence up to which all was known durable when this block was written
//! 40  u32  predecessor: the CRC of block sequence - 1; 0 in block 1
//! 44  u32  zero
//! 48       sections
//! ```
//! A section, at a multiple of 8:
//! ```text
//!  0  u64  sequence of its first event in its partition
//!  8  u32  how many events
//! 12  u32  length of their bytes
//! 16  u16  partition
//! 18  u16  zero, three times
//! 24       the bytes, padded with zeroes to a multiple of 8
//! ```
//! All integers are little-endian.
//!
//! Blocks carry bytes that users chose, and recovery looks for blocks at every aligned place behind a torn one. The salt, which users
//! cannot know, keeps a payload from passing for a block.

use crate::{AlignedBuffer, Section};
use tickwheel_wire::{DecodeError, PartitionId, Reader, StreamId};

pub const HEADER_BYTES: usize = 48;
const SECTION_HEADER_BYTES: usize = 24;
const MAGIC: u32 = u32::from_le_bytes(*b"TWBK");
/// Where the bytes start that the CRC covers.
const COVERED_FROM: usize = 8;

/// What a block says about itself, apart from its sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    pub crc: u32,
    pub length_bytes: u32,
    pub section_count: u32,
    pub stream: StreamId,
    pub sequence: u64,
    pub durable: u64,
    pub predecessor: u32,
}

/// How many bytes the block of these sections takes, without its padding.
pub fn encoded_bytes<'a>(sections: impl Iterator<Item = Section<'a>>) -> usize {
    sections.fold(HEADER_BYTES, |sum, section| sum + SECTION_HEADER_BYTES + section.bytes.len().next_multiple_of(8))
}

/// Writes a whole block, padded, into the empty `buffer` and returns its CRC. `crc`, `length_bytes` and `section_count` of
/// `header` are ignored.
pub fn encode<'a>(
    buffer: &mut AlignedBuffer,
    header: &BlockHeader,
    salt: u32,
    sections: impl Iterator<Item = Section<'a>>,
) -> u32 {
    assert!(buffer.is_empty(), "a block starts its buffer");
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    let mut count = 0u32;
    for section in sections {
        encode_section(buffer, &section);
        count += 1;
    }
    let length = buffer.len();
    let bytes = buffer.as_mut_slice();
    put(bytes, 0, &MAGIC.to_le_bytes());
    put(bytes, 8, &u32::try_from(length).expect("a block is far below 4 GiB").to_le_bytes());
    put(bytes, 12, &count.to_le_bytes());
    put(bytes, 16, &header.stream.0.to_le_bytes());
    put(bytes, 24, &header.sequence.to_le_bytes());
    put(bytes, 32, &header.durable.to_le_bytes());
    put(bytes, 40, &header.predecessor.to_le_bytes());
    let crc = crc32c::crc32c_append(salt, &bytes[COVERED_FROM..]);
    put(bytes, 4, &crc.to_le_bytes());
    buffer.pad();
    crc
}

fn encode_section(buffer: &mut AlignedBuffer, section: &Section<'_>) {
    let length = section.bytes.len();
    let mut header = [0; SECTION_HEADER_BYTES];
    put(&mut header, 0, &section.first_sequence.to_le_bytes());
    put(&mut header, 8, &section.event_count.to_le_bytes());
    put(&mut header, 12, &u32::try_from(length).expect("a block is far below 4 GiB").to_le_bytes());
    put(&mut header, 16, &section.partition.0.to_le_bytes());
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(section.bytes);
    buffer.extend_from_slice(&[0; 7][..length.next_multiple_of(8) - length]);
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

impl BlockHeader {
    /// Reads the header in front of `bytes`, unchecked but for its magic and its smallest length; `None` if it is no block.
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).ok().flatten().filter(|header| header.length_bytes as usize >= HEADER_BYTES)
    }

    fn decode(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u32("magic")? != MAGIC {
            return Ok(None);
        }
        let header = Self {
            crc: reader.u32("crc")?,
            length_bytes: reader.u32("length")?,
            section_count: reader.u32("section count")?,
            stream: StreamId(reader.u64("stream")?),
            sequence: reader.u64("sequence")?,
            durable: reader.u64("durable")?,
            predecessor: reader.u32("predecessor")?,
        };
        reader.u32("zero")?;
        Ok(Some(header))
    }

    /// Whether `block` (exactly `length_bytes` long, this header included) is what was written.
    pub fn is_intact(&self, block: &[u8], salt: u32) -> bool {
        block.len() == self.length_bytes as usize && crc32c::crc32c_append(salt, &block[COVERED_FROM..]) == self.crc
    }
}

/// The sections of an intact block.
pub struct Sections<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Sections<'a> {
    /// `block` as checked by [`BlockHeader::is_intact`].
    pub fn new(header: &BlockHeader, block: &'a [u8]) -> Self {
        Self { reader: Reader::new(&block[HEADER_BYTES..]), left: header.section_count }
    }

    /// The next section; `None` when all were read. Every error means that the writer was wrong, since the CRC was right.
    pub fn next(&mut self) -> Result<Option<Section<'a>>, DecodeError> {
        if self.left == 0 {
            self.reader.finish()?;
            return Ok(None);
        }
        self.left -= 1;
        let first_sequence = self.reader.u64("first sequence")?;
        let event_count = self.reader.u32("event count")?;
        let length = self.reader.u32("section length")? as usize;
        let partition = PartitionId(self.reader.u16("partition")?);
        self.reader.take(6, "zero")?;
        let bytes = self.reader.take(length, "events")?;
        self.reader.take(length.next_multiple_of(8) - length, "padding")?;
        if event_count == 0 || first_sequence.checked_add(u64::from(event_count)).is_none() {
            return Err(DecodeError::Invalid { field: "event count", value: u64::from(event_count) });
        }
        Ok(Some(Section { partition, first_sequence, event_count, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u32 = 0xABCD_1234;

    fn header() -> BlockHeader {
        BlockHeader {
            crc: 0,
            length_bytes: 0,
            section_count: 0,
            stream: StreamId(7),
            sequence: 9,
            durable: 5,
            predecessor: 0x55,
        }
    }

    fn block(sections: &[Section<'_>]) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::with_capacity(encoded_bytes(sections.iter().copied()));
        let crc = encode(&mut buffer, &header(), SALT, sections.iter().copied());
        assert_eq!(BlockHeader::peek(buffer.as_slice()).expect("a block").crc, crc);
        buffer
    }

    #[test]
    fn a_block_returns_its_sections() {
        let long = vec![3; 10_000];
        let sections = [
            Section { partition: PartitionId(2), first_sequence: 11, event_count: 3, bytes: b"abc" },
            Section { partition: PartitionId(4095), first_sequence: 1, event_count: 1, bytes: &[] },
            Section { partition: PartitionId(0), first_sequence: u64::MAX - 9, event_count: 9, bytes: &long },
        ];
        let buffer = block(&sections);
        let found = BlockHeader::peek(buffer.as_slice()).expect("a block");
        assert_eq!((found.stream, found.sequence, found.durable, found.predecessor), (StreamId(7), 9, 5, 0x55));
        let bytes = &buffer.as_slice()[..found.length_bytes as usize];
        assert!(found.is_intact(bytes, SALT));
        let mut reader = Sections::new(&found, bytes);
        for section in sections {
            assert_eq!(reader.next().expect("decodes"), Some(section));
        }
        assert_eq!(reader.next().expect("decodes"), None);
    }

    #[test]
    fn every_changed_byte_and_a_wrong_salt_are_noticed() {
        let buffer =
            block(&[Section { partition: PartitionId(2), first_sequence: 1, event_count: 1, bytes: b"payload" }]);
        let length = BlockHeader::peek(buffer.as_slice()).expect("a block").length_bytes as usize;
        let whole = &buffer.as_slice()[..length];
        let intact = |bytes: &[u8], salt| BlockHeader::peek(bytes).is_some_and(|found| found.is_intact(bytes, salt));
        assert!(intact(whole, SALT));
        assert!(!intact(whole, SALT ^ 1));
        for at in 0..length {
            let mut changed = whole.to_vec();
            changed[at] ^= 0x10;
            assert!(!intact(&changed, SALT), "byte {at}");
        }
        assert!(!intact(&whole[..length - 1], SALT));
    }
}

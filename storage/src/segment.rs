//! A segment: one pre-zeroed file of a stream. It begins with this header, alone in the first 4096 bytes; blocks follow.
//!
//! ```text
//!  0  [u8; 8]  magic "TWLOGSEG"
//!  8  u32      format version
//! 12  u32      salt of the stream's block CRCs
//! 16  u64      stream
//! 24  u64      index of the segment in its stream, from 0
//! 32  u64      length of the file
//! 40  u32      the longest block
//! 44  u32      CRC-32C of bytes 0 .. 44
//! ```
//! The header is written and synced before the file appears under its name, so a header that cannot be read is damage, never a
//! crash. Segments are used strictly in the order of their indexes.

use crate::ALIGNMENT_BYTES;
use tickwheel_wire::{DecodeError, Reader, StreamId, Writer};

/// The format of segments and blocks that this version writes and reads.
pub const SEGMENT_VERSION: u32 = 1;
/// Where the first block of a segment starts.
pub const BLOCKS_FROM: u64 = ALIGNMENT_BYTES as u64;
const MAGIC: [u8; 8] = *b"TWLOGSEG";
const HEADER_BYTES: usize = 48;
const CHECKED_BYTES: usize = 44;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub salt: u32,
    pub stream: StreamId,
    pub index: u64,
    pub segment_bytes: u64,
    /// No block is longer, so that a search for blocks is bounded.
    pub batch_bytes_max: u32,
}

/// Why a segment's header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// Not a header, or one that was changed.
    Damaged,
    /// Written by a version that this one does not know.
    Version(u32),
}

impl SegmentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        let mut writer = Writer::new(&mut bytes);
        writer.raw(&MAGIC).u32(SEGMENT_VERSION).u32(self.salt);
        writer.u64(self.stream.0).u64(self.index).u64(self.segment_bytes).u32(self.batch_bytes_max);
        let crc = crc32c::crc32c(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        Self::read(bytes).map_err(|_: DecodeError| HeaderFault::Damaged)?
    }

    fn read(bytes: &[u8]) -> Result<Result<Self, HeaderFault>, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<8>("magic")? != MAGIC {
            return Ok(Err(HeaderFault::Damaged));
        }
        // The version is judged before the checksum, whose place a newer format may have moved.
        let version = reader.u32("version")?;
        if version > SEGMENT_VERSION {
            return Ok(Err(HeaderFault::Version(version)));
        }
        let salt = reader.u32("salt")?;
        let stream = StreamId(reader.u64("stream")?);
        let index = reader.u64("index")?;
        let segment_bytes = reader.u64("length")?;
        let batch_bytes_max = reader.u32("longest block")?;
        let intact = reader.u32("crc")? == crc32c::crc32c(&bytes[..CHECKED_BYTES]) && version == SEGMENT_VERSION;
        Ok(if intact {
            Ok(Self { salt, stream, index, segment_bytes, batch_bytes_max })
        } else {
            Err(HeaderFault::Damaged)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let header =
            SegmentHeader { salt: 5, stream: StreamId(3), index: 2, segment_bytes: 1 << 20, batch_bytes_max: 9 };
        let bytes = header.encode();
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert_eq!(SegmentHeader::decode(&newer), Err(HeaderFault::Version(2)));
        for at in [0, 12, 16, 24, 32, 40, 44, 47] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(SegmentHeader::decode(&changed), Err(HeaderFault::Damaged), "byte {at}");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..20]), Err(HeaderFault::Damaged));
    }
}

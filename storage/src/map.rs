//! The partition map: for each partition, which streams hold its events (its chain), and where each finished stream ends.
//! One small file, always replaced as a whole.
//!
//! ```text
//!  0  [u8; 8]  magic "TWMAP\0\0\0"
//!  8  u32      format version
//! 12  u32      number of partitions of the cluster
//! 16  u64      the next stream to give out
//! 24  u32      how many streams
//! 28  u32      how many links
//! 32           streams: u64 stream, u64 last block (2^64 - 1: open)
//!              links: u16 partition, u16 zero three times, u64 stream, u64 first event, u64 last event (2^64 - 1: open)
//!              u32 CRC-32C of all before
//! ```
//!
//! Invariants: a stream is open from the moment it is given out until a recovery has read it to its end and closes it;
//! links of one partition are in the order of their streams and of their events, without gaps; a link is open exactly if its stream is;
//! stream ids only grow.

use crate::{AlignedBuffer, Damage, Device, DeviceError, RecoverError, layout};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};
use tickwheel_wire::{DecodeError, PartitionCount, PartitionId, Reader, StreamId, Writer};

/// The format of the partition map that this version writes and reads.
pub const MAP_VERSION: u32 = 1;
/// In the place of a last block or event: not known yet.
pub const OPEN: u64 = u64::MAX;
const MAGIC: [u8; 8] = *b"TWMAP\0\0\0";
const CRC_BYTES: usize = 4;
/// The next stream to give out is at most this: half of what the number holds, so that giving out can go on.
const NEXT_STREAM_MAX: u64 = 1 << 63;
/// Where the fields begin that depend on the version.
const VERSION_END: usize = 12;
/// Far above what any number of partitions and restarts makes.
const MAP_BYTES_MAX: u64 = 64 << 20;

/// A part of a partition's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The stream that holds these events.
    pub stream: StreamId,
    /// Sequence of the first event.
    pub from: u64,
    /// Sequence of the last event; `u64::MAX` while the stream is open.
    pub to: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMap {
    pub partition_count: u16,
    pub next_stream: u64,
    /// The last block of each stream that any link names; [`OPEN`] for one not yet closed.
    pub streams: BTreeMap<StreamId, u64>,
    /// The chain of each partition, oldest first.
    pub chains: Vec<Vec<Link>>,
}

impl PartitionMap {
    pub fn new(partitions: PartitionCount) -> Self {
        let partition_count = partitions.count();
        let chains = vec![Vec::new(); usize::from(partition_count)];
        Self { partition_count, next_stream: 1, streams: BTreeMap::new(), chains }
    }

    pub fn chain(&self, partition: PartitionId) -> &[Link] {
        &self.chains[usize::from(partition.0)]
    }

    /// Forgets links whose events a snapshot covers (`covered` by partition), then streams that no link names. Returns those.
    pub fn trim(&mut self, covered: &[u64]) -> Vec<StreamId> {
        for (chain, covered) in self.chains.iter_mut().zip(covered) {
            chain.retain(|link| link.to > *covered);
        }
        let is_named = |stream| self.chains.iter().flatten().any(|link| link.stream == stream);
        let unneeded: Vec<_> = self.streams.keys().copied().filter(|stream| !is_named(*stream)).collect();
        self.streams.retain(|stream, _| !unneeded.contains(stream));
        unneeded
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        let count = |count: usize| u32::try_from(count).expect("the map is bounded far below that");
        writer.raw(&MAGIC).u32(MAP_VERSION).u32(u32::from(self.partition_count)).u64(self.next_stream);
        writer.u32(count(self.streams.len())).u32(count(self.chains.iter().map(Vec::len).sum()));
        for (stream, last_block) in &self.streams {
            writer.u64(stream.0).u64(*last_block);
        }
        for (partition, chain) in (0u16..).zip(&self.chains) {
            for link in chain {
                writer.u16(partition).raw(&[0; 6]).u64(link.stream.0).u64(link.from).u64(link.to);
            }
        }
        let crc = crc32c::crc32c(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecoverError> {
        let damaged = |what| RecoverError::damaged(layout::MAP, 0, Damage::Map(what));
        let version = Self::read_version(&mut Reader::new(bytes)).map_err(|_| damaged("no header"))?;
        if version > MAP_VERSION {
            return Err(RecoverError::Version { path: layout::MAP.into(), found: version, supported: MAP_VERSION });
        }
        let Some((covered, crc)) = bytes.split_last_chunk::<CRC_BYTES>() else { return Err(damaged("too short")) };
        if version != MAP_VERSION || crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(damaged("its checksum is wrong"));
        }
        let mut reader = Reader::new(&covered[VERSION_END..]);
        let map = Self::read(&mut reader).map_err(|_| damaged("a field does not decode"))?;
        if reader.is_empty() && map.is_consistent() {
            Ok(map)
        } else {
            Err(damaged("its contents contradict themselves"))
        }
    }

    fn read_version(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
        if reader.array::<8>("magic")? != MAGIC {
            return Err(DecodeError::Invalid { field: "magic", value: 0 });
        }
        reader.u32("version")
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = u64::from(reader.u32("partition count")?);
        let invalid = |_| DecodeError::Invalid { field: "partition count", value: count };
        let mut map = Self::new(PartitionCount::new(count).map_err(invalid)?);
        map.next_stream = reader.u64("next stream")?;
        let (stream_count, link_count) = (reader.u32("stream count")?, reader.u32("link count")?);
        for _ in 0..stream_count {
            let stream = StreamId(reader.u64("stream")?);
            map.streams.insert(stream, reader.u64("last block")?);
        }
        for _ in 0..link_count {
            let partition = reader.u16("partition")?;
            reader.take(6, "zero")?;
            let stream = StreamId(reader.u64("stream")?);
            let link = Link { stream, from: reader.u64("first event")?, to: reader.u64("last event")? };
            let chain = map.chains.get_mut(usize::from(partition));
            chain.ok_or(DecodeError::Invalid { field: "partition", value: u64::from(partition) })?.push(link);
        }
        Ok(map)
    }

    fn is_consistent(&self) -> bool {
        let is_link_right = |link: &Link| {
            let last_block = self.streams.get(&link.stream);
            link.from <= link.to && last_block.is_some_and(|last| (*last == OPEN) == (link.to == OPEN))
        };
        let follows =
            |pair: &[Link]| pair[0].stream < pair[1].stream && pair[0].to.checked_add(1) == Some(pair[1].from);
        self.next_stream <= NEXT_STREAM_MAX
            && self.streams.keys().all(|stream| stream.0 < self.next_stream)
            && self.chains.iter().all(|chain| chain.iter().all(is_link_right) && chain.windows(2).all(follows))
    }

    /// Reads the map; `None` when there is none.
    pub fn load(device: &mut impl Device) -> Result<Option<Self>, RecoverError> {
        match read_file(device, Path::new(layout::MAP)) {
            Ok(bytes) => Self::decode(&bytes).map(Some),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the map on disk, atomically and durably.
    pub fn store(&self, device: &mut impl Device) -> Result<(), DeviceError> {
        assert!(self.is_consistent(), "a map that contradicts itself is never written");
        let path = PathBuf::from(layout::MAP);
        let temporary = layout::temporary(&path);
        let file = device.create(&temporary)?;
        let written = device.append(file, &self.encode()).and_then(|()| device.sync(file));
        device.close(file);
        written?;
        device.rename(&temporary, &path)?;
        device.sync_directory(Path::new(""))
    }
}

fn read_file(device: &mut impl Device, path: &Path) -> Result<Vec<u8>, DeviceError> {
    let file = device.open(path)?;
    let mut bytes = Vec::new();
    let mut buffer = AlignedBuffer::with_capacity(256 << 10);
    let result = loop {
        if let Err(error) = device.read_at(file, bytes.len() as u64, &mut buffer) {
            break Err(error);
        }
        bytes.extend_from_slice(buffer.as_slice());
        if buffer.len() < buffer.capacity() || bytes.len() as u64 > MAP_BYTES_MAX {
            break Ok(bytes);
        }
    };
    device.close(file);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> PartitionMap {
        let mut map = PartitionMap::new(PartitionCount::new(4).expect("a count"));
        map.next_stream = 6;
        map.streams = [(StreamId(3), 12), (StreamId(5), OPEN)].into();
        map.chains[1] =
            vec![Link { stream: StreamId(3), from: 4, to: 9 }, Link { stream: StreamId(5), from: 10, to: OPEN }];
        map.chains[3] = vec![Link { stream: StreamId(3), from: 1, to: 2 }];
        map
    }

    #[test]
    fn a_map_returns_from_its_bytes() {
        assert_eq!(PartitionMap::decode(&sample().encode()).expect("decodes"), sample());
    }

    #[test]
    fn every_changed_byte_is_noticed_and_a_newer_version_named() {
        let bytes = sample().encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(PartitionMap::decode(&changed).is_err(), "byte {at}");
        }
        let mut newer = bytes;
        newer[8] = 9;
        let error = PartitionMap::decode(&newer).expect_err("newer");
        assert!(matches!(error, RecoverError::Version { found: 9, supported: MAP_VERSION, .. }), "{error}");
    }

    #[test]
    fn trimming_forgets_a_stream_only_when_no_partition_needs_it() {
        let mut map = sample();
        assert!(map.trim(&[0, 9, 0, 1]).is_empty(), "partition 3 still needs event 2");
        assert_eq!(map.chains[1].len(), 1);
        assert_eq!(map.trim(&[0, 9, 0, 2]), [StreamId(3)]);
        assert_eq!(map.streams.keys().collect::<Vec<_>>(), [&StreamId(5)]);
    }

    #[test]
    fn a_map_with_a_gap_or_without_streams_to_give_out_is_inconsistent() {
        let mut map = sample();
        map.chains[1][1].from = 11;
        assert!(!map.is_consistent());
        assert!(sample().is_consistent() && !PartitionMap { next_stream: u64::MAX, ..sample() }.is_consistent());
    }
}

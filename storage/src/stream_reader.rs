//! Reads a stream block by block and decides where it ends.
//!
//! # Where a stream ends
//!
//! A stream that the partition map has closed ends at the block that the map names; anything unreadable before is damage.
//!
//! A stream that is still open ends at the first place where the next block, sequence *n*, is not intact. Whether that is the torn
//! tail of a crash or damage follows from the marks: every block names the highest sequence up to which all was known durable
//! when it was written. Everything behind that place is searched, to the end of the last segment, for intact blocks of this
//! stream at aligned offsets. If one of them names *n* or more as durable, then *n* had been durable: **damage**, and
//! recovery stops with file and offset. Otherwise no block that is still readable was written after *n* had become durable, so *n* was among
//! the last `in_flight_max` commits: **the torn tail**, which is cut at *n*. Intact blocks behind *n* are void: outputs wait for the
//! contiguous durable prefix, so nothing that depends on them ever left.
//!
//! The rule's limit: when the last few commits were reported durable and the disk then loses one of exactly these, no later block
//! exists to tell. An empty batch appended when the shard falls idle narrows that to the mark itself.
//!
//! What was read of the tail need not be durable: a process that was killed, or whose sync failed, leaves blocks behind that the disk
//! still holds in its memory alone. Blocks above the last mark are therefore written once more before anything rests on them
//! ([`make_durable`]); the same bytes at the same place do no harm wherever the power fails, and need no room.
//!
//! Blocks are recognised by a checksum that starts from the stream's secret salt, so a payload cannot pose as a later block.

use crate::{
    ALIGNMENT_BYTES, Damage, Device, Entry, RecoverError, align_up,
    block::{BlockHeader, HEADER_BYTES, Sections},
    layout,
    map::OPEN,
    segment::{BLOCKS_FROM, HeaderFault, SEGMENT_VERSION, SegmentHeader},
    window::Window,
};
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};
use tickwheel_wire::{StreamId, planted::Mistake};

/// Where a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// The stream.
    pub stream: StreamId,
    /// Its last block; 0 if it has none.
    pub last_block: u64,
}

pub struct StreamReader<'d, D> {
    device: &'d mut D,
    stream: StreamId,
    /// The last block as the map knows it, or [`OPEN`].
    end: u64,
    /// Without gaps.
    segments: Vec<SegmentFile>,
    window: Option<Window>,
    /// Header of the segment in the window.
    segment: Option<SegmentHeader>,
    place: Place,
    /// The block that was read last.
    last: Option<BlockHeader>,
    last_at: u64,
    /// Blocks that no mark has called durable yet: as many as commits were in flight, and those of the last moments.
    unsure: VecDeque<BlockPlace>,
}

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    sequence: u64,
    /// Index of its segment.
    segment: u64,
    offset: u64,
    length_bytes: usize,
}

/// A segment as the directory has it. Its header may promise more than there is.
#[derive(Clone, Copy)]
struct SegmentFile {
    index: u64,
    bytes: u64,
}

/// Where the next block should start.
#[derive(Clone, Copy)]
struct Place {
    /// Position in `segments`.
    segment: usize,
    offset: u64,
}

impl<'d, D: Device> StreamReader<'d, D> {
    /// Opens `stream`, which ends at block `end` if the map has closed it ([`OPEN`] otherwise).
    pub fn open(device: &'d mut D, stream: StreamId, end: u64) -> Result<Self, RecoverError> {
        let segments = list_segments(device, stream)?;
        let place = Place { segment: 0, offset: BLOCKS_FROM };
        let unsure = VecDeque::new();
        Ok(Self { device, stream, end, segments, window: None, segment: None, place, last: None, last_at: 0, unsure })
    }

    /// Moves to the next block; `false` at the stream's end. Moves forward with each call, so it ends.
    pub fn advance(&mut self) -> Result<bool, RecoverError> {
        if self.last_block() == self.end {
            return Ok(false);
        }
        let following = Place { segment: self.place.segment + 1, offset: BLOCKS_FROM };
        for place in [self.place, following] {
            let Some(header) = self.intact_block(place)? else { continue };
            let is_first_found = self.has_lost_its_front() && place.segment == 0;
            if header.sequence == self.last_block() + 1 || is_first_found {
                self.accept(place, header)?;
                return Ok(true);
            }
        }
        self.judge_hole()?;
        Ok(false)
    }

    /// The sections of the block that `advance` moved to.
    pub fn sections(&mut self) -> Result<Sections<'_>, RecoverError> {
        let header = self.last.expect("advance has found a block");
        let window = self.window.as_mut().expect("the block is in the window");
        let block = window.bytes(self.device, self.last_at, header.length_bytes as usize)?;
        Ok(Sections::new(&header, block))
    }

    /// The sequence of the block that was read last; 0 before the first.
    pub fn last_block(&self) -> u64 {
        self.last.map_or(0, |header| header.sequence)
    }

    /// File and offset of the block that was read last.
    pub fn last_place(&self) -> (PathBuf, u64) {
        (self.path(self.place.segment), self.last_at)
    }

    /// Segment index and length in bytes up to which the stream is used; `None` if it has no block.
    pub fn used(&self) -> Option<(u64, u64)> {
        self.last.map(|_| (self.segments[self.place.segment].index, self.place.offset))
    }

    /// The blocks that were read and that may not be durable.
    pub fn unsure(&self) -> Vec<BlockPlace> {
        self.unsure.iter().copied().collect()
    }

    pub fn close(self) {
        if let Some(window) = self.window {
            window.close(self.device);
        }
    }

    /// Whether the block to be read next is the first that trimming left. The log promises that it was durable, but its
    /// sequence is not known.
    fn has_lost_its_front(&self) -> bool {
        self.last.is_none() && self.segments.first().is_some_and(|first| first.index > 0)
    }

    fn path(&self, segment: usize) -> PathBuf {
        self.segments
            .get(segment)
            .map_or_else(|| layout::stream(self.stream), |file| layout::segment(self.stream, file.index))
    }

    fn accept(&mut self, place: Place, header: BlockHeader) -> Result<(), RecoverError> {
        let is_chained =
            self.last.map_or(header.sequence > 1 || header.predecessor == 0, |last| header.predecessor == last.crc);
        if !is_chained || header.durable >= header.sequence {
            let damage = Damage::Chain { sequence: header.sequence };
            return Err(RecoverError::damaged(self.path(place.segment), place.offset, damage));
        }
        // Every block goes out of the queue once at most.
        while self.unsure.front().is_some_and(|block| block.sequence <= header.durable) {
            self.unsure.pop_front();
        }
        let length_bytes = align_up(header.length_bytes as usize);
        let segment = self.segments[place.segment].index;
        if Mistake::FormerSegmentNotMadeDurable.is_made() {
            self.unsure.retain(|block| block.segment == segment);
        }
        self.unsure.push_back(BlockPlace { sequence: header.sequence, segment, offset: place.offset, length_bytes });
        let offset = place.offset + length_bytes as u64;
        (self.last, self.last_at) = (Some(header), place.offset);
        self.place = Place { segment: place.segment, offset };
        Ok(())
    }

    /// The block at `place`, if a whole one of this stream is there.
    fn intact_block(&mut self, place: Place) -> Result<Option<BlockHeader>, RecoverError> {
        if place.segment >= self.segments.len() {
            return Ok(None);
        }
        let segment = self.enter(place.segment)?;
        let end = self.end_of(place.segment, &segment);
        let window = self.window.as_mut().expect("the segment was entered");
        let Some(header) = BlockHeader::peek(window.bytes(self.device, place.offset, HEADER_BYTES)?) else {
            return Ok(None);
        };
        let is_plausible = header.stream == self.stream
            && header.length_bytes <= segment.batch_bytes_max
            && place.offset + u64::from(header.length_bytes) <= end;
        if !is_plausible {
            return Ok(None);
        }
        let block = window.bytes(self.device, place.offset, header.length_bytes as usize)?;
        Ok(header.is_intact(block, segment.salt).then_some(header))
    }

    /// Brings a segment into the window and returns its header.
    fn enter(&mut self, segment: usize) -> Result<SegmentHeader, RecoverError> {
        let path = self.path(segment);
        if let (Some(window), Some(header)) = (&self.window, self.segment)
            && window.path() == path
        {
            return Ok(header);
        }
        match &mut self.window {
            Some(window) => window.reopen(self.device, path)?,
            None => self.window = Some(Window::open(self.device, path)?),
        }
        let window = self.window.as_mut().expect("it was opened above");
        let decoded = SegmentHeader::decode(window.bytes(self.device, 0, ALIGNMENT_BYTES)?);
        let path = || window.path().to_owned();
        let header = match decoded {
            Ok(header) if (header.stream, header.index) == (self.stream, self.segments[segment].index) => header,
            Err(HeaderFault::Version(found)) => {
                return Err(RecoverError::Version { path: path(), found, supported: SEGMENT_VERSION });
            }
            _ => return Err(RecoverError::damaged(path(), 0, Damage::Header)),
        };
        self.segment = Some(header);
        Ok(header)
    }

    /// Where a segment ends whose header is this: a search goes no further than the file, and a block that does is none.
    fn end_of(&self, segment: usize, header: &SegmentHeader) -> u64 {
        header.segment_bytes.min(self.segments[segment].bytes)
    }

    /// Decides whether the block that is missing at `place` was torn by a crash or is damage. See the module.
    fn judge_hole(&mut self) -> Result<(), RecoverError> {
        let hole = self.place;
        let sequence = self.last_block() + 1;
        let is_trimmed = self.has_lost_its_front();
        let is_durable = self.durable_mark_behind(hole)? >= sequence && !Mistake::DamageTakenForTornTail.is_made();
        let is_torn = Mistake::TornTailTakenForDamage.is_made() && !self.is_blank(hole)?;
        let is_damage = self.end != OPEN || is_trimmed || is_durable || is_torn;
        if is_damage {
            let sequence = if is_trimmed { 0 } else { sequence };
            let place = self.missing_from(hole)?;
            return Err(RecoverError::damaged(self.path(place.segment), place.offset, Damage::Block { sequence }));
        }
        Ok(())
    }

    /// Where the block that is missing at `hole` was: there, or in front of the next segment if nothing was written at `hole`.
    fn missing_from(&mut self, hole: Place) -> Result<Place, RecoverError> {
        let following = Place { segment: hole.segment + 1, offset: BLOCKS_FROM };
        let is_following = self.is_blank(hole)? && !self.is_blank(following)?;
        Ok(if is_following { following } else { hole })
    }

    fn is_blank(&mut self, place: Place) -> Result<bool, RecoverError> {
        if place.segment >= self.segments.len() {
            return Ok(true);
        }
        self.enter(place.segment)?;
        let window = self.window.as_mut().expect("the segment was entered");
        Ok(window.bytes(self.device, place.offset, HEADER_BYTES)?.iter().all(|byte| *byte == 0))
    }

    /// The highest durable sequence that any intact block behind `hole` names.
    fn durable_mark_behind(&mut self, hole: Place) -> Result<u64, RecoverError> {
        let mut mark = 0;
        let mut place = hole;
        while place.segment < self.segments.len() {
            let header = self.enter(place.segment)?;
            let end = self.end_of(place.segment, &header);
            let step = match self.intact_block(place)? {
                Some(header) => {
                    mark = mark.max(header.durable);
                    align_up(header.length_bytes as usize)
                }
                None => ALIGNMENT_BYTES,
            };
            place.offset += step as u64;
            if place.offset >= end {
                place = Place { segment: place.segment + 1, offset: BLOCKS_FROM };
            }
        }
        Ok(mark)
    }
}

/// A stream's segments. One that is missing in the middle is damage.
fn list_segments(device: &mut impl Device, stream: StreamId) -> Result<Vec<SegmentFile>, RecoverError> {
    let entries = device.list(&layout::stream(stream))?;
    let file = |entry: &Entry| Some(SegmentFile { index: layout::number(&entry.name, ".log")?, bytes: entry.bytes });
    let mut segments: Vec<SegmentFile> = entries.iter().filter_map(file).collect();
    segments.sort_unstable_by_key(|file| file.index);
    let Some(gap) = segments.windows(2).find(|pair| pair[0].index + 1 != pair[1].index) else { return Ok(segments) };
    Err(RecoverError::damaged(layout::segment(stream, gap[0].index + 1), 0, Damage::Missing))
}

/// Writes `blocks` of a stream once more, so that they are durable whatever became of them before. Blocks.
pub fn make_durable(device: &mut impl Device, stream: StreamId, blocks: &[BlockPlace]) -> Result<(), RecoverError> {
    for block in blocks {
        let path = layout::segment(stream, block.segment);
        let mut window = Window::open(device, path.clone())?;
        let rewritten = window
            .bytes(device, block.offset, block.length_bytes)
            .map(<[u8]>::to_vec)
            .and_then(|bytes| device.overwrite(&path, block.offset, &bytes));
        window.close(device);
        rewritten?;
    }
    Ok(())
}

/// Removes what lies behind the end of a closed stream: the rest of its last segment, all segments after it, and one that was
/// never finished. `used` is as [`StreamReader::used`] said. Doing it again does no harm.
pub fn cut(device: &mut impl Device, stream: StreamId, used: (u64, u64)) -> Result<(), RecoverError> {
    for file in list_segments(device, stream)?.into_iter().rev().filter(|file| file.index > used.0) {
        device.remove(&layout::segment(stream, file.index))?;
    }
    let directory = layout::stream(stream);
    for entry in device.list(&directory)?.into_iter().filter(|entry| layout::is_temporary(&entry.name)) {
        device.remove(&directory.join(entry.name))?;
    }
    device.truncate(&layout::segment(stream, used.0), used.1)?;
    Ok(())
}

/// Removes a stream that nothing needs any more. Doing it again does no harm.
pub fn remove(device: &mut impl Device, stream: StreamId) -> Result<(), RecoverError> {
    let directory = layout::stream(stream);
    for entry in device.list(&directory)? {
        device.remove(&directory.join(entry.name))?;
    }
    device.remove_directory(&directory)?;
    device.sync_directory(Path::new(layout::LOG))?;
    Ok(())
}

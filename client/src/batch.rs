//! From a lane's bytes to whole frames.
//!
//! A [`LaneBuffer`] collects what a stream delivers; as soon as it holds whole frames they move to the [`FrameBatch`] by swapping
//! buffers, and only the torn tail is copied. Frames are borrowed from the batch, so that in steady state nothing is
//! allocated per frame or per batch.
//!
//! Invariants: a batch holds whole frames of known types or of unknown, skippable ones; buffers grow only while reads fill
//! them, to at most [`READ_BYTES_MAX`] beyond the longest frame. Deliberately absent: what frames mean.

use crate::error::SessionError;
use std::task::{Context, Poll, ready};
use tickwheel_wire::frame::{FrameHeader, FrameType};

/// How many lanes a session has.
pub const LANE_COUNT: usize = 4;
/// First size of a read, in bytes; an idle session's buffers stay this small.
const READ_BYTES_MIN: usize = 4 << 10;
/// Largest read, in bytes.
const READ_BYTES_MAX: usize = 256 << 10;

/// One of a session's four streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Sessions, requests, heartbeats.
    Control = 0,
    /// Work of priority P0.
    P0 = 1,
    /// Work of priority P1.
    P1 = 2,
    /// Work of priority P2.
    P2 = 3,
}

impl Lane {
    /// Every lane, in the order in which they are opened and read.
    pub const ALL: [Self; LANE_COUNT] = [Self::Control, Self::P0, Self::P1, Self::P2];

    /// The lane of work of this priority.
    pub const fn of(priority: tickwheel_wire::job::Priority) -> Self {
        use tickwheel_wire::job::Priority;
        match priority {
            Priority::P0 => Self::P0,
            Priority::P1 => Self::P1,
            Priority::P2 => Self::P2,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// A frame borrowed from a [`FrameBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    /// The lane that it came on.
    pub lane: Lane,
    /// What the body is.
    pub frame_type: FrameType,
    /// The body, for `Frame::decode_body`.
    pub body: &'a [u8],
}

/// Whole frames of all lanes, in the order of the lanes and within a lane as they were sent.
///
/// Reuse one batch for all calls of [`crate::SessionReceiver::receive`]: it keeps its buffers.
#[derive(Debug, Default)]
pub struct FrameBatch {
    lanes: [Chunk; LANE_COUNT],
}

/// Bytes of one lane: `bytes[start..whole]` are whole frames.
#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    start: usize,
    whole: usize,
}

impl FrameBatch {
    /// An empty batch without buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The frames.
    pub fn frames(&self) -> impl Iterator<Item = RawFrame<'_>> {
        Lane::ALL.into_iter().flat_map(|lane| {
            let chunk = &self.lanes[lane.index()];
            Frames { lane, rest: &chunk.bytes[chunk.start..chunk.whole] }
        })
    }

    /// Whether there is no frame in it.
    pub fn is_empty(&self) -> bool {
        self.frames().next().is_none()
    }

    /// Forgets the frames, keeps the buffers.
    pub fn clear(&mut self) {
        for chunk in &mut self.lanes {
            (chunk.start, chunk.whole) = (0, 0);
        }
    }

    /// Forgets the frames up to and including the first known one.
    pub(crate) fn drop_first(&mut self) {
        for (chunk, lane) in self.lanes.iter_mut().zip(Lane::ALL) {
            let mut frames = Frames { lane, rest: &chunk.bytes[chunk.start..chunk.whole] };
            let found = frames.next().is_some();
            chunk.start = chunk.whole - frames.rest.len();
            if found {
                return;
            }
        }
    }
}

struct Frames<'a> {
    lane: Lane,
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = RawFrame<'a>;

    #[inline]
    fn next(&mut self) -> Option<RawFrame<'a>> {
        loop {
            let (head, rest) = self.rest.split_first_chunk::<{ FrameHeader::BYTES }>()?;
            let header = FrameHeader::from_bytes(head).expect("a header is three integers");
            let (body, rest) = rest.split_at(header.body_bytes as usize);
            self.rest = rest;
            if let Some(frame_type) = FrameType::from_number(header.frame_type) {
                return Some(RawFrame { lane: self.lane, frame_type, body });
            }
        }
    }
}

/// What a lane delivered and what is not yet a whole frame.
#[derive(Debug)]
pub(crate) struct LaneBuffer {
    /// Initialised throughout, so that reads need no zeroing; `bytes[..filled]` is data.
    bytes: Vec<u8>,
    filled: usize,
    /// `bytes[..whole]` are whole frames.
    whole: usize,
    read_bytes: usize,
}

impl LaneBuffer {
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), filled: 0, whole: 0, read_bytes: READ_BYTES_MIN }
    }

    /// Reads once from `stream`. Ready when at least one whole frame is there.
    pub fn poll_frames(
        &mut self,
        stream: &mut quinn::RecvStream,
        context: &mut Context<'_>,
        frame_bytes_max: u32,
    ) -> Poll<Result<(), SessionError>> {
        loop {
            let spare = self.spare();
            let read = ready!(stream.poll_read(context, spare))?;
            if read == 0 {
                return Poll::Ready(Err(SessionError::LaneClosed));
            }
            self.advance(read, frame_bytes_max)?;
            if self.whole > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Room for the next read.
    fn spare(&mut self) -> &mut [u8] {
        let end = self.filled + self.read_bytes;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.filled..end]
    }

    /// Takes notice of `read` more bytes.
    fn advance(&mut self, read: usize, frame_bytes_max: u32) -> Result<(), SessionError> {
        self.filled += read;
        if read == self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        }
        while let Some(head) = self.bytes[self.whole..self.filled].first_chunk::<{ FrameHeader::BYTES }>() {
            let header = FrameHeader::from_bytes(head).expect("a header is three integers");
            if header.body_bytes > frame_bytes_max {
                return Err(SessionError::FrameTooLarge { bytes: header.body_bytes, bytes_max: frame_bytes_max });
            }
            if header.is_critical() && FrameType::from_number(header.frame_type).is_none() {
                return Err(SessionError::UnknownFrame(header.frame_type));
            }
            let end = self.whole + FrameHeader::BYTES + header.body_bytes as usize;
            if end > self.filled {
                break;
            }
            self.whole = end;
        }
        Ok(())
    }

    /// Moves the whole frames into the batch; the torn tail stays here.
    pub fn move_to(&mut self, batch: &mut FrameBatch, lane: Lane) {
        let chunk = &mut batch.lanes[lane.index()];
        std::mem::swap(&mut self.bytes, &mut chunk.bytes);
        (chunk.start, chunk.whole) = (0, self.whole);
        let tail = &chunk.bytes[self.whole..self.filled];
        if self.bytes.len() < tail.len() {
            self.bytes.resize(tail.len(), 0);
        }
        self.bytes[..tail.len()].copy_from_slice(tail);
        self.filled = tail.len();
        self.whole = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickwheel_wire::frame::{Frame, work::Capacity};

    const BODY_BYTES_MAX: u32 = 1 << 20;

    fn stream(frames: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for capacity in 0..frames {
            Capacity { capacity }.encode(&mut bytes);
        }
        bytes
    }

    /// Feeds `bytes` in pieces of `piece` and returns the capacities that came out.
    fn through(bytes: &[u8], piece: usize) -> Vec<u32> {
        let (mut buffer, mut batch, mut seen) = (LaneBuffer::new(), FrameBatch::new(), Vec::new());
        for part in bytes.chunks(piece) {
            buffer.spare()[..part.len()].copy_from_slice(part);
            buffer.advance(part.len(), BODY_BYTES_MAX).unwrap();
            if buffer.whole > 0 {
                buffer.move_to(&mut batch, Lane::P1);
                seen.extend(batch.frames().map(|frame| {
                    assert_eq!(frame.lane, Lane::P1);
                    Capacity::decode_body(frame.body).unwrap().capacity
                }));
            }
        }
        assert_eq!(buffer.filled, 0);
        seen
    }

    #[test]
    fn frames_come_out_whole_and_in_order_however_the_bytes_are_cut() {
        let bytes = stream(200);
        for piece in [1, 2, 7, 8, 11, 12, 13, 100, 2400] {
            assert_eq!(through(&bytes, piece), (0..200).collect::<Vec<_>>(), "pieces of {piece}");
        }
    }

    #[test]
    fn unknown_frames_are_skipped_unless_critical() {
        let mut bytes = FrameHeader { body_bytes: 3, frame_type: 0x7777, flags: 0 }.to_bytes().to_vec();
        bytes.extend_from_slice(b"???");
        bytes.extend(stream(2));
        assert_eq!(through(&bytes, 5), [0, 1]);

        let head = FrameHeader { body_bytes: 0, frame_type: 0x7777, flags: FrameHeader::CRITICAL }.to_bytes();
        let mut buffer = LaneBuffer::new();
        buffer.spare()[..8].copy_from_slice(&head);
        assert_eq!(buffer.advance(8, BODY_BYTES_MAX), Err(SessionError::UnknownFrame(0x7777)));
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_before_it_is_collected() {
        let head = FrameHeader { body_bytes: 101, frame_type: FrameType::JobView.number(), flags: 1 }.to_bytes();
        let mut buffer = LaneBuffer::new();
        buffer.spare()[..8].copy_from_slice(&head);
        assert_eq!(buffer.advance(8, 100), Err(SessionError::FrameTooLarge { bytes: 101, bytes_max: 100 }));
    }
}

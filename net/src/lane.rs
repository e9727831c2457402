//! Lanes: the byte streams of a session, cut into frames on the way in and gathered on the way out.
//!
//! A session has [`LANE_COUNT`] lanes. Lane n is the n-th bidirectional stream that the client opens; answers go back on
//! the same stream. Every frame begins with a [`FrameHeader`].
//!
//! Invariants: a frame that lies whole in one chunk is delivered without a copy; at most one frame per lane is partly
//! held, and no more of it than has arrived; a body longer than the limit is refused as soon as its header is seen.

use quinn_proto::{Dir, Side, StreamId};
use tickwheel_wire::{SessionId, frame::FrameHeader, job::Priority, planted::Mistake};

use crate::close::{Close, CloseCode};

/// Lanes per session.
pub const LANE_COUNT: usize = 4;
/// A buffer that grew beyond this is given back once it is empty, so that idle sessions stay small.
const RETAINED_BYTES_MAX: usize = 64 << 10;

/// One of a session's streams. Higher lanes wait for lower ones when the path is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// `Hello`, requests and their answers, all that is not work.
    Control = 0,
    /// Work of priority P0.
    P0 = 1,
    /// Work of priority P1.
    P1 = 2,
    /// Work of priority P2.
    P2 = 3,
}

impl Lane {
    /// Every lane, the most urgent first.
    pub const ALL: [Self; LANE_COUNT] = [Self::Control, Self::P0, Self::P1, Self::P2];

    /// The lane's number.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The lane with this number.
    pub fn from_index(index: u64) -> Option<Self> {
        usize::try_from(index).ok().and_then(|index| Self::ALL.get(index).copied())
    }

    /// The stream that carries the lane.
    pub(crate) fn stream_id(self) -> StreamId {
        StreamId::new(Side::Client, Dir::Bi, self as u64)
    }

    /// How many bytes of a send window the lane may fill: all of it for control, a quarter less for each lane below.
    pub(crate) const fn share_of(self, send_window_bytes: u32) -> u64 {
        let quarters = (LANE_COUNT - self.index()) as u64;
        send_window_bytes as u64 * quarters / LANE_COUNT as u64
    }

    /// What quinn calls priority: larger goes first.
    pub(crate) const fn send_priority(self) -> i32 {
        -(self as i32)
    }
}

impl From<Priority> for Lane {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::P0 => Self::P0,
            Priority::P1 => Self::P1,
            Priority::P2 => Self::P2,
        }
    }
}

/// A received frame, borrowed from the buffer it arrived in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type number, see [`FrameType`](tickwheel_wire::frame::FrameType).
    pub frame_type: u16,
    /// Flags.
    pub flags: u16,
    /// The body, at most [`EndpointConfig::frame_bytes_max`](crate::EndpointConfig::frame_bytes_max) bytes.
    pub body: &'a [u8],
}

/// What the reader of a lane accepts.
#[derive(Clone, Copy)]
pub(crate) struct FrameRules {
    pub(crate) frame_bytes_max: u32,
    pub(crate) is_known_frame: fn(u16) -> bool,
}

impl FrameRules {
    fn header(self, bytes: &[u8; FrameHeader::BYTES]) -> Result<FrameHeader, Close> {
        let header = FrameHeader::from_bytes(bytes)
            .map_err(|error| Close::new(CloseCode::MalformedFrame, format!("a frame's header: {error}")))?;
        if header.body_bytes > self.frame_bytes_max {
            let reason =
                format!("a frame of {} bytes exceeds the limit of {}", header.body_bytes, self.frame_bytes_max);
            return Err(Close::new(CloseCode::FrameTooLarge, reason));
        }
        Ok(header)
    }

    /// Hands the frame on, skips it, or refuses it.
    #[inline]
    fn deliver(self, header: &FrameHeader, body: &[u8], sink: &mut impl FrameSink) -> Result<(), Close> {
        if (self.is_known_frame)(header.frame_type) {
            return sink.take(Frame { frame_type: header.frame_type, flags: header.flags, body });
        }
        if !header.is_critical() {
            return Ok(());
        }
        let reason = format!("a critical frame has the unknown type {:#06x}", header.frame_type);
        Err(Close::new(CloseCode::UnknownFrame, reason))
    }
}

/// Takes the frames of sessions as [`Endpoint::read_frames`](crate::Endpoint::read_frames) reads them. A closure takes each as it comes.
pub trait FrameReader {
    /// Takes a frame.
    ///
    /// # Errors
    /// The close that ends the session; frames behind this one are dropped.
    fn take(&mut self, session: SessionId, lane: Lane, frame: Frame<'_>) -> Result<(), Close>;

    /// Looks at a frame that lies ready, so that what it will need can be fetched from memory. Only for speed: nothing is decided
    /// yet, the frame may be unknown, and some frames are taken without it.
    fn foresee(&mut self, _glance: Glance, _frame: Frame<'_>) {}
}

impl<T: FnMut(SessionId, Lane, Frame<'_>) -> Result<(), Close>> FrameReader for T {
    fn take(&mut self, session: SessionId, lane: Lane, frame: Frame<'_>) -> Result<(), Close> {
        self(session, lane, frame)
    }
}

/// A look at the frames of a chunk before they are taken. There are two, because what the first fetched may say what else is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// No frame of the chunk has been looked at a second time.
    First,
    /// Every frame of the chunk has been looked at once.
    Second,
}

/// Where the complete frames of one lane go; an error ends the session.
pub(crate) trait FrameSink {
    fn take(&mut self, frame: Frame<'_>) -> Result<(), Close>;
    fn foresee(&mut self, glance: Glance, frame: Frame<'_>);
}

/// A reader, as one lane of one session sees it.
pub(crate) struct LaneReader<'a, R> {
    pub(crate) reader: &'a mut R,
    pub(crate) session: SessionId,
    pub(crate) lane: Lane,
}

impl<R: FrameReader> FrameSink for LaneReader<'_, R> {
    #[inline]
    fn take(&mut self, frame: Frame<'_>) -> Result<(), Close> {
        self.reader.take(self.session, self.lane, frame)
    }

    #[inline]
    fn foresee(&mut self, glance: Glance, frame: Frame<'_>) {
        self.reader.foresee(glance, frame);
    }
}

/// Cuts one lane's bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct Reassembler {
    /// The beginning of a frame whose end has not arrived; empty between frames.
    partial: Vec<u8>,
}

impl Reassembler {
    /// Takes the next bytes of the lane and delivers every frame that they complete.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], rules: FrameRules, sink: &mut impl FrameSink) -> Result<(), Close> {
        if !self.partial.is_empty() && !self.complete_partial(&mut chunk, rules, sink)? {
            return Ok(());
        }
        for glance in [Glance::First, Glance::Second] {
            for (header, body) in whole_frames(chunk) {
                sink.foresee(glance, Frame { frame_type: header.frame_type, flags: header.flags, body });
            }
        }
        while let Some((head, rest)) = chunk.split_first_chunk() {
            let header = rules.header(head)?;
            let Some((body, rest)) = rest.split_at_checked(header.body_bytes as usize) else { break };
            rules.deliver(&header, body, sink)?;
            chunk = rest;
        }
        if !Mistake::SplitFrameLost.is_made() {
            self.partial.extend_from_slice(chunk);
        }
        Ok(())
    }

    /// Moves bytes from the front of `chunk` until the partial frame is whole, and delivers it; false if it still is not.
    fn complete_partial(
        &mut self,
        chunk: &mut &[u8],
        rules: FrameRules,
        sink: &mut impl FrameSink,
    ) -> Result<bool, Close> {
        self.fill(chunk, FrameHeader::BYTES);
        let Some((head, _)) = self.partial.split_first_chunk() else { return Ok(false) };
        let header = rules.header(head)?;
        let frame_bytes = FrameHeader::BYTES + header.body_bytes as usize;
        self.fill(chunk, frame_bytes);
        if self.partial.len() < frame_bytes {
            return Ok(false);
        }
        rules.deliver(&header, &self.partial[FrameHeader::BYTES..], sink)?;
        self.partial.clear();
        if self.partial.capacity() > RETAINED_BYTES_MAX {
            self.partial = Vec::new();
        }
        Ok(true)
    }

    /// Moves bytes until the partial frame has `target_bytes` or the chunk is used up.
    fn fill(&mut self, chunk: &mut &[u8], target_bytes: usize) {
        let missing_bytes = target_bytes.saturating_sub(self.partial.len()).min(chunk.len());
        let (head, rest) = chunk.split_at(missing_bytes);
        self.partial.extend_from_slice(head);
        *chunk = rest;
    }
}

/// The frames that lie whole in `chunk`, up to one that cannot be read; nothing is judged yet.
fn whole_frames(mut chunk: &[u8]) -> impl Iterator<Item = (FrameHeader, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = chunk.split_first_chunk()?;
        let header = FrameHeader::from_bytes(head).ok()?;
        let (body, rest) = rest.split_at_checked(header.body_bytes as usize)?;
        chunk = rest;
        Some((header, body))
    })
}

/// Encoded frames that QUIC has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    written_bytes: usize,
}

impl Outbox {
    /// The bytes still to be written.
    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written_bytes..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.written_bytes == self.bytes.len()
    }

    /// Lets `encode` append, and keeps what it appended if that is at most `bytes_max`. Returns how much it was.
    pub(crate) fn append(&mut self, bytes_max: usize, encode: impl FnOnce(&mut Vec<u8>)) -> Result<usize, usize> {
        let start = self.bytes.len();
        encode(&mut self.bytes);
        let added_bytes = self.bytes.len().checked_sub(start).expect("an encoder only appends");
        if added_bytes > bytes_max {
            self.bytes.truncate(start);
            return Err(added_bytes);
        }
        Ok(added_bytes)
    }

    /// Notes that QUIC took the first `count` unwritten bytes.
    pub(crate) fn advance(&mut self, count: usize) {
        self.written_bytes += count;
        assert!(self.written_bytes <= self.bytes.len(), "QUIC took more than it was given");
        if self.is_empty() {
            self.written_bytes = 0;
            self.bytes.clear();
            if self.bytes.capacity() > RETAINED_BYTES_MAX {
                self.bytes = Vec::new();
            }
        } else if self.written_bytes >= RETAINED_BYTES_MAX && self.written_bytes >= self.bytes.len() / 2 {
            // At least as much was written since the last move as is moved now, so moving stays linear.
            self.bytes.drain(..self.written_bytes);
            self.written_bytes = 0;
        }
    }
}

/// One lane of one session.
#[derive(Debug, Default)]
pub(crate) struct LaneState {
    pub(crate) incoming: Reassembler,
    pub(crate) outgoing: Outbox,
    /// The client has opened the stream; before that nothing can be written to it.
    pub(crate) is_open: bool,
    /// Bytes may wait to be read.
    pub(crate) is_readable: bool,
    /// QUIC takes nothing until it says so.
    pub(crate) is_blocked: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: FrameRules = FrameRules { frame_bytes_max: 5000, is_known_frame: |frame_type| frame_type < 0x8000 };

    type OwnedFrame = (u16, u16, Vec<u8>);

    struct Collector<'a>(&'a mut Vec<OwnedFrame>);

    impl FrameSink for Collector<'_> {
        fn take(&mut self, frame: Frame<'_>) -> Result<(), Close> {
            self.0.push((frame.frame_type, frame.flags, frame.body.to_vec()));
            Ok(())
        }

        fn foresee(&mut self, _glance: Glance, _frame: Frame<'_>) {}
    }

    fn encoded(frame_type: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let body_bytes = u32::try_from(body.len()).unwrap();
        let mut bytes = FrameHeader { body_bytes, frame_type, flags }.to_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    /// Feeds `stream` in chunks of the given sizes (the last one repeats) and collects what comes out.
    fn reassembled(stream: &[u8], chunk_sizes: &[usize]) -> (Vec<OwnedFrame>, Result<(), Close>) {
        let (mut reassembler, mut frames, mut rest, mut turn) = (Reassembler::default(), Vec::new(), stream, 0);
        while !rest.is_empty() {
            let size = chunk_sizes[turn.min(chunk_sizes.len() - 1)].clamp(1, rest.len());
            let (chunk, behind) = rest.split_at(size);
            if let Err(close) = reassembler.feed(chunk, RULES, &mut Collector(&mut frames)) {
                return (frames, Err(close));
            }
            (rest, turn) = (behind, turn + 1);
        }
        (frames, Ok(()))
    }

    proptest! {
        #[test]
        fn frames_come_out_the_same_however_the_stream_is_cut(
            frames in prop::collection::vec((0u16..0x8000, any::<u16>(), prop::collection::vec(any::<u8>(), 0..300)), 0..40),
            chunk_sizes in prop::collection::vec(1usize..400, 1..60),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|(kind, flags, body)| encoded(*kind, *flags, body)).collect();
            let (out, result) = reassembled(&stream, &chunk_sizes);
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(out, frames);
        }

        #[test]
        fn arbitrary_bytes_never_hold_more_than_one_frame(chunks in prop::collection::vec(any::<Vec<u8>>(), 0..40)) {
            let mut reassembler = Reassembler::default();
            for chunk in chunks {
                if reassembler.feed(&chunk, RULES, &mut Collector(&mut Vec::new())).is_err() {
                    break;
                }
                prop_assert!(reassembler.partial.len() < FrameHeader::BYTES + RULES.frame_bytes_max as usize);
            }
        }
    }

    #[test]
    fn every_split_of_a_short_stream_gives_the_same_frames() {
        let stream: Vec<u8> = [encoded(1, 0, b""), encoded(2, 1, b"ab"), encoded(3, 0, &[7; 20])].concat();
        let whole = reassembled(&stream, &[stream.len()]);
        assert_eq!(whole.0.len(), 3);
        for first in 1..stream.len() {
            for second in 1..=stream.len() - first {
                assert_eq!(reassembled(&stream, &[first, second, 1]), whole, "{first} {second}");
            }
        }
    }

    #[test]
    fn a_whole_frame_is_delivered_from_the_chunk_itself() {
        let stream = encoded(1, 0, b"body");
        let mut reassembler = Reassembler::default();
        let mut reader = |_: SessionId, _: Lane, frame: Frame<'_>| {
            assert!(stream.as_ptr_range().contains(&frame.body.as_ptr()));
            Ok(())
        };
        let mut sink = LaneReader { reader: &mut reader, session: SessionId(1), lane: Lane::P0 };
        assert_eq!(reassembler.feed(&stream, RULES, &mut sink), Ok(()));
        assert_eq!(reassembler.partial.capacity(), 0);
    }

    #[test]
    fn an_oversized_body_is_refused_at_its_header() {
        let header = FrameHeader { body_bytes: RULES.frame_bytes_max + 1, frame_type: 1, flags: 0 }.to_bytes();
        for chunk_size in 1..=header.len() {
            let (frames, result) = reassembled(&header, &[chunk_size]);
            assert_eq!((frames.len(), result.unwrap_err().code), (0, CloseCode::FrameTooLarge));
        }
        let largest = vec![0; RULES.frame_bytes_max as usize];
        assert_eq!(reassembled(&encoded(1, 0, &largest), &[100]).0.len(), 1);
    }

    #[test]
    fn unknown_frames_are_skipped_unless_critical() {
        let skipped: Vec<u8> = [encoded(0x9000, 0, b"?"), encoded(1, 0, b"a")].concat();
        for chunk_size in [1, 5, 100] {
            let (frames, result) = reassembled(&skipped, &[chunk_size]);
            assert_eq!((frames.len(), result), (1, Ok(())));
            let refused =
                [encoded(1, 0, b"a"), encoded(0x9000, FrameHeader::CRITICAL, b"?"), encoded(1, 0, b"b")].concat();
            let (frames, result) = reassembled(&refused, &[chunk_size]);
            assert_eq!((frames.len(), result.unwrap_err().code), (1, CloseCode::UnknownFrame));
        }
    }

    #[test]
    fn an_outbox_gives_back_every_byte_in_order_and_its_memory() {
        let (mut outbox, mut out) = (Outbox::default(), Vec::new());
        let input: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        for (turn, part) in input.chunks(7001).enumerate() {
            assert_eq!(outbox.append(usize::MAX, |bytes| bytes.extend_from_slice(part)), Ok(part.len()));
            let count = outbox.unwritten().len().min(turn * 331);
            out.extend_from_slice(&outbox.unwritten()[..count]);
            outbox.advance(count);
        }
        out.extend_from_slice(outbox.unwritten());
        outbox.advance(outbox.unwritten().len());
        assert!(out == input && outbox.is_empty());
        assert_eq!(outbox.bytes.capacity(), 0);
    }

    #[test]
    fn a_refused_append_leaves_the_outbox_as_it_was() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.append(4, |bytes| bytes.extend_from_slice(b"abcd")), Ok(4));
        assert_eq!(outbox.append(1, |bytes| bytes.extend_from_slice(b"xy")), Err(2));
        assert_eq!(outbox.unwritten(), b"abcd");
    }
}

//! Lanes: the byte streams of a session, cut into frames on the way in and gathered on the way out.
//!
//! A session has [`LANE_COUNT`] lanes. Lane n is the n-th bidirectional stream that the client opens; answers go back on
//! the same stream. Every frame begins with a header of eight bytes (body length `u32`, type `u16`, flags `u16`,
//! little-endian).
//!
//! Invariants: a frame that lies whole in one chunk is delivered without a copy; at most one frame per lane is partly
//! held, and no more of it than has arrived; a body longer than the limit is refused as soon as its header is seen.

use quinn_proto::{Dir, Side, StreamId};

use crate::close::{Close, CloseCode};

/// Lanes per session.
pub const LANE_COUNT: usize = 4;
/// Length of a frame's header in bytes.
pub(crate) const HEADER_BYTES: usize = 8;
/// A buffer that grew beyond this is given back once it is empty, so that idle sessions stay small.
const RETAINED_BYTES_MAX: usize = 64 << 10;
/// Flag bit of a frame whose type the receiver has to know.
const CRITICAL: u16 = 1;

/// One of a session's streams. Higher lanes wait for lower ones when the path is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Hello, credit, heartbeats, requests that are not work.
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

    /// What quinn calls priority: larger goes first.
    pub(crate) const fn send_priority(self) -> i32 {
        -(self as i32)
    }
}

/// A received frame, borrowed from the buffer it arrived in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type number.
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

struct Header {
    body_bytes: usize,
    frame_type: u16,
    flags: u16,
}

impl FrameRules {
    fn header(self, bytes: [u8; HEADER_BYTES]) -> Result<Header, Close> {
        let [l0, l1, l2, l3, t0, t1, f0, f1] = bytes;
        let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]);
        if body_bytes > self.frame_bytes_max {
            let reason = format!("a frame of {body_bytes} bytes exceeds the limit of {}", self.frame_bytes_max);
            return Err(Close::new(CloseCode::FrameTooLarge, reason));
        }
        let (frame_type, flags) = (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([f0, f1]));
        Ok(Header { body_bytes: body_bytes as usize, frame_type, flags })
    }

    /// Hands the frame on, skips it, or refuses it.
    #[inline]
    fn deliver(self, header: &Header, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Close> {
        if (self.is_known_frame)(header.frame_type) {
            return sink(Frame { frame_type: header.frame_type, flags: header.flags, body });
        }
        if header.flags & CRITICAL == 0 {
            return Ok(());
        }
        let reason = format!("a critical frame has the unknown type {:#06x}", header.frame_type);
        Err(Close::new(CloseCode::UnknownFrame, reason))
    }
}

/// Where complete frames go; an error ends the session.
pub(crate) type Sink<'a> = dyn FnMut(Frame<'_>) -> Result<(), Close> + 'a;

/// Cuts one lane's bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct Reassembler {
    /// The beginning of a frame whose end has not arrived; empty between frames.
    partial: Vec<u8>,
}

impl Reassembler {
    /// Takes the next bytes of the lane and delivers every frame that they complete.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], rules: FrameRules, sink: &mut Sink<'_>) -> Result<(), Close> {
        if !self.partial.is_empty() && !self.complete_partial(&mut chunk, rules, sink)? {
            return Ok(());
        }
        while let Some((head, rest)) = chunk.split_first_chunk::<HEADER_BYTES>() {
            let header = rules.header(*head)?;
            let Some((body, rest)) = rest.split_at_checked(header.body_bytes) else { break };
            rules.deliver(&header, body, sink)?;
            chunk = rest;
        }
        self.partial.extend_from_slice(chunk);
        Ok(())
    }

    /// Moves bytes from the front of `chunk` until the partial frame is whole, and delivers it; false if it still is not.
    fn complete_partial(&mut self, chunk: &mut &[u8], rules: FrameRules, sink: &mut Sink<'_>) -> Result<bool, Close> {
        self.fill(chunk, HEADER_BYTES);
        let Some((head, _)) = self.partial.split_first_chunk::<HEADER_BYTES>() else { return Ok(false) };
        let header = rules.header(*head)?;
        self.fill(chunk, HEADER_BYTES + header.body_bytes);
        let body = &self.partial[HEADER_BYTES..];
        if body.len() < header.body_bytes {
            return Ok(false);
        }
        rules.deliver(&header, body, sink)?;
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

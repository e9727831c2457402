//! One connection and its lanes.
//!
//! Life: handshaking, then open (from [`Event::Opened`](crate::Event::Opened) to [`Event::Closed`](crate::Event::Closed)), then
//! closed while QUIC drains what is in flight. A session moves forward only. Buffers of a closed session are given back
//! at once.

use quinn_proto::{Connection, ReadError, WriteError};
use rustls_pki_types::CertificateDer;
use std::{net::SocketAddr, time::Instant};
use tickwheel_wire::{SessionId, planted::Mistake};

use crate::{
    close::{Close, CloseCode},
    identity::{Identity, IdentityError},
    lane::{FrameRules, FrameSink, LANE_COUNT, Lane, LaneState},
};

/// Bytes per write into a stream. QUIC frees what was acknowledged only by whole writes, so one as large as the window
/// would stall it; many small ones would make it search.
const WRITE_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Given up at the deadline.
    Handshaking {
        deadline: Instant,
    },
    Open,
    Closed,
}

pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) connection: Connection,
    pub(crate) phase: Phase,
    /// Address at the time of the handshake.
    pub(crate) remote: SocketAddr,
    pub(crate) lanes: [LaneState; LANE_COUNT],
    /// Sum over the lanes of what QUIC has not taken yet.
    pub(crate) backlog_bytes: usize,
    /// A send was refused for the backlog, and the sender is to be told when there is room again.
    pub(crate) owes_writable: bool,
}

/// What one read of one lane did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneRead {
    pub(crate) bytes: usize,
    /// The flow control window moved far enough to tell the peer.
    pub(crate) should_transmit: bool,
}

impl Session {
    pub(crate) fn new(id: SessionId, connection: Connection, deadline: Instant) -> Self {
        let remote = connection.remote_address();
        let phase = Phase::Handshaking { deadline };
        Self { id, connection, phase, remote, lanes: Default::default(), backlog_bytes: 0, owes_writable: false }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The earliest time at which something has to be done without a datagram.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        let quic = self.connection.poll_timeout();
        match self.phase {
            Phase::Handshaking { deadline } => Some(quic.map_or(deadline, |quic| quic.min(deadline))),
            Phase::Open | Phase::Closed => quic,
        }
    }

    /// Who the peer is, by the certificate that TLS verified.
    pub(crate) fn identity(&self) -> Result<Identity, IdentityError> {
        let chain = self.connection.crypto_session().peer_identity();
        let chain = chain.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let chain = chain.ok_or(IdentityError::NoCertificate)?;
        Identity::from_certificate(chain.first().ok_or(IdentityError::NoCertificate)?)
    }

    /// Notes that the client opened `lane`.
    pub(crate) fn open_lane(&mut self, lane: Lane) -> Result<(), Close> {
        let state = &mut self.lanes[lane.index()];
        state.is_open = true;
        state.is_readable = true;
        self.connection.send_stream(lane.stream_id()).set_priority(lane.send_priority()).map_err(|_| lane_closed(lane))
    }

    /// Delivers what has arrived on `lane`, at least one byte and at most twice `bytes_max` if there is that much.
    pub(crate) fn read_lane(
        &mut self,
        lane: Lane,
        bytes_max: usize,
        rules: FrameRules,
        sink: &mut impl FrameSink,
    ) -> Result<LaneRead, Close> {
        let state = &mut self.lanes[lane.index()];
        let mut stream = self.connection.recv_stream(lane.stream_id());
        let mut chunks = stream.read(true).map_err(|_| lane_closed(lane))?;
        let mut read = LaneRead::default();
        while read.bytes < bytes_max {
            match chunks.next(bytes_max) {
                Ok(Some(chunk)) => {
                    read.bytes += chunk.bytes.len();
                    state.incoming.feed(&chunk.bytes, rules, sink)?;
                }
                Err(ReadError::Blocked) => {
                    state.is_readable = false;
                    break;
                }
                Ok(None) | Err(ReadError::Reset(_)) => return Err(lane_closed(lane)),
            }
        }
        read.should_transmit = chunks.finalize().should_transmit();
        Ok(read)
    }

    /// Hands waiting bytes to QUIC, the most urgent lane first, until it takes no more. Returns how many it took.
    ///
    /// What QUIC has taken counts against its send window until it is acknowledged, whichever lane it is of. So that
    /// bulk on a lower lane cannot keep urgent bytes out, each lane may fill the window only up to its own share.
    pub(crate) fn write_lanes(&mut self, send_window_bytes: u32) -> Result<usize, Close> {
        let mut taken_bytes = 0;
        for lane in Lane::ALL {
            let state = &mut self.lanes[lane.index()];
            if !state.is_open || state.is_blocked || state.outgoing.is_empty() {
                continue;
            }
            self.connection.set_send_window(lane.share_of(send_window_bytes));
            let mut stream = self.connection.send_stream(lane.stream_id());
            while !state.outgoing.is_empty() {
                let unwritten = state.outgoing.unwritten();
                match stream.write(&unwritten[..unwritten.len().min(WRITE_BYTES_MAX)]) {
                    Ok(count) => {
                        state.outgoing.advance(count);
                        taken_bytes += count;
                    }
                    Err(WriteError::Blocked) => {
                        state.is_blocked = true;
                        if Mistake::BlockedLaneMiscounted.is_made() {
                            return Ok(taken_bytes);
                        }
                        break;
                    }
                    Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return Err(lane_closed(lane)),
                }
            }
        }
        // With the whole window in force QUIC says at the next acknowledgement that blocked lanes may try again.
        self.connection.set_send_window(send_window_bytes.into());
        self.backlog_bytes -= taken_bytes;
        Ok(taken_bytes)
    }

    /// Ends the session's open life and gives back its buffers; QUIC goes on draining.
    pub(crate) fn retire(&mut self) {
        self.phase = Phase::Closed;
        self.lanes = Default::default();
        self.backlog_bytes = 0;
        self.owes_writable = false;
    }
}

pub(crate) fn lane_closed(lane: Lane) -> Close {
    Close::new(CloseCode::LaneClosed, format!("lane {} ended before its session", lane.index()))
}

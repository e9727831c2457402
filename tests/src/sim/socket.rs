//! The socket of a simulated shard: datagrams that have arrived, and datagrams to be sent.

use bytes::BytesMut;
use quinn_proto::EcnCodepoint;
use std::{collections::VecDeque, io, net::SocketAddr};
use tickwheel_server::runtime::socket::{Datagram, DatagramSocket, Outgoing, Received, Sent};

/// Datagrams that wait to be read, at most; a kernel drops what comes on top.
const WAITING_MAX: usize = 4_096;
/// Datagrams read in one turn.
const READ_MAX: usize = 64;

/// A datagram on its way out.
#[derive(Debug)]
pub struct Sending {
    /// Where to.
    pub to: SocketAddr,
    /// Its congestion mark.
    pub ecn: Option<EcnCodepoint>,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The socket.
#[derive(Debug, Default)]
pub struct SimulatedSocket {
    waiting: VecDeque<Datagram>,
    /// What the shard has sent since this was last taken.
    pub sent: Vec<Sending>,
}

impl SimulatedSocket {
    /// A datagram arrives.
    pub fn deliver(&mut self, remote: SocketAddr, ecn: Option<EcnCodepoint>, bytes: &[u8]) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(Datagram { remote, local_ip: None, ecn, bytes: BytesMut::from(bytes) });
        }
    }

    /// Whether something waits to be read.
    pub fn is_readable(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl DatagramSocket for SimulatedSocket {
    fn receive(&mut self, mut handle: impl FnMut(Datagram)) -> io::Result<Received> {
        for _ in 0..READ_MAX {
            let Some(datagram) = self.waiting.pop_front() else { return Ok(Received::Drained) };
            handle(datagram);
        }
        Ok(Received::More)
    }

    fn segments_max(&self, _segment_bytes: usize) -> usize {
        10
    }

    fn try_send(&mut self, outgoing: &Outgoing<'_>) -> Sent {
        let segment_bytes = outgoing.segment_bytes.unwrap_or(outgoing.contents.len());
        for segment in outgoing.contents.chunks(segment_bytes) {
            self.sent.push(Sending { to: outgoing.destination, ecn: outgoing.ecn, bytes: segment.to_vec() });
        }
        Sent::Taken
    }
}

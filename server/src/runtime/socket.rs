//! The UDP socket of one shard: datagrams in and out, many per system call.
//!
//! Receiving takes up to 32 messages per call, each of which the kernel may have merged from up to 64 datagrams (GRO); sending hands
//! over up to 64 datagrams at once (GSO). Invariants: nothing here blocks; a receive takes a bounded number of messages, so a
//! flood cannot hold a turn; a send that would block is reported and the datagrams stay the caller's; buffers are allocated
//! once, and datagrams are handed out as slices of a block that is reused once all of them are dropped.
//!
//! Deliberately absent: QUIC (see `net`), pacing, and waiting for readiness, which is [`super::idle`]'s with the descriptor from
//! [`ShardSocket::as_fd`].

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use bytes::BytesMut;
use quinn_proto::EcnCodepoint;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use super::{counters::ShardCounters, sys};

/// Most datagrams of one send: the kernel's bound.
pub const SEGMENTS_MAX: usize = 64;
/// Most bytes of one send: the largest payload of a UDP datagram over IPv4.
pub const SEND_BYTES_MAX: usize = 65_507;

/// The largest message that the kernel merges from several datagrams.
const MESSAGE_BYTES_MAX: usize = 65_536;
/// The block that received datagrams are sliced from.
const BLOCK_BYTES: usize = 1 << 20;

/// What a shard's socket asks of the system.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Receive buffer in the kernel, in bytes. Default 8 MiB.
    pub receive_buffer_bytes: usize,
    /// Send buffer in the kernel, in bytes. Default 8 MiB.
    pub send_buffer_bytes: usize,
    /// Most messages that one [`ShardSocket::receive`] takes, rounded up to a multiple of 32. Default 64.
    pub messages_per_receive_max: usize,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { receive_buffer_bytes: 8 << 20, send_buffer_bytes: 8 << 20, messages_per_receive_max: 64 }
    }
}

/// Why a shard has no socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process has the port.
    #[error("the UDP address {address} is in use: stop the other server, or choose another --listen address")]
    InUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The port needs a privilege, or the address is forbidden.
    #[error("the UDP address {address} is not permitted: choose a --listen port above 1023")]
    Denied {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The address is not one of this machine.
    #[error("the UDP address {address} is not one of this machine: choose another --listen address")]
    NotLocal {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot open the UDP address {address}: {source}")]
    System {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A datagram that arrived.
#[derive(Debug)]
pub struct Datagram {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The local address it was sent to, if the system told.
    pub local_ip: Option<IpAddr>,
    /// Its congestion mark.
    pub ecn: Option<EcnCodepoint>,
    /// Its bytes: a slice of a shared block.
    pub bytes: BytesMut,
}

/// Datagrams to one destination, handed to the system together.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where they go.
    pub destination: SocketAddr,
    /// The local address they come from; `None` leaves it to the system.
    pub source_ip: Option<IpAddr>,
    /// Their congestion mark.
    pub ecn: Option<EcnCodepoint>,
    /// The datagrams, one behind the other. At most [`SEND_BYTES_MAX`] bytes and [`ShardSocket::segments_max`] datagrams.
    pub contents: &'a [u8],
    /// The length of each but the last, which may be shorter; `None` when `contents` is one datagram.
    pub segment_bytes: Option<usize>,
}

/// How far a receive came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The socket was empty.
    Drained,
    /// The bound was reached; more may wait.
    More,
}

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The system took it.
    Taken,
    /// The send buffer is full: keep it and try again in the next turn.
    WouldBlock,
    /// The system refused it for good (too large a probe, no route, a firewall). It is gone, as if lost on the way, and QUIC deals
    /// with that. [`ShardSocket::segments_max`] may have become smaller.
    Dropped,
}

/// What a shard's loop asks of its socket.
pub trait DatagramSocket {
    /// Hands out what has arrived, a bounded number of messages. Never blocks.
    ///
    /// # Errors
    /// When the socket is broken for good.
    fn receive(&mut self, handle: impl FnMut(Datagram)) -> io::Result<Received>;

    /// Most datagrams of `segment_bytes` that one send may hold.
    fn segments_max(&self, segment_bytes: usize) -> usize;

    /// Sends what can be sent without blocking.
    fn try_send(&mut self, outgoing: &Outgoing<'_>) -> Sent;
}

/// The socket of one shard.
#[derive(Debug)]
pub struct ShardSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    local_address: SocketAddr,
    receive_calls_max: usize,
    buffer: Box<[u8]>,
    block: BytesMut,
    counters: Arc<ShardCounters>,
}

impl ShardSocket {
    /// Opens a socket at `address`; port 0 takes any free one.
    ///
    /// Costs 2 MiB for receiving, touched as needed, and a block of 1 MiB, besides the kernel's buffers.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(address: SocketAddr, options: SocketOptions, counters: Arc<ShardCounters>) -> Result<Self, BindError> {
        let socket = UdpSocket::bind(address).map_err(|source| bind_error(address, source))?;
        let system = |source| BindError::System { address, source };
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).map_err(system)?;
        enlarge(&socket, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, options.receive_buffer_bytes);
        enlarge(&socket, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, options.send_buffer_bytes);
        Ok(Self {
            local_address: socket.local_addr().map_err(system)?,
            receive_calls_max: options.messages_per_receive_max.div_ceil(BATCH_SIZE).max(1),
            buffer: vec![0; BATCH_SIZE * MESSAGE_BYTES_MAX].into_boxed_slice(),
            block: BytesMut::with_capacity(BLOCK_BYTES),
            socket,
            state,
            counters,
        })
    }

    /// The address that it has, with the port that was chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// The kernel's receive and send buffers, in bytes, as granted (the kernel counts its own overhead in).
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn buffer_bytes(&self) -> io::Result<(usize, usize)> {
        let socket = || UdpSockRef::from(&self.socket);
        Ok((self.state.recv_buffer_size(socket())?, self.state.send_buffer_size(socket())?))
    }

    /// How many datagrams of `datagram_bytes` one send may hold.
    ///
    /// # Panics
    /// If `datagram_bytes` is 0.
    pub fn segments_max(&self, datagram_bytes: usize) -> usize {
        self.state.max_gso_segments().min(SEGMENTS_MAX).min(SEND_BYTES_MAX / datagram_bytes).max(1)
    }

    /// Takes what has arrived, up to the bound, and gives each datagram to `sink`.
    ///
    /// # Errors
    /// When the socket is broken. What a remote or the network does is no error.
    pub fn receive(&mut self, mut sink: impl FnMut(Datagram)) -> io::Result<Received> {
        for _ in 0..self.receive_calls_max {
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let message_count = self.receive_messages(&mut metas)?;
            for (index, meta) in metas[..message_count].iter().enumerate() {
                let start = index * MESSAGE_BYTES_MAX;
                let message = slice_of_block(&mut self.block, &self.buffer[start..start + meta.len]);
                self.counters.datagrams_received.add(split(message, meta, &mut sink));
            }
            // Fewer messages than there were places for: the socket was empty, and asking again would only tell so.
            if message_count < BATCH_SIZE {
                return Ok(Received::Drained);
            }
        }
        Ok(Received::More)
    }

    /// Hands datagrams to the system.
    ///
    /// # Panics
    /// If `contents` is empty or larger than [`SEND_BYTES_MAX`], or holds more than [`SEGMENTS_MAX`] datagrams.
    pub fn try_send(&self, outgoing: &Outgoing<'_>) -> Sent {
        let length = outgoing.contents.len();
        assert!((1..=SEND_BYTES_MAX).contains(&length), "a send of {length} bytes");
        assert!(outgoing.segment_bytes.is_none_or(|bytes| bytes > 0 && length.div_ceil(bytes) <= SEGMENTS_MAX));
        let transmit = Transmit {
            destination: outgoing.destination,
            ecn: outgoing.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: outgoing.contents,
            segment_size: outgoing.segment_bytes,
            src_ip: outgoing.source_ip,
        };
        self.counters.system_calls.add(1);
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            Ok(()) => {
                self.counters.sends.add(1);
                Sent::Taken
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::WouldBlock,
            Err(_) => {
                self.counters.sends_dropped.add(1);
                Sent::Dropped
            }
        }
    }

    /// One system call; how many messages it filled.
    fn receive_messages(&mut self, metas: &mut [RecvMeta; BATCH_SIZE]) -> io::Result<usize> {
        let mut chunks = self.buffer.chunks_exact_mut(MESSAGE_BYTES_MAX);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("one chunk per message")));
        self.counters.system_calls.add(1);
        match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, metas) {
            Ok(message_count) => Ok(message_count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            // News of an earlier datagram that did not arrive; anyone can cause it. What waits behind it is still there,
            // and the descriptor stays ready.
            Err(error) if is_about_a_remote(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl DatagramSocket for ShardSocket {
    fn receive(&mut self, handle: impl FnMut(Datagram)) -> io::Result<Received> {
        Self::receive(self, handle)
    }

    fn segments_max(&self, segment_bytes: usize) -> usize {
        Self::segments_max(self, segment_bytes)
    }

    fn try_send(&mut self, outgoing: &Outgoing<'_>) -> Sent {
        Self::try_send(self, outgoing)
    }
}

impl AsFd for ShardSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind_error(address: SocketAddr, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        io::ErrorKind::PermissionDenied => BindError::Denied { address },
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal { address },
        _ => BindError::System { address, source },
    }
}

fn is_about_a_remote(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

/// Asks for a large buffer beyond the system's limit, which needs a privilege, else for as much as the limit gives.
fn enlarge(socket: &UdpSocket, option: libc::c_int, forced_option: libc::c_int, bytes: usize) {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let granted = sys::set_socket_option(socket.as_fd(), libc::SOL_SOCKET, forced_option, value)
        .or_else(|_| sys::set_socket_option(socket.as_fd(), libc::SOL_SOCKET, option, value));
    if let Err(error) = granted {
        tracing::warn!(%error, bytes, "the system's default socket buffers stay in use");
    }
}

/// Copies `message` into the block and slices it off, replacing the block when it is used up and still referred to.
fn slice_of_block(block: &mut BytesMut, message: &[u8]) -> BytesMut {
    if block.capacity() < message.len() && !block.try_reclaim(BLOCK_BYTES) {
        *block = BytesMut::with_capacity(BLOCK_BYTES);
    }
    block.extend_from_slice(message);
    block.split()
}

/// Gives each datagram of `message` to `sink`; how many there were.
fn split(mut message: BytesMut, meta: &RecvMeta, sink: &mut impl FnMut(Datagram)) -> u64 {
    let mut count = 0;
    while !message.is_empty() {
        let bytes = message.split_to(meta.stride.clamp(1, message.len()));
        let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        sink(Datagram { remote: meta.addr, local_ip: meta.dst_ip, ecn, bytes });
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_reused_once_its_datagrams_are_dropped() {
        let mut block = BytesMut::with_capacity(BLOCK_BYTES);
        let first = block.as_ptr();
        for _ in 0..3 * BLOCK_BYTES / MESSAGE_BYTES_MAX {
            let slice = slice_of_block(&mut block, &[1; MESSAGE_BYTES_MAX - 1]);
            let offset = slice.as_ptr().addr() - first.addr();
            assert!(offset < BLOCK_BYTES, "another block was allocated");
        }
    }

    #[test]
    fn a_datagram_that_is_kept_keeps_its_bytes() {
        let mut block = BytesMut::with_capacity(BLOCK_BYTES);
        let kept = slice_of_block(&mut block, &[1; 1000]);
        for _ in 0..3 * BLOCK_BYTES / MESSAGE_BYTES_MAX {
            slice_of_block(&mut block, &[2; MESSAGE_BYTES_MAX]);
        }
        assert_eq!(kept, [1; 1000][..]);
    }
}

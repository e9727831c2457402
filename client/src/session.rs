//! The batch session: one QUIC connection to one shard, four lanes, frames in batches both ways.
//!
//! This is the layer for those who count nanoseconds: the caller encodes many frames into one buffer and sends it with one
//! call; it receives everything that has arrived as one [`FrameBatch`] of borrowed frames. [`crate::Client`] and
//! [`crate::Worker`] stand on it. Nothing here is global: a thread with a current-thread runtime, a [`Dialer`] and its sessions
//! are a world of their own.
//!
//! Invariants: the first frame is `Hello`, and no session exists before its `Welcome`. Deliberately absent: reconnects,
//! request ids, time-outs of requests.

use crate::{
    batch::{FrameBatch, LANE_COUNT, Lane, LaneBuffer},
    config::ConnectConfig,
    error::{ConnectError, Refusal, SessionError},
    topology::Topology,
};
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};
use tickwheel_wire::{
    DecodeError,
    frame::{
        Frame, FrameHeader, FrameType,
        session::{Hello, PROTOCOL_VERSION, Refused, Welcome},
    },
};

/// Name and version of this software, as the node logs it.
const SOFTWARE: &str = concat!("tickwheel-client/", env!("CARGO_PKG_VERSION"));
/// QUIC send priority of the control lane; each further lane has one less.
const CONTROL_PRIORITY: i32 = 3;
/// A frame that says nothing: no body, type 0, to be skipped. Something has to be sent on the last lane, since a node can use a
/// lane only after it has heard of it.
const LANE_OPENER: [u8; FrameHeader::BYTES] = [0; FrameHeader::BYTES];
/// Socket buffers asked for, in bytes; the system may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Opens sessions from one UDP socket per address family. Cheap to clone; the clones share the sockets.
///
/// Sessions of one dialer share its sockets and the task that drives them; for several cores, use a dialer on each.
#[derive(Clone, Debug)]
pub struct Dialer {
    inner: Arc<DialerInner>,
}

#[derive(Debug)]
struct DialerInner {
    config: ConnectConfig,
    quic: quinn::ClientConfig,
    endpoint_config: quinn::EndpointConfig,
    v4: OnceLock<Endpoint>,
    v6: OnceLock<Endpoint>,
}

impl Dialer {
    /// A dialer with these settings. Sockets are opened when they are first needed.
    ///
    /// # Errors
    /// When a setting is outside its range.
    pub fn new(config: ConnectConfig) -> Result<Self, ConnectError> {
        let (quic, endpoint_config) = (config.quic_client()?, config.quic_endpoint()?);
        let inner = DialerInner { config, quic, endpoint_config, v4: OnceLock::new(), v6: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The settings.
    pub fn config(&self) -> &ConnectConfig {
        &self.inner.config
    }

    /// Opens a session with the shard at `address` and waits for its `Welcome`. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When nobody answers in time, the certificates do not fit, or the node refuses the session.
    pub async fn open(&self, address: SocketAddr) -> Result<Session, ConnectError> {
        let limit = self.inner.config.connect_timeout;
        match tokio::time::timeout(limit, self.open_unbounded(address)).await {
            Ok(Err(ConnectError::Session(SessionError::TimedOut))) | Err(_) => Err(ConnectError::TimedOut {
                address: address.to_string(),
                waited_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            }),
            Ok(result) => result,
        }
    }

    async fn open_unbounded(&self, address: SocketAddr) -> Result<Session, ConnectError> {
        let inner = &*self.inner;
        let connecting = self
            .endpoint(address.ip())
            .map_err(ConnectError::Bind)?
            .connect_with(inner.quic.clone(), address, &inner.config.server_name)
            .map_err(|error| ConnectError::Session(SessionError::Transport(error.to_string())))?;
        let connection = connecting.await.map_err(handshake_error)?;
        Session::establish(connection, inner.config.frame_bytes_max).await
    }

    fn endpoint(&self, peer: IpAddr) -> io::Result<&Endpoint> {
        let (slot, local): (_, IpAddr) = match peer {
            IpAddr::V4(_) => (&self.inner.v4, Ipv4Addr::UNSPECIFIED.into()),
            IpAddr::V6(_) => (&self.inner.v6, Ipv6Addr::UNSPECIFIED.into()),
        };
        if let Some(endpoint) = slot.get() {
            return Ok(endpoint);
        }
        let socket = UdpSocket::bind((local, 0))?;
        enlarge_buffers(&socket);
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(self.inner.endpoint_config.clone(), None, socket, runtime)?;
        Ok(slot.get_or_init(|| endpoint))
    }

    /// Waits until every closed session's last packets are on their way. Otherwise a process that ends right after
    /// closing leaves the node to find out by itself.
    pub async fn wait_idle(&self) {
        for endpoint in [&self.inner.v4, &self.inner.v6].into_iter().filter_map(OnceLock::get) {
            endpoint.wait_idle().await;
        }
    }
}

/// Best effort: a small buffer costs throughput, nothing else.
fn enlarge_buffers(socket: &UdpSocket) {
    if let Ok(state) = quinn::udp::UdpSocketState::new(socket.into()) {
        let _ = state.set_recv_buffer_size(socket.into(), SOCKET_BUFFER_BYTES);
        let _ = state.set_send_buffer_size(socket.into(), SOCKET_BUFFER_BYTES);
    }
}

fn handshake_error(error: quinn::ConnectionError) -> ConnectError {
    tls_failure(&error).map_or_else(|| ConnectError::Session(error.into()), ConnectError::Tls)
}

/// The TLS alert in `error`, if that is what it is: QUIC carries alerts as codes 0x100 to 0x1ff.
fn tls_failure(error: &quinn::ConnectionError) -> Option<String> {
    let is_crypto = |code: quinn::TransportErrorCode| (0x100..0x200).contains(&u64::from(code));
    match error {
        quinn::ConnectionError::TransportError(error) if is_crypto(error.code) => Some(error.to_string()),
        quinn::ConnectionError::ConnectionClosed(close) if is_crypto(close.error_code) => Some(close.to_string()),
        _ => None,
    }
}

/// An open session. Split it to send and receive at the same time.
#[derive(Debug)]
pub struct Session {
    sender: SessionSender,
    receiver: SessionReceiver,
    topology: Arc<Topology>,
}

impl Session {
    async fn establish(connection: Connection, frame_bytes_max: u32) -> Result<Self, ConnectError> {
        let (mut sends, mut receives) = (Vec::with_capacity(LANE_COUNT), Vec::with_capacity(LANE_COUNT));
        for priority in (0..=CONTROL_PRIORITY).rev() {
            let (send, receive) = connection.open_bi().await.map_err(handshake_error)?;
            let _ = send.set_priority(priority);
            sends.push(send);
            receives.push(receive);
        }
        let lanes = sends.try_into().unwrap_or_else(|_| unreachable!("one stream was opened for each lane"));
        let mut sender = SessionSender { connection: connection.clone(), lanes };
        let lanes = receives.try_into().unwrap_or_else(|_| unreachable!("one stream was opened for each lane"));
        let buffers = [const { LaneBuffer::new() }; LANE_COUNT];
        let mut receiver =
            SessionReceiver { connection, lanes, buffers, frame_bytes_max, early: FrameBatch::new(), failure: None };
        let welcomed = async {
            let mut hello = Vec::new();
            Hello { version_min: PROTOCOL_VERSION, version_max: PROTOCOL_VERSION, software: SOFTWARE }
                .encode(&mut hello);
            sender.send(Lane::Control, &hello).await?;
            sender.send(Lane::P2, &LANE_OPENER).await?;
            receiver.welcome().await
        };
        match welcomed.await {
            Ok(topology) => Ok(Self { sender, receiver, topology: Arc::new(topology) }),
            Err(ConnectError::Session(error)) => Err(sender.explain(error)),
            Err(error) => Err(error),
        }
    }

    /// What the node told about itself.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// See [`SessionSender::send`].
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn send(&mut self, lane: Lane, frames: &[u8]) -> Result<(), SessionError> {
        self.sender.send(lane, frames).await
    }

    /// See [`SessionReceiver::receive`].
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn receive(&mut self, batch: &mut FrameBatch) -> Result<(), SessionError> {
        self.receiver.receive(batch).await
    }

    /// Closes the session; see [`SessionSender::close`].
    pub fn close(self) {
        self.sender.close();
    }

    /// The two directions, for use by two tasks or in one `select!`.
    pub fn split(self) -> (SessionSender, SessionReceiver) {
        (self.sender, self.receiver)
    }
}

/// The sending direction of a session. When it is dropped, the session ends.
#[derive(Debug)]
pub struct SessionSender {
    connection: Connection,
    lanes: [SendStream; LANE_COUNT],
}

impl SessionSender {
    /// Sends whole encoded frames, as many as the caller likes; the more per call, the cheaper each (64 KiB and more are
    /// good). Waits while the send window of 8 MiB is full.
    ///
    /// Not cancel safe: when the future is dropped, part of the frames may have been sent, and the lane is unusable.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn send(&mut self, lane: Lane, frames: &[u8]) -> Result<(), SessionError> {
        Ok(self.lanes[lane.index()].write_all(frames).await?)
    }

    /// Ends the session. What was sent but not yet received is lost: wait for the answers first. See [`Dialer::wait_idle`].
    pub fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"done");
    }

    /// The lanes one by one, so that a full lane does not hold up another, and the handle that keeps the session open.
    pub(crate) fn into_lanes(self) -> (Connection, [SendStream; LANE_COUNT]) {
        (self.connection, self.lanes)
    }

    /// The connection's own end says more than a lane's.
    fn explain(&self, error: SessionError) -> ConnectError {
        self.connection.close_reason().map_or(ConnectError::Session(error), handshake_error)
    }
}

/// The receiving direction of a session.
#[derive(Debug)]
pub struct SessionReceiver {
    connection: Connection,
    lanes: [RecvStream; LANE_COUNT],
    buffers: [LaneBuffer; LANE_COUNT],
    frame_bytes_max: u32,
    /// What came together with the welcome.
    early: FrameBatch,
    /// An error that was met when frames of other lanes had to be delivered first.
    failure: Option<SessionError>,
}

impl SessionReceiver {
    /// Waits until at least one whole frame has arrived and puts everything that is there into `batch`, in place of what it
    /// held: at most 256 KiB of each lane, the control lane first, then by priority, so that no lane starves another.
    ///
    /// Cancel safe: a dropped future loses nothing.
    ///
    /// # Errors
    /// When the session has ended, or the node sent something that is no frame; the session is then of no more use.
    pub async fn receive(&mut self, batch: &mut FrameBatch) -> Result<(), SessionError> {
        poll_fn(|context| self.poll_receive(context, batch)).await
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, batch: &mut FrameBatch) -> Poll<Result<(), SessionError>> {
        batch.clear();
        if !self.early.is_empty() {
            std::mem::swap(batch, &mut self.early);
            return Poll::Ready(Ok(()));
        }
        let mut received = false;
        for lane in Lane::ALL {
            if self.failure.is_some() {
                break;
            }
            let (stream, buffer) = (&mut self.lanes[lane.index()], &mut self.buffers[lane.index()]);
            match buffer.poll_frames(stream, context, self.frame_bytes_max) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    buffer.move_to(batch, lane);
                    received = true;
                }
                Poll::Ready(Err(error)) => self.failure = Some(self.explain(error)),
            }
        }
        match &self.failure {
            _ if received => Poll::Ready(Ok(())),
            Some(failure) => Poll::Ready(Err(failure.clone())),
            None => Poll::Pending,
        }
    }

    fn explain(&self, error: SessionError) -> SessionError {
        match error {
            SessionError::LaneClosed => self.connection.close_reason().map_or(error, Into::into),
            other => other,
        }
    }

    async fn welcome(&mut self) -> Result<Topology, ConnectError> {
        let mut batch = FrameBatch::new();
        while batch.is_empty() {
            self.receive(&mut batch).await?;
        }
        let first = batch.frames().next().expect("the batch is not empty");
        match first.frame_type {
            FrameType::Welcome => {
                let welcome = Welcome::decode_body(first.body).map_err(SessionError::from)?;
                if welcome.version != PROTOCOL_VERSION {
                    return Err(ConnectError::Version(welcome.version));
                }
                let topology = Topology::from_welcome(&welcome)?;
                batch.drop_first();
                self.early = batch;
                Ok(topology)
            }
            FrameType::Refused => {
                let refused: Result<_, DecodeError> = Refused::decode_body(first.body);
                Err(ConnectError::Refused(Refusal::from(&refused.map_err(SessionError::from)?)))
            }
            _ => Err(SessionError::Protocol("the first frame is no welcome").into()),
        }
    }
}

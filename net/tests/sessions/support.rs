//! A server endpoint, peers on quinn-proto's client side, and a network between them that delays, loses, repeats and
//! reorders by seed. Time is virtual: it jumps to the next thing that is due.

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, IdleTimeout,
    StreamId, TransportConfig, VarInt, WriteError, crypto::rustls::QuicClientConfig,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{RootCertStore, crypto::ring, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};
use tickwheel_net::{
    ALPN, Close, Endpoint, EndpointConfig, Event, Identity, LANE_COUNT, Lane, Role, SendError, ServerTls,
};
use tickwheel_wire::{SessionId, frame::FrameHeader, mix64};

/// A type of this protocol version; the endpoint does not look into bodies.
pub const KNOWN_TYPE: u16 = 0x0301;

/// A certificate authority and what it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// The authority that the servers of these tests trust, made once because keys are slow.
pub static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("test authority"));

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self, name: &str, sans: Vec<SanType>) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = sans;
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    pub fn server(&self) -> ServerTls {
        let (certificate, key) = self.sign("node", vec![SanType::DnsName("localhost".try_into().unwrap())]);
        let (authority, chain) = (self.certificate.pem(), certificate.pem());
        ServerTls::from_pem(authority.as_bytes(), chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    /// A peer's certificate with the given common name and SAN URIs.
    pub fn peer(&self, name: &str, uris: &[String]) -> PeerCertificate {
        let uris = uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
        let (certificate, key) = self.sign(name, uris);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (certificate.der().clone(), key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }
}

pub type PeerCertificate = (CertificateDer<'static>, PrivateKeyDer<'static>);

pub fn worker(name: &str) -> Identity {
    let pools = vec!["standard".to_owned()];
    Identity { name: name.to_owned(), role: Role::Worker, tenant: Some("acme".to_owned()), pools }
}

/// How a peer connects.
#[derive(Clone)]
pub struct PeerOptions {
    pub certificate: Option<Arc<PeerCertificate>>,
    pub alpn: Vec<Vec<u8>>,
    pub mtu_bytes: u16,
    pub lane_receive_window_bytes: u32,
    pub receive_window_bytes: u32,
    pub keep_alive: Option<Duration>,
}

static WORKER_CERTIFICATE: LazyLock<Arc<PeerCertificate>> = LazyLock::new(|| {
    let identity = worker("worker-1");
    Arc::new(AUTHORITY.peer(&identity.name, &identity.subject_alt_names()))
});

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            certificate: Some(Arc::clone(&WORKER_CERTIFICATE)),
            alpn: vec![ALPN.to_vec()],
            mtu_bytes: 1472,
            lane_receive_window_bytes: 1 << 20,
            receive_window_bytes: 8 << 20,
            keep_alive: None,
        }
    }
}

impl PeerOptions {
    fn quic(&self) -> ClientConfig {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(AUTHORITY.roots());
        let mut tls = match &self.certificate {
            Some(pair) => builder.with_client_auth_cert(vec![pair.0.clone()], pair.1.clone_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols.clone_from(&self.alpn);
        let mut discovery = quinn_proto::MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_bytes);
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(IdleTimeout::try_from(Duration::from_secs(30)).unwrap()))
            .keep_alive_interval(self.keep_alive)
            .stream_receive_window(self.lane_receive_window_bytes.into())
            .receive_window(self.receive_window_bytes.into())
            .mtu_discovery_config(Some(discovery));
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(transport));
        config
    }
}

/// One client connection, with bytes instead of meaning.
pub struct Peer {
    endpoint: quinn_proto::Endpoint,
    handle: ConnectionHandle,
    pub connection: Connection,
    pub address: SocketAddr,
    pub is_connected: bool,
    pub lost: Option<ConnectionError>,
    /// Bytes still to be written, by lane.
    outgoing: [Vec<u8>; LANE_COUNT],
    /// Bytes received, by lane.
    pub incoming: [Vec<u8>; LANE_COUNT],
    /// Lanes whose bytes stay unread.
    pub ignores: [bool; LANE_COUNT],
    /// Where each part of `incoming` came from, in order of arrival.
    pub arrivals: Vec<(Lane, usize)>,
    is_touched: bool,
}

impl Peer {
    /// Sends bytes on a lane, opening lanes up to it if need be.
    pub fn send(&mut self, lane: Lane, bytes: &[u8]) {
        self.outgoing[lane.index()].extend_from_slice(bytes);
        self.is_touched = true;
    }

    pub fn unsent_bytes(&self) -> usize {
        self.outgoing.iter().map(Vec::len).sum()
    }

    pub fn touch(&mut self) {
        self.is_touched = true;
    }

    pub fn frames(&self, lane: Lane) -> Vec<&[u8]> {
        let (mut frames, mut rest) = (Vec::new(), self.incoming[lane.index()].as_slice());
        while let Some((head, behind)) = rest.split_first_chunk() {
            let body_bytes = FrameHeader::from_bytes(head).unwrap().body_bytes as usize;
            let Some((body, behind)) = behind.split_at_checked(body_bytes) else { break };
            frames.push(body);
            rest = behind;
        }
        frames
    }

    fn open_lanes(&mut self) {
        let needed = (0..LANE_COUNT).rev().find(|&lane| !self.outgoing[lane].is_empty());
        let Some(needed) = needed.filter(|_| self.is_connected) else { return };
        while stream(Lane::ALL[needed]).index() >= self.opened_count() {
            if self.connection.streams().open(Dir::Bi).is_none() {
                break;
            }
        }
    }

    fn opened_count(&mut self) -> u64 {
        Lane::ALL.iter().take_while(|lane| self.connection.send_stream(stream(**lane)).priority().is_ok()).count()
            as u64
    }

    fn write(&mut self) {
        self.open_lanes();
        for lane in Lane::ALL {
            let bytes = &mut self.outgoing[lane.index()];
            while !bytes.is_empty() {
                match self.connection.send_stream(stream(lane)).write(bytes) {
                    Ok(count) => drop(bytes.drain(..count)),
                    Err(WriteError::Blocked | WriteError::ClosedStream | WriteError::Stopped(_)) => break,
                }
            }
        }
    }

    fn read(&mut self) {
        for lane in Lane::ALL {
            if self.ignores[lane.index()] {
                continue;
            }
            let mut receiver = self.connection.recv_stream(stream(lane));
            let Ok(mut chunks) = receiver.read(true) else { continue };
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                self.incoming[lane.index()].extend_from_slice(&chunk.bytes);
                self.arrivals.push((lane, chunk.bytes.len()));
            }
            let _ = chunks.finalize();
        }
    }

    fn exchange(&mut self) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(answer);
            }
        }
        while let Some(event) = self.connection.poll() {
            match event {
                quinn_proto::Event::Connected => self.is_connected = true,
                quinn_proto::Event::ConnectionLost { reason } => self.lost = Some(reason),
                _ => {}
            }
        }
    }
}

pub fn stream(lane: Lane) -> StreamId {
    StreamId::new(quinn_proto::Side::Client, Dir::Bi, lane.index() as u64)
}

/// An encoded frame.
pub fn frame(frame_type: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let body_bytes = u32::try_from(body.len()).unwrap();
    let mut bytes = FrameHeader { body_bytes, frame_type, flags }.to_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// An encoded frame of a known type.
pub fn known(body: &[u8]) -> Vec<u8> {
    frame(KNOWN_TYPE, FrameHeader::CRITICAL, body)
}

/// What the network does to datagrams, by chance in percent.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub loss: u64,
    pub repeat: u64,
    pub reorder: u64,
    /// One bit of the datagram is flipped.
    pub corrupt: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    at: Instant,
    sequence: u64,
    /// The peer at the other end.
    peer: usize,
    is_to_server: bool,
    ecn: Option<u8>,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub session: SessionId,
    pub lane: Lane,
    pub frame_type: u16,
    pub body: Vec<u8>,
}

pub struct World {
    pub now: Instant,
    pub server: Endpoint,
    pub peers: Vec<Peer>,
    pub faults: Faults,
    /// Peers whose datagrams vanish in both directions.
    pub unreachable: Vec<usize>,
    pub events: Vec<Event>,
    pub received: Vec<Received>,
    /// Sends every frame back on its lane.
    pub does_echo: bool,
    /// Answer of the reader to a body.
    pub verdict: fn(&[u8]) -> Result<(), Close>,
    pub lane_bytes_max: usize,
    /// Keeps the server from reading.
    pub is_reading: bool,
    network: BinaryHeap<Reverse<Packet>>,
    sequence: u64,
    random: u64,
    /// Turns since time moved.
    turns_at_once: u32,
}

/// Turns without any time passing that a healthy world never needs.
const TURNS_AT_ONCE_MAX: u32 = 10_000;

const DELAY: Duration = Duration::from_micros(200);

impl World {
    pub fn new(config: EndpointConfig) -> Self {
        static TLS: LazyLock<ServerTls> = LazyLock::new(|| AUTHORITY.server());
        let now = Instant::now();
        let config = EndpointConfig { random_seed: Some([7; 32]), ..config };
        Self {
            now,
            server: Endpoint::new(config, &TLS, now).unwrap(),
            peers: Vec::new(),
            faults: Faults::default(),
            unreachable: Vec::new(),
            events: Vec::new(),
            received: Vec::new(),
            does_echo: false,
            verdict: |_| Ok(()),
            lane_bytes_max: 64 << 10,
            is_reading: true,
            network: BinaryHeap::new(),
            sequence: 0,
            random: 1,
            turns_at_once: 0,
        }
    }

    /// Starts a connection; the index of the peer.
    pub fn connect(&mut self, options: &PeerOptions) -> usize {
        let mut config = quinn_proto::EndpointConfig::default();
        config.max_udp_payload_size(options.mtu_bytes).unwrap().rng_seed(Some([9; 32]));
        let mut endpoint = quinn_proto::Endpoint::new(Arc::new(config), None, true, None);
        let server = SocketAddr::from(([127, 0, 0, 1], 7400));
        let (handle, connection) = endpoint.connect(self.now, options.quic(), server, "localhost").unwrap();
        let port = 10_000 + u16::try_from(self.peers.len()).unwrap();
        self.peers.push(Peer {
            endpoint,
            handle,
            connection,
            address: SocketAddr::from(([127, 0, 0, 2], port)),
            is_connected: false,
            lost: None,
            outgoing: Default::default(),
            incoming: Default::default(),
            ignores: [false; LANE_COUNT],
            arrivals: Vec::new(),
            is_touched: true,
        });
        self.peers.len() - 1
    }

    /// Connects and waits until the server has opened the session and the client has learned of it.
    pub fn open(&mut self, options: &PeerOptions) -> (usize, SessionId) {
        let (peer, before) = (self.connect(options), self.events.len());
        let mut session = None;
        self.run_until(|world| {
            session = world.events[before..].iter().find_map(|event| match event {
                Event::Opened { session, .. } => Some(*session),
                _ => None,
            });
            session.is_some() && !world.peers[peer].connection.is_handshaking()
        });
        (peer, session.unwrap())
    }

    pub fn send(&mut self, session: SessionId, lane: Lane, body: &[u8]) -> Result<(), SendError> {
        self.server.send(session, lane, &known(body))
    }

    pub fn bodies(&self, session: SessionId, lane: Lane) -> Vec<&[u8]> {
        let own = self.received.iter().filter(|frame| frame.session == session && frame.lane == lane);
        own.map(|frame| frame.body.as_slice()).collect()
    }

    /// Runs until `done`.
    ///
    /// # Panics
    /// If that takes ten virtual minutes, or nothing is left to happen.
    pub fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = self.now + Duration::from_secs(600);
        loop {
            self.turn();
            if done(self) {
                return;
            }
            let next = self.next_time().expect("nothing is left to happen");
            assert!(next <= deadline, "not done after ten minutes; events: {:?}", self.events);
            self.advance(next);
        }
    }

    /// Moves time forward, if `next` lies ahead.
    ///
    /// # Panics
    /// If someone asks again and again to be called at a time that has come.
    fn advance(&mut self, next: Instant) {
        self.turns_at_once = if next > self.now { 0 } else { self.turns_at_once + 1 };
        assert!(self.turns_at_once < TURNS_AT_ONCE_MAX, "time stands still");
        self.now = self.now.max(next);
    }

    /// Runs for a virtual duration.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.turn();
            match self.next_time().filter(|next| *next <= end) {
                Some(next) => self.advance(next),
                None => break,
            }
        }
        self.now = end;
    }

    fn next_time(&mut self) -> Option<Instant> {
        let packet = self.network.peek().map(|Reverse(packet)| packet.at);
        let peers = self.peers.iter_mut().filter_map(|peer| peer.connection.poll_timeout());
        peers.chain(packet).chain(self.server.next_timeout()).min()
    }

    /// Everything that happens at the current time.
    pub fn turn(&mut self) {
        while self.network.peek().is_some_and(|Reverse(packet)| packet.at <= self.now) {
            let Reverse(packet) = self.network.pop().unwrap();
            self.deliver(packet);
        }
        self.server_turn();
        for peer in 0..self.peers.len() {
            self.peer_turn(peer);
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let data = BytesMut::from(packet.bytes.as_slice());
        let ecn = packet.ecn.and_then(EcnCodepoint::from_bits);
        let peer = &mut self.peers[packet.peer];
        if packet.is_to_server {
            return self.server.handle_datagram(self.now, peer.address, None, ecn, data);
        }
        let server = SocketAddr::from(([127, 0, 0, 1], 7400));
        let event = peer.endpoint.handle(self.now, server, None, ecn, data, &mut Vec::new());
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            peer.connection.handle_event(event);
            peer.is_touched = true;
        }
    }

    fn server_turn(&mut self) {
        if self.server.next_timeout().is_some_and(|at| at <= self.now) {
            self.server.handle_timeout(self.now);
        }
        while let Some(event) = self.server.poll_event() {
            self.events.push(event);
        }
        let mut echoes = Vec::new();
        let (received, verdict, lane_bytes_max) = (&mut self.received, self.verdict, self.lane_bytes_max);
        let mut sink = |session, lane, frame: tickwheel_net::Frame<'_>| {
            verdict(frame.body)?;
            let body = frame.body.to_vec();
            echoes.push((session, lane, known(&body)));
            received.push(Received { session, lane, frame_type: frame.frame_type, body });
            Ok(())
        };
        while self.is_reading && self.server.read_frames(lane_bytes_max, &mut sink).is_some() {}
        if self.does_echo {
            for (session, lane, bytes) in echoes {
                self.server.send(session, lane, &bytes).unwrap();
            }
        }
        self.server.flush(self.now);
        let mut buffer = Vec::new();
        while let Some(transmit) = self.server.poll_transmit(self.now, 64, &mut buffer) {
            let peer = usize::from(transmit.destination.port() - 10_000);
            let segment_bytes = transmit.segment_bytes.unwrap_or(buffer.len());
            for segment in buffer.chunks(segment_bytes) {
                self.transfer(peer, false, transmit.ecn, segment);
            }
        }
        while let Some(event) = self.server.poll_event() {
            self.events.push(event);
        }
    }

    fn peer_turn(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if peer.connection.poll_timeout().is_some_and(|at| at <= self.now) {
            peer.connection.handle_timeout(self.now);
            peer.is_touched = true;
        }
        if !std::mem::take(&mut peer.is_touched) {
            return;
        }
        peer.exchange();
        peer.read();
        peer.write();
        let mut buffer = Vec::new();
        while let Some(transmit) = self.peers[index].connection.poll_transmit(self.now, 10, &mut buffer) {
            let segment_bytes = transmit.segment_size.unwrap_or(buffer.len());
            for segment in buffer.chunks(segment_bytes) {
                self.transfer(index, true, transmit.ecn, segment);
            }
            buffer.clear();
        }
        self.peers[index].exchange();
    }

    fn transfer(&mut self, peer: usize, is_to_server: bool, ecn: Option<EcnCodepoint>, bytes: &[u8]) {
        if self.unreachable.contains(&peer) || self.chance(self.faults.loss) {
            return;
        }
        let copies = if self.chance(self.faults.repeat) { 2 } else { 1 };
        for _ in 0..copies {
            let detour = if self.chance(self.faults.reorder) { 1 + self.draw() % 20 } else { 0 };
            let at = self.now + DELAY + Duration::from_micros(detour * 100);
            self.sequence += 1;
            let (sequence, ecn, mut bytes) = (self.sequence, ecn.map(|ecn| ecn as u8), bytes.to_vec());
            if self.chance(self.faults.corrupt) {
                let length = bytes.len() as u64;
                let index = usize::try_from(self.draw() % length).unwrap();
                bytes[index] ^= 1 << (self.draw() % 8);
            }
            self.network.push(Reverse(Packet { at, sequence, peer, is_to_server, ecn, bytes }));
        }
    }

    pub fn draw(&mut self) -> u64 {
        self.random = mix64(self.random);
        self.random
    }

    fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && self.draw() % 100 < percent
    }

    /// Closes from the peer's side.
    pub fn close_peer(&mut self, peer: usize, code: u32, reason: &'static [u8]) {
        let now = self.now;
        self.peers[peer].connection.close(now, VarInt::from_u32(code), reason.into());
        self.peers[peer].is_touched = true;
    }
}

//! One QUIC session of an actor, on the client side of quinn-proto: frames in, frames out, datagrams and time from outside.
//!
//! Certificates and TLS settings are made once per process: their keys are Ed25519, whose signatures have one length, so that
//! no run depends on them.

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, IdleTimeout, StreamId,
    TransportConfig, VarInt, WriteError, crypto::rustls::QuicClientConfig,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519, SanType};
use rustls::{RootCertStore, client::Resumption, crypto::ring, version::TLS13};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};
use tickwheel_net::{ALPN, Identity, LANE_COUNT, Lane, Role, ServerTls};
use tickwheel_wire::frame::{Frame, FrameHeader, session::Hello, session::PROTOCOL_VERSION};

/// Who an actor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Manages the jobs of every tenant.
    Admin,
    /// Runs executions of every tenant.
    Worker,
}

/// The keys of a process's runs.
struct Keys {
    server: ServerTls,
    admin: Arc<QuicClientConfig>,
    worker: Arc<QuicClientConfig>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(Keys::new);

impl Keys {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("Ed25519 is built in");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "simulated authority");
        let authority = params.self_signed(&key).expect("valid parameters");
        let issuer = Issuer::new(params, key);
        let sign = |name: &str, sans: Vec<SanType>| {
            let key = KeyPair::generate_for(&PKCS_ED25519).expect("Ed25519 is built in");
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names = sans;
            (params.signed_by(&key, &issuer).expect("valid parameters"), key)
        };
        let (certificate, key) = sign("node", vec![SanType::DnsName("localhost".try_into().expect("a name"))]);
        let pems = [authority.pem(), certificate.pem(), key.serialize_pem()];
        let [authority_pem, certificate_pem, key_pem] = pems.each_ref().map(|pem| pem.as_bytes());
        let server = ServerTls::from_pem(authority_pem, certificate_pem, key_pem).expect("valid certificates");
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).expect("a certificate");
        let client = |role: Role| {
            let pools = if role == Role::Worker { vec!["standard".to_owned()] } else { Vec::new() };
            let identity = Identity { name: role.as_str().to_owned(), role, tenant: None, pools };
            let uris = identity.subject_alt_names();
            let sans = uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().expect("a URI"))).collect();
            let (certificate, key) = sign(&identity.name, sans);
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[&TLS13])
                .expect("TLS 1.3 is built in")
                .with_root_certificates(roots.clone())
                .with_client_auth_cert(vec![certificate.der().clone()], key)
                .expect("key and certificate belong together");
            tls.alpn_protocols = vec![ALPN.to_vec()];
            // A resumed session would make a run depend on those before it.
            tls.resumption = Resumption::disabled();
            Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3"))
        };
        Self { server, admin: client(Role::Admin), worker: client(Role::Worker) }
    }
}

fn transport(window_bytes: u32) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(Duration::from_secs(30)).expect("short enough")))
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .stream_receive_window(VarInt::from_u32(window_bytes))
        .mtu_discovery_config(None);
    Arc::new(transport)
}

/// The certificate of every simulated node.
pub fn server_tls() -> &'static ServerTls {
    &KEYS.server
}

/// A frame that arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Its type.
    pub frame_type: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// A session.
pub struct Session {
    endpoint: quinn_proto::Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    /// The actor's address, another one for each session.
    pub address: SocketAddr,
    server: SocketAddr,
    is_open: bool,
    is_lost: bool,
    outgoing: [Vec<u8>; LANE_COUNT],
    incoming: [Vec<u8>; LANE_COUNT],
    is_touched: bool,
}

impl Session {
    /// Begins to connect, from an address to another; takes `window_bytes` on a lane before it has read them.
    pub fn connect(
        now: Instant,
        who: Who,
        (address, server): (SocketAddr, SocketAddr),
        window_bytes: u32,
        seed: u64,
    ) -> Self {
        let mut config = quinn_proto::EndpointConfig::default();
        let mut random_seed = [0; 32];
        random_seed[..8].copy_from_slice(&seed.to_le_bytes());
        config.rng_seed(Some(random_seed));
        let mut endpoint = quinn_proto::Endpoint::new(Arc::new(config), None, true, None);
        let tls = if who == Who::Admin { &KEYS.admin } else { &KEYS.worker };
        let mut client = ClientConfig::new(Arc::<QuicClientConfig>::clone(tls));
        client.transport_config(transport(window_bytes));
        let (handle, connection) = endpoint.connect(now, client, server, "localhost").expect("a valid address");
        let mut session = Self {
            endpoint,
            handle,
            connection,
            address,
            server,
            is_open: false,
            is_lost: false,
            outgoing: Default::default(),
            incoming: Default::default(),
            is_touched: true,
        };
        let hello = Hello { version_min: PROTOCOL_VERSION, version_max: PROTOCOL_VERSION, software: "simulator" };
        session.send(Lane::Control, &hello);
        // The node can use a lane only after it has heard of it.
        session.send_bytes(Lane::P2, &[0; FrameHeader::BYTES]);
        session
    }

    /// Queues a frame.
    pub fn send<'f>(&mut self, lane: Lane, frame: &impl Frame<'f>) {
        frame.encode(&mut self.outgoing[lane.index()]);
        self.is_touched = true;
    }

    /// Queues encoded frames.
    pub fn send_bytes(&mut self, lane: Lane, bytes: &[u8]) {
        self.outgoing[lane.index()].extend_from_slice(bytes);
        self.is_touched = true;
    }

    /// The shard's address.
    pub const fn server(&self) -> SocketAddr {
        self.server
    }

    /// Whether it is over.
    pub const fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Takes a datagram from the node.
    pub fn handle_datagram(&mut self, now: Instant, ecn: Option<EcnCodepoint>, bytes: BytesMut) {
        let event = self.endpoint.handle(now, self.server, None, ecn, bytes, &mut Vec::new());
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.connection.handle_event(event);
            self.is_touched = true;
        }
    }

    /// When [`Session::turn`] has to be called at the latest.
    pub fn next_timeout(&mut self) -> Option<Instant> {
        if self.is_lost { None } else { self.connection.poll_timeout() }
    }

    /// Whether a turn has something to do.
    pub const fn has_work(&self) -> bool {
        self.is_touched && !self.is_lost
    }

    /// Takes and gives what can be taken and given now; datagrams go to `transmit`.
    pub fn turn(&mut self, now: Instant, mut transmit: impl FnMut(Option<EcnCodepoint>, &[u8])) {
        if self.is_lost {
            return;
        }
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
            self.is_touched = true;
        }
        if !std::mem::take(&mut self.is_touched) {
            return;
        }
        self.exchange();
        self.read();
        self.write();
        let mut buffer = Vec::new();
        while let Some(sent) = self.connection.poll_transmit(now, 10, &mut buffer) {
            for segment in buffer.chunks(sent.segment_size.unwrap_or(buffer.len())) {
                transmit(sent.ecn, segment);
            }
            buffer.clear();
        }
        self.exchange();
    }

    /// The frames that have arrived, in order within each lane.
    pub fn frames(&mut self) -> Vec<Arrived> {
        let mut frames = Vec::new();
        for lane in &mut self.incoming {
            let mut rest = lane.as_slice();
            while let Some((head, behind)) = rest.split_first_chunk() {
                let header = FrameHeader::from_bytes(head).expect("any eight bytes are a header");
                let Some((body, behind)) = behind.split_at_checked(header.body_bytes as usize) else { break };
                frames.push(Arrived { frame_type: header.frame_type, body: body.to_vec() });
                rest = behind;
            }
            let taken = lane.len() - rest.len();
            lane.drain(..taken);
        }
        frames
    }

    /// Ends it; the node is told.
    pub fn close(&mut self, now: Instant) {
        self.connection.close(now, VarInt::from_u32(0), "the actor goes".into());
        self.is_touched = true;
    }

    fn exchange(&mut self) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(answer);
            }
        }
        while let Some(event) = self.connection.poll() {
            match event {
                quinn_proto::Event::Connected => self.is_open = true,
                quinn_proto::Event::ConnectionLost { .. } => self.is_lost = true,
                _ => {}
            }
        }
    }

    fn write(&mut self) {
        if !self.is_open {
            return;
        }
        for (index, lane) in Lane::ALL.into_iter().enumerate() {
            let stream = stream(lane);
            // Lanes are the client's first streams, in their order.
            while self.connection.send_stream(stream).priority().is_err() {
                if self.connection.streams().open(Dir::Bi).is_none() {
                    return;
                }
            }
            let bytes = &mut self.outgoing[index];
            while !bytes.is_empty() {
                match self.connection.send_stream(stream).write(bytes) {
                    Ok(count) => drop(bytes.drain(..count)),
                    Err(WriteError::Blocked | WriteError::ClosedStream | WriteError::Stopped(_)) => break,
                }
            }
        }
    }

    fn read(&mut self) {
        for lane in Lane::ALL {
            let mut receiver = self.connection.recv_stream(stream(lane));
            let Ok(mut chunks) = receiver.read(true) else { continue };
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                self.incoming[lane.index()].extend_from_slice(&chunk.bytes);
            }
            let _ = chunks.finalize();
        }
    }
}

fn stream(lane: Lane) -> StreamId {
    StreamId::new(quinn_proto::Side::Client, Dir::Bi, lane.index() as u64)
}

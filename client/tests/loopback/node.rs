//! The node's side: certificates, an endpoint per shard, sessions whose frames the test reads and writes one by one.

use quinn::crypto::rustls::QuicServerConfig;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{RootCertStore, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};
use tickwheel_client::{ALPN, ConnectConfig, Credentials, Lane};
use tickwheel_wire::frame::{
    Frame, FrameHeader, FrameType,
    session::{Hello, PROTOCOL_VERSION, Welcome},
};

/// No test waits longer than this for a frame: a missing one is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(20);
/// Payload limit of the node, in bytes.
pub const PAYLOAD_BYTES_MAX: u32 = 1000;

/// A certificate authority and what it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Chain and key as PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Settings of a peer that this authority signed and that trusts `trusted`.
    pub fn peer(&self, trusted: &Self, address: SocketAddr) -> ConnectConfig {
        let (chain, key) = self.sign("peer");
        let credentials = Credentials::from_pem(trusted.pem.as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap();
        ConnectConfig::new(address.to_string(), credentials)
    }

    fn server(&self) -> quinn::ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let (chain, key) = self.sign("tickwheel");
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
    }
}

/// One shard of a node.
pub struct Node {
    endpoint: quinn::Endpoint,
    authority: Arc<Authority>,
}

impl Node {
    pub fn new() -> Self {
        Self::with(Arc::new(Authority::new()))
    }

    /// `count` shards of one node.
    pub fn shards(count: usize) -> Vec<Self> {
        let authority = Arc::new(Authority::new());
        (0..count).map(|_| Self::with(Arc::clone(&authority))).collect()
    }

    fn with(authority: Arc<Authority>) -> Self {
        let endpoint = quinn::Endpoint::server(authority.server(), "127.0.0.1:0".parse().unwrap()).unwrap();
        Self { endpoint, authority }
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Settings of a peer that may connect.
    pub fn peer(&self) -> ConnectConfig {
        self.authority.peer(&self.authority, self.address())
    }

    /// The next connection, with its `Hello` read and not answered.
    pub async fn accept(&self) -> NodeSession {
        let incoming = patiently(self.endpoint.accept()).await.unwrap();
        let connection = patiently(async { incoming.await.unwrap() }).await;
        let mut lanes = Vec::new();
        for _ in Lane::ALL {
            let (send, receive) = patiently(connection.accept_bi()).await.unwrap();
            lanes.push(NodeLane { send, receive, ahead: VecDeque::new() });
        }
        let mut session = NodeSession { connection, lanes: lanes.try_into().ok().unwrap() };
        let hello = session.receive(Lane::Control).await;
        let hello: Hello<'_> = hello.decode();
        assert!(hello.version_min <= PROTOCOL_VERSION && hello.version_max >= PROTOCOL_VERSION);
        session
    }

    /// The next connection, welcomed to a node of one shard and four partitions.
    pub async fn welcome(&self) -> NodeSession {
        self.welcome_to(0, &[self.address().port()], &[0; 4]).await
    }

    /// The next connection, welcomed as `shard` of a node with these ports and partitions.
    pub async fn welcome_to(&self, shard: u16, ports: &[u16], partitions: &[u16]) -> NodeSession {
        let mut session = self.accept().await;
        let bytes = |numbers: &[u16]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        session
            .send(
                Lane::Control,
                &Welcome {
                    version: PROTOCOL_VERSION,
                    cluster: 7,
                    shard,
                    frame_bytes_max: 1 << 20,
                    payload_bytes_max: PAYLOAD_BYTES_MAX,
                    tenant: "acme",
                    shard_ports: &bytes(ports),
                    partition_shards: &bytes(partitions),
                },
            )
            .await;
        session
    }
}

struct NodeLane {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    /// Frames that came before the one that was asked for.
    ahead: VecDeque<Received>,
}

/// A connection as the node sees it. Lost when dropped.
pub struct NodeSession {
    connection: quinn::Connection,
    lanes: [NodeLane; 4],
}

/// A frame from the peer.
#[derive(Debug)]
pub struct Received {
    pub frame_type: u16,
    pub body: Vec<u8>,
}

impl Received {
    pub fn is<'a, F: Frame<'a>>(&self) -> bool {
        self.frame_type == F::TYPE.number()
    }

    pub fn decode<'a, F: Frame<'a>>(&'a self) -> F {
        assert!(self.is::<F>(), "{:?} came", FrameType::from_number(self.frame_type));
        F::decode_body(&self.body).unwrap()
    }
}

impl NodeSession {
    pub async fn send<'a>(&mut self, lane: Lane, frame: &impl Frame<'a>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.send_bytes(lane, &bytes).await;
    }

    pub async fn send_bytes(&mut self, lane: Lane, bytes: &[u8]) {
        self.lanes[lane as usize].send.write_all(bytes).await.unwrap();
    }

    /// The next frame of a lane, lane openers (type 0) aside.
    pub async fn receive(&mut self, lane: Lane) -> Received {
        if let Some(frame) = self.lanes[lane as usize].ahead.pop_front() {
            return frame;
        }
        self.read(lane).await
    }

    /// The next frame of this type on a lane; others stay for later.
    pub async fn receive_type<'a, F: Frame<'a>>(&mut self, lane: Lane) -> Received {
        let ahead = &mut self.lanes[lane as usize].ahead;
        if let Some(index) = ahead.iter().position(Received::is::<F>) {
            return ahead.remove(index).unwrap();
        }
        loop {
            let frame = self.read(lane).await;
            if frame.is::<F>() {
                return frame;
            }
            self.lanes[lane as usize].ahead.push_back(frame);
        }
    }

    async fn read(&mut self, lane: Lane) -> Received {
        let stream = &mut self.lanes[lane as usize].receive;
        patiently(async {
            loop {
                let mut head = [0; FrameHeader::BYTES];
                stream.read_exact(&mut head).await.unwrap();
                let header = FrameHeader::from_bytes(&head).unwrap();
                let mut body = vec![0; header.body_bytes as usize];
                stream.read_exact(&mut body).await.unwrap();
                if header.frame_type != 0 {
                    return Received { frame_type: header.frame_type, body };
                }
            }
        })
        .await
    }

    /// Loses the connection as a crashed node would, without a word on the lanes.
    pub fn lose(self) {
        self.connection.close(1u32.into(), b"going down");
    }

    /// Closes with a code.
    pub fn close(&self, code: u32, reason: &str) {
        self.connection.close(code.into(), reason.as_bytes());
    }

    /// Waits until the peer has closed and tells the code.
    pub async fn closed(&self) -> u64 {
        match patiently(self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("{other}"),
        }
    }
}

/// Waits, but not for ever.
pub async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it did not happen")
}

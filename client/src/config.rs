//! Where to connect, as whom, and the QUIC settings that follow.
//!
//! Invariants: TLS 1.3 only, both sides with certificates, one authority and no system roots, no early data, ALPN
//! `tickwheel/1`. Settings were chosen by measurement: windows of 8 MiB cost nothing on a slow path and do not bound a fast one.

use crate::error::ConnectError;
use quinn::{
    ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt, congestion::CubicConfig,
    crypto::rustls::QuicClientConfig,
};
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{fmt, path::Path, sync::Arc, time::Duration};
use tickwheel_wire::limits;

/// Protocol name in the TLS handshake.
pub const ALPN: &[u8] = b"tickwheel/1";

/// The host name that every node's certificate carries besides its own.
pub const SERVER_NAME_DEFAULT: &str = "tickwheel";

/// Smallest datagram payload that QUIC permits as a path's limit, in bytes.
const MTU_BYTES_MIN: u16 = 1200;
/// Largest: jumbo frames of 9,000 bytes, less IPv6 and UDP headers.
const MTU_BYTES_MAX: u16 = 8952;
/// Flow control and send windows, in bytes.
const WINDOW_BYTES: u32 = 8 << 20;
/// Round trip that is assumed before one was measured.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Congestion window at the start for the smallest packets, in bytes (RFC 9002, 7.2).
const INITIAL_WINDOW_BYTES_MIN: u64 = 14_720;

/// The authority that signs nodes, and this peer's certificate and key. Role, tenant and pools stand in the certificate.
#[derive(Clone)]
pub struct Credentials {
    crypto: Arc<QuicClientConfig>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads PEM: `authority` (certificates that sign those of the nodes), `chain` (this peer's certificate first), `key`.
    ///
    /// # Errors
    /// [`ConnectError::Credentials`] when one of them cannot be read, or they do not fit together.
    pub fn from_pem(authority: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, ConnectError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authority, "authority")? {
            roots.add(certificate).map_err(|error| unusable("authority", &error))?;
        }
        let chain = certificates(chain, "certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable("key", &error))?;
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable("provider", &error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable("certificate", &error))?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.enable_early_data = false;
        tls.resumption = rustls::client::Resumption::disabled();
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| unusable("provider", &error))?;
        Ok(Self { crypto: Arc::new(crypto) })
    }

    /// Reads the three PEM files; see [`Credentials::from_pem`]. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// [`ConnectError::Credentials`] names the file that cannot be read.
    pub fn from_files(
        authority: impl AsRef<Path>,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, ConnectError> {
        Self::from_pem(&read(authority.as_ref())?, &read(chain.as_ref())?, &read(key.as_ref())?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|error| unusable(&path.display().to_string(), &error))
}

fn unusable(what: &str, error: &dyn fmt::Display) -> ConnectError {
    ConnectError::Credentials(format!("{what}: {error}"))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(unusable(what, &"no certificate in it")),
        Ok(all) => Ok(all),
        Err(error) => Err(unusable(what, &error)),
    }
}

/// ring, with AES-128 before AES-256 before ChaCha20.
fn provider() -> CryptoProvider {
    let cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}

/// How to reach a node. [`ConnectConfig::new`] fills in the defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectConfig {
    /// `host:port` of any shard of the node; the rest is learned from it.
    pub address: String,
    /// Who this peer is and whom it trusts.
    pub credentials: Credentials,
    /// The name that the node's certificate must carry. Default [`SERVER_NAME_DEFAULT`].
    pub server_name: String,
    /// Longest wait for one connection, its handshake and `Welcome` included. Default 3 s.
    pub connect_timeout: Duration,
    /// Interval of QUIC keep-alives. Default 1 s: well below the time that executions wait for
    /// their worker after a server's restart, which is noticed by the answer to one.
    pub keep_alive: Duration,
    /// A connection from which nothing is heard for this long is lost. Default 30 s.
    pub idle_timeout: Duration,
    /// Largest datagram payload that path discovery tries, in bytes, 1,200 to 8,952. Default 8,952. The node
    /// must be set to accept as much.
    pub mtu_bytes: u16,
    /// Longest frame body that is accepted from the node, in bytes. Default 1 MiB.
    pub frame_bytes_max: u32,
}

impl ConnectConfig {
    /// The defaults, for a node at `address` (`host:port`).
    pub fn new(address: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            address: address.into(),
            credentials,
            server_name: SERVER_NAME_DEFAULT.to_owned(),
            connect_timeout: Duration::from_secs(3),
            keep_alive: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(30),
            mtu_bytes: MTU_BYTES_MAX,
            frame_bytes_max: u32::try_from(limits::FRAME_BYTES_MAX).expect("1 MiB fits"),
        }
    }

    /// Settings of the endpoint, the socket's owner.
    pub(crate) fn quic_endpoint(&self) -> Result<EndpointConfig, ConnectError> {
        if !(MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(&self.mtu_bytes) {
            let range = format!("{MTU_BYTES_MIN} to {MTU_BYTES_MAX}");
            return Err(ConnectError::Setting { setting: "mtu_bytes", value: self.mtu_bytes.into(), range });
        }
        let mut endpoint = EndpointConfig::default();
        endpoint.max_udp_payload_size(self.mtu_bytes).expect("the range was checked");
        Ok(endpoint)
    }

    /// Settings of each connection.
    pub(crate) fn quic_client(&self) -> Result<ClientConfig, ConnectError> {
        let idle = IdleTimeout::try_from(self.idle_timeout).map_err(|_| ConnectError::Setting {
            setting: "idle_timeout",
            value: u64::try_from(self.idle_timeout.as_millis()).unwrap_or(u64::MAX),
            range: "0 to 2^62 ms".to_owned(),
        })?;
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_bytes);
        // Slow start has to hold several packets of the largest size, or a path that discovers it stalls.
        let mut congestion = CubicConfig::default();
        congestion.initial_window(INITIAL_WINDOW_BYTES_MIN.max(10 * u64::from(self.mtu_bytes)));
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive))
            // The first packet to a node that is just starting is repeated after three times this, not after a second.
            .initial_rtt(INITIAL_RTT)
            .send_window(WINDOW_BYTES.into())
            .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
            .receive_window(VarInt::from_u32(WINDOW_BYTES))
            .mtu_discovery_config(Some(discovery))
            .congestion_controller_factory(Arc::new(congestion));
        let mut client = ClientConfig::new(Arc::clone(&self.credentials.crypto) as Arc<_>);
        client.transport_config(Arc::new(transport));
        Ok(client)
    }
}

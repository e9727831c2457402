//! The server's side of TLS: 1.3 only, ring, mutual, ALPN `tickwheel/1`.
//!
//! Invariants: no peer gets past the handshake without a certificate that chains to our authority; no early data and no
//! resumption, so that each session proves its identity anew. rustls judges the validity period of certificates by the
//! system's wall clock; that is the one clock that is read below this crate.

use ::ring::hmac;
use quinn_proto::crypto::rustls::QuicServerConfig;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{fmt, sync::Arc};

/// Protocol name in the TLS handshake.
pub const ALPN: &[u8] = b"tickwheel/1";

/// Certificates and key of a server, ready for an endpoint. Cheap to clone: the shards of a node share one.
#[derive(Clone)]
pub struct ServerTls {
    quic: Arc<QuicServerConfig>,
    secrets: RestartSecrets,
}

/// What must be the same after a restart.
///
/// A server that was killed and started again has to tell its peers that their connections are gone (RFC 9000, 10.3), or they
/// would wait for their idle time-out. It recognises its own connection ids by one key and signs the reset with another;
/// both follow from the one secret that outlives the process.
#[derive(Clone)]
pub(crate) struct RestartSecrets {
    pub reset_key: Arc<hmac::Key>,
    pub connection_id_key: u64,
}

impl RestartSecrets {
    fn derive(private_key: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, private_key);
        let reset_key = hmac::sign(&root, b"tickwheel stateless reset");
        let connection_id_key = hmac::sign(&root, b"tickwheel connection ids");
        let first = connection_id_key.as_ref().first_chunk().expect("a digest has 32 bytes");
        Self {
            reset_key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset_key.as_ref())),
            connection_id_key: u64::from_le_bytes(*first),
        }
    }
}

/// Why certificates or key are of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The authority's PEM holds no readable certificate.
    #[error("the authority's certificate cannot be read: {0}")]
    Authority(String),
    /// The certificate chain's PEM holds no readable certificate.
    #[error("the certificate chain cannot be read: {0}")]
    Chain(String),
    /// The key's PEM holds no readable private key.
    #[error("the private key cannot be read: {0}")]
    Key(String),
    /// Certificate and key do not belong together, or their kind is not supported.
    #[error("the certificate or key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

impl ServerTls {
    /// Reads PEM: `authority` (one or more certificates that sign those of the peers), `chain` (the server's
    /// certificate first) and `key`.
    ///
    /// # Errors
    /// When one of them cannot be read, or they do not fit together.
    pub fn from_pem(authority: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authority).map_err(TlsError::Authority)? {
            roots.add(certificate).map_err(|error| TlsError::Authority(error.to_string()))?;
        }
        let chain = certificates(chain).map_err(TlsError::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
        let secrets = RestartSecrets::derive(key.secret_der());
        let provider = Arc::new(provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| TlsError::Authority(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.ignore_client_order = true;
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let quic = QuicServerConfig::try_from(config).expect("the provider has the suite of initial packets");
        Ok(Self { quic: Arc::new(quic), secrets })
    }

    pub(crate) fn secrets(&self) -> RestartSecrets {
        self.secrets.clone()
    }

    pub(crate) fn quic(&self) -> Arc<QuicServerConfig> {
        Arc::clone(&self.quic)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
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

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("no certificate in it".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}

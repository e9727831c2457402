//! A peer without manners: any certificate or none, and any bytes before it was welcomed.

use anyhow::Context as _;
use quinn::{ClientConfig, ConnectionError, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{RootCertStore, crypto::ring, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};
use tickwheel_client::{ALPN, SERVER_NAME_DEFAULT};
use tickwheel_server::certificates::Files;

/// TLS that trusts the authority of `folder` and shows the certificate `name` of it, or none.
fn tls(folder: &Path, name: Option<&str>) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(Files::of(folder, "ca").certificate)?)?;
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots);
    let mut tls = match name.map(|name| Files::of(folder, name)) {
        None => builder.with_no_client_auth(),
        Some(files) => builder.with_client_auth_cert(
            vec![CertificateDer::from_pem_file(files.certificate)?],
            PrivateKeyDer::from_pem_file(files.key)?,
        )?,
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok(tls)
}

/// Connects with the certificate `name`, says `bytes` on the control lane and waits: how the node ended it.
pub async fn fate(
    address: SocketAddr,
    folder: &Path,
    name: Option<&str>,
    bytes: &[u8],
) -> anyhow::Result<ConnectionError> {
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls(folder, name)?)?));
    let connection = match endpoint.connect_with(config, address, SERVER_NAME_DEFAULT)?.await {
        Ok(connection) => connection,
        Err(error) => return Ok(error),
    };
    let (mut lane, _answers) = match connection.open_bi().await {
        Ok(streams) => streams,
        Err(error) => return Ok(error),
    };
    if let Err(error) = lane.write_all(bytes).await {
        // The node was faster.
        connection.close_reason().with_context(|| format!("the lane alone has ended: {error}"))?;
    }
    Ok(connection.closed().await)
}

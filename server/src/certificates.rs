//! Certificates: an authority of the cluster's own, and what it issues to servers, clients and workers.
//!
//! Each lies as `NAME.pem` and `NAME.key` in one folder, the authority as `ca.pem` and `ca.key`. Keys are ECDSA P-256, readable by
//! their owner only. What a certificate says of its holder is the identity of `tickwheel_net`.

use jiff::{Timestamp, ToSpan as _, Zoned, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use tickwheel_net::Identity;

/// The name that every server certificate carries, whatever its hosts: clients ask for it.
pub const SERVER_NAME: &str = "tickwheel";
/// How long a certificate is valid, in days, unless asked otherwise.
pub const VALIDITY_DAYS_DEFAULT: u16 = 365;
/// How long the authority is valid, in years.
const AUTHORITY_YEARS: i32 = 10;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// There is an authority already.
    #[error("{0} exists; issue from it, or name another folder")]
    AuthorityExists(PathBuf),
    /// The library refused.
    #[error("cannot make the certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The identity is not valid.
    #[error(transparent)]
    Identity(#[from] tickwheel_net::IdentityError),
}

/// A certificate and its key on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl Files {
    /// The files of `name` in `folder`.
    pub fn of(folder: &Path, name: &str) -> Self {
        Self { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) }
    }

    fn exist(&self) -> bool {
        self.certificate.exists() && self.key.exists()
    }
}

/// A certificate authority in a folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority in `folder`, creating it.
    ///
    /// # Errors
    /// When there is one already, or the folder cannot be written.
    pub fn create(folder: &Path) -> Result<Self, CertificateError> {
        let files = Files::of(folder, "ca");
        if files.certificate.exists() || files.key.exists() {
            return Err(CertificateError::AuthorityExists(files.certificate));
        }
        fs::create_dir_all(folder).map_err(|error| CertificateError::File { path: folder.to_owned(), error })?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "tickwheel authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let today = today();
        params.not_before = rcgen_date(today.saturating_sub(1.day()));
        params.not_after = rcgen_date(today.saturating_add(AUTHORITY_YEARS.years()));
        let certificate = params.self_signed(&key)?;
        write(&files.key, &key.serialize_pem(), 0o600)?;
        write(&files.certificate, &certificate.pem(), 0o644)?;
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// Opens the authority in `folder`.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn open(folder: &Path) -> Result<Self, CertificateError> {
        let files = Files::of(folder, "ca");
        let key = KeyPair::from_pem(&read(&files.key)?)?;
        let issuer = Issuer::from_ca_cert_pem(&read(&files.certificate)?, key)?;
        Ok(Self { folder: folder.to_owned(), issuer })
    }

    /// Issues a server's certificate as `name`, for `hosts` besides [`SERVER_NAME`] and the loopback.
    ///
    /// # Errors
    /// When a host is not a name, or the files cannot be written.
    pub fn issue_server(&self, name: &str, hosts: &[String], days: u16) -> Result<Files, CertificateError> {
        let mut names = vec![SERVER_NAME.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend(hosts.iter().cloned());
        let mut params = CertificateParams::default();
        for host in names {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.try_into()?),
            });
        }
        self.issue(name, params, ExtendedKeyUsagePurpose::ServerAuth, days)
    }

    /// Issues the certificate of a client, an admin or a worker as `file_name`.
    ///
    /// # Errors
    /// When the identity is not valid, or the files cannot be written.
    pub fn issue_identity(&self, file_name: &str, identity: &Identity, days: u16) -> Result<Files, CertificateError> {
        identity.validate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, identity.name.clone());
        for uri in identity.subject_alt_names() {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        self.issue_named(file_name, params, ExtendedKeyUsagePurpose::ClientAuth, days)
    }

    fn issue(
        &self,
        name: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
        days: u16,
    ) -> Result<Files, CertificateError> {
        params.distinguished_name.push(DnType::CommonName, name);
        self.issue_named(name, params, usage, days)
    }

    fn issue_named(
        &self,
        file_name: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
        days: u16,
    ) -> Result<Files, CertificateError> {
        let today = today();
        params.not_before = rcgen_date(today.saturating_sub(1.day()));
        params.not_after = rcgen_date(today.saturating_add(i64::from(days).days()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = Files::of(&self.folder, file_name);
        write(&files.key, &key.serialize_pem(), 0o600)?;
        write(&files.certificate, &certificate.pem(), 0o644)?;
        Ok(files)
    }
}

/// Makes sure that `folder` holds an authority and the certificates `server`, `admin` and `worker` that a server on one machine
/// needs; what is there already is kept.
///
/// # Errors
/// [`CertificateError`]
pub fn ensure_local(folder: &Path) -> Result<(), CertificateError> {
    let authority = if Files::of(folder, "ca").exist() { Authority::open(folder)? } else { Authority::create(folder)? };
    let days = VALIDITY_DAYS_DEFAULT * 10;
    if !Files::of(folder, "server").exist() {
        authority.issue_server("server", &[], days)?;
    }
    if !Files::of(folder, "admin").exist() {
        let role = tickwheel_net::Role::Admin;
        authority.issue_identity(
            "admin",
            &Identity { name: "admin".to_owned(), role, tenant: None, pools: Vec::new() },
            days,
        )?;
    }
    if !Files::of(folder, "worker").exist() {
        let role = tickwheel_net::Role::Worker;
        let pools = crate::config::POOLS_BUILT_IN.map(str::to_owned).to_vec();
        let identity = Identity { name: "local-worker".to_owned(), role, tenant: None, pools };
        authority.issue_identity("worker", &identity, days)?;
    }
    Ok(())
}

fn today() -> Date {
    Zoned::new(Timestamp::now(), TimeZone::UTC).date()
}

fn rcgen_date(date: Date) -> time::OffsetDateTime {
    date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
}

fn read(path: &Path) -> Result<String, CertificateError> {
    fs::read_to_string(path).map_err(|error| CertificateError::File { path: path.to_owned(), error })
}

/// Writes a file durably: after a loss of power it is whole or absent, as an empty certificate would keep the server from starting.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| CertificateError::File { path: path.to_owned(), error })
}

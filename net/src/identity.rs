//! Who a peer is, as its certificate says.
//!
//! Encoding, shared by the generator of certificates and the reader here:
//!
//! | part of the certificate | holds |
//! |---|---|
//! | subject common name | a name that is unique among the peers, `worker-7` |
//! | SAN URI `tickwheel://role/R` | the role, exactly one: `admin`, `client` or `worker` |
//! | SAN URI `tickwheel://tenant/T` | the tenant, at most one; a client must have one, an admin or a worker without stands for all |
//! | SAN URI `tickwheel://pool/P` | a pool that a worker may serve, from 1 to 16 of them; workers only |
//!
//! Names and values have 1 to 64 characters out of `A-Z a-z 0-9 . _ - ~`, so that they need no escaping in a URI.
//! SAN entries of other kinds and schemes are ignored; an unknown kind under `tickwheel://` is an error, because it might
//! restrict what the certificate is good for.
//!
//! Deliberately absent: whether the certificate is genuine (TLS has verified that before) and whether the tenant
//! exists (the server knows).

use std::fmt;
use tickwheel_wire::limits;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Longest name, tenant or pool in a certificate, in bytes.
pub const IDENTITY_NAME_BYTES_MAX: usize = limits::TENANT_NAME_BYTES_MAX;
/// Pools per worker certificate at most.
pub const POOLS_MAX: usize = limits::WORKER_POOLS_MAX;

const _: () = assert!(IDENTITY_NAME_BYTES_MAX <= limits::POOL_NAME_BYTES_MAX, "one bound fits tenants and pools");

const SCHEME: &str = "tickwheel://";

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything, in its tenant or in all.
    Admin,
    /// Submits and manages the jobs of its tenant.
    Client,
    /// Runs executions of its tenant, or of all, in its pools.
    Worker,
}

impl Role {
    /// The word in the certificate.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Client => "client",
            Self::Worker => "worker",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Admin, Self::Client, Self::Worker].into_iter().find(|role| role.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A peer's identity. Only [`Identity::validate`]d ones come from certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Unique name of the peer.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The tenant that it acts for; `None` (not for clients) means all.
    pub tenant: Option<String>,
    /// Pools that it may serve; empty unless the role is worker.
    pub pools: Vec<String>,
}

/// Why a certificate says no valid identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The peer presented no certificate.
    #[error("no certificate was presented")]
    NoCertificate,
    /// The certificate cannot be parsed.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// The subject has no common name, or more than one.
    #[error("the certificate's subject must have exactly one common name")]
    NoName,
    /// A name, tenant or pool is empty, too long or has other characters.
    #[error("the {what} {value:?} must be 1 to 64 characters of A-Z a-z 0-9 . _ - ~")]
    InvalidName {
        /// Which one.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// No role is given, or more than one.
    #[error("the certificate must hold exactly one tickwheel://role/... entry")]
    NotOneRole,
    /// A role that does not exist.
    #[error("unknown role {0:?}")]
    UnknownRole(String),
    /// More than one tenant.
    #[error("the certificate holds more than one tickwheel://tenant/... entry")]
    SeveralTenants,
    /// A client without tenant.
    #[error("a client certificate must hold a tickwheel://tenant/... entry")]
    NoTenant,
    /// Pools of a peer that is no worker, no pools or too many of a worker, or one of them twice.
    #[error("a worker certificate must hold 1 to 16 different tickwheel://pool/... entries, others none")]
    InvalidPools,
    /// An entry under `tickwheel://` of unknown kind.
    #[error("unknown entry {0:?} in the certificate")]
    UnknownEntry(String),
}

impl Identity {
    /// Checks the rules of the module's table.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate(&self) -> Result<(), IdentityError> {
        check_name("name", &self.name)?;
        match &self.tenant {
            Some(tenant) => check_name("tenant", tenant)?,
            None if self.role == Role::Client => return Err(IdentityError::NoTenant),
            None => {}
        }
        let is_worker = self.role == Role::Worker;
        if self.pools.is_empty() == is_worker || self.pools.len() > POOLS_MAX {
            return Err(IdentityError::InvalidPools);
        }
        for (index, pool) in self.pools.iter().enumerate() {
            check_name("pool", pool)?;
            if self.pools[..index].contains(pool) {
                return Err(IdentityError::InvalidPools);
            }
        }
        Ok(())
    }

    /// The SAN URI entries that say this identity, for whoever makes the certificate; the common name is
    /// [`Identity::name`].
    pub fn subject_alt_names(&self) -> Vec<String> {
        let role = ("role", self.role.as_str());
        let tenant = self.tenant.iter().map(|tenant| ("tenant", tenant.as_str()));
        let pools = self.pools.iter().map(|pool| ("pool", pool.as_str()));
        std::iter::once(role)
            .chain(tenant)
            .chain(pools)
            .map(|(kind, value)| format!("{SCHEME}{kind}/{value}"))
            .collect()
    }

    /// Reads the identity from a certificate in DER.
    ///
    /// # Errors
    /// When the certificate cannot be parsed or breaks a rule of the module's table.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let unreadable = |error: &dyn fmt::Display| IdentityError::Unreadable(error.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        let mut names = certificate.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else { return Err(IdentityError::NoName) };
        let name = name.as_str().map_err(|error| unreadable(&error))?;
        let extension = certificate.subject_alternative_name().map_err(|error| unreadable(&error))?;
        let entries = extension.iter().flat_map(|extension| &extension.value.general_names);
        let uris = entries.filter_map(|entry| match entry {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        Self::from_parts(name, uris)
    }

    fn from_parts<'a>(name: &str, uris: impl Iterator<Item = &'a str>) -> Result<Self, IdentityError> {
        let (mut role, mut tenant, mut pools) = (None, None, Vec::new());
        for entry in uris.filter_map(|uri| uri.strip_prefix(SCHEME)) {
            match entry.split_once('/') {
                Some(("role", _)) if role.is_some() => return Err(IdentityError::NotOneRole),
                Some(("role", word)) => {
                    role = Some(Role::parse(word).ok_or_else(|| IdentityError::UnknownRole(word.to_owned()))?);
                }
                Some(("tenant", _)) if tenant.is_some() => return Err(IdentityError::SeveralTenants),
                Some(("tenant", value)) => tenant = Some(value.to_owned()),
                Some(("pool", _)) if pools.len() >= POOLS_MAX => return Err(IdentityError::InvalidPools),
                Some(("pool", value)) => pools.push(value.to_owned()),
                _ => return Err(IdentityError::UnknownEntry(format!("{SCHEME}{entry}"))),
            }
        }
        let identity = Self { name: name.to_owned(), role: role.ok_or(IdentityError::NotOneRole)?, tenant, pools };
        identity.validate()?;
        Ok(identity)
    }
}

fn check_name(what: &'static str, value: &str) -> Result<(), IdentityError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-~".contains(&byte);
    if (1..=IDENTITY_NAME_BYTES_MAX).contains(&value.len()) && value.bytes().all(allowed) {
        return Ok(());
    }
    Err(IdentityError::InvalidName { what, value: value.chars().take(IDENTITY_NAME_BYTES_MAX).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, uris: &[&str]) -> Result<Identity, IdentityError> {
        Identity::from_parts(name, uris.iter().copied())
    }

    fn worker() -> Identity {
        let pools = vec!["high".to_owned(), "spot".to_owned()];
        Identity { name: "worker-7".to_owned(), role: Role::Worker, tenant: Some("acme".to_owned()), pools }
    }

    #[test]
    fn an_identity_survives_its_entries() {
        let admin = Identity { name: "root".to_owned(), role: Role::Admin, tenant: None, pools: Vec::new() };
        for identity in [worker(), admin] {
            let uris = identity.subject_alt_names();
            let back = Identity::from_parts(&identity.name, uris.iter().map(String::as_str));
            assert_eq!(back, Ok(identity));
        }
    }

    #[test]
    fn foreign_entries_are_ignored() {
        let identity = parse("c", &["spiffe://x/y", "tickwheel://role/client", "tickwheel://tenant/acme", "urn:z"]);
        assert_eq!(identity.unwrap().role, Role::Client);
    }

    #[test]
    fn each_broken_rule_has_its_own_error() {
        use IdentityError as E;
        let role = "tickwheel://role/worker";
        let tenant = "tickwheel://tenant/acme";
        let pool = "tickwheel://pool/high";
        assert_eq!(parse("w", &[]), Err(E::NotOneRole));
        assert_eq!(parse("w", &[role, role, tenant, pool]), Err(E::NotOneRole));
        assert_eq!(parse("w", &["tickwheel://role/root"]), Err(E::UnknownRole("root".to_owned())));
        assert_eq!(parse("c", &["tickwheel://role/client"]), Err(E::NoTenant));
        assert_eq!(parse("w", &[role, tenant, tenant, pool]), Err(E::SeveralTenants));
        assert_eq!(parse("w", &[role, tenant]), Err(E::InvalidPools));
        assert_eq!(parse("w", &[role, tenant, pool, pool]), Err(E::InvalidPools));
        assert_eq!(parse("c", &["tickwheel://role/client", tenant, pool]), Err(E::InvalidPools));
        assert!(matches!(parse("w", &[role, tenant, pool, "tickwheel://zone/a"]), Err(E::UnknownEntry(_))));
        assert!(matches!(parse("", &[role, tenant, pool]), Err(E::InvalidName { what: "name", .. })));
        assert!(matches!(parse("w w", &[role, tenant, pool]), Err(E::InvalidName { what: "name", .. })));
        let slash = "tickwheel://tenant/a/b";
        assert!(matches!(parse("w", &[role, slash, pool]), Err(E::InvalidName { what: "tenant", .. })));
    }

    #[test]
    fn a_worker_without_tenant_stands_for_all() {
        let identity = parse("w", &["tickwheel://role/worker", "tickwheel://pool/high"]).unwrap();
        assert_eq!((identity.role, identity.tenant), (Role::Worker, None));
    }

    #[test]
    fn garbage_is_unreadable_and_no_panic() {
        assert!(matches!(Identity::from_certificate(b"\x30\x82garbage"), Err(IdentityError::Unreadable(_))));
    }
}

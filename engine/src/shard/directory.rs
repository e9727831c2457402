//! The node's names for tenants and pools, and who a session is.
//!
//! A [`Directory`] is made once from the configuration and shared by all shards, so that a number means the same on each of them.
//! Certificates and frames carry names; everything inside the core carries numbers.

use crate::dispatcher::{POOL_COUNT_MAX, PoolId, PoolSet};
use tickwheel_wire::{TenantId, job::POOL_DEFAULT};

/// One tenant of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: Box<str>,
    /// Its share of dispatches among tenants of equal priority, at least 1. Default 1.
    pub weight: u16,
}

/// One pool of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: Box<str>,
    /// The only tenant whose jobs it runs; `None`: it is shared. A worker that belongs to one of several tenants may serve
    /// only that tenant's pools.
    pub tenant: Option<TenantId>,
}

impl Pool {
    /// A pool that all tenants share.
    pub fn shared(name: &str) -> Self {
        Self { name: name.into(), tenant: None }
    }
}

/// Tenants and pools by name and number.
#[derive(Clone, Debug)]
pub struct Directory {
    tenants: Vec<Tenant>,
    pools: Vec<Pool>,
}

/// Why a directory or an identity is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// A name appears twice in the configuration.
    #[error("`{0}` is configured twice")]
    Duplicate(Box<str>),
    /// There are too many pools.
    #[error("{0} pools are configured; at most {POOL_COUNT_MAX} are possible")]
    TooManyPools(usize),
    /// The tenant is not configured.
    #[error("the tenant `{0}` is not configured")]
    UnknownTenant(Box<str>),
    /// The pool is not configured.
    #[error("the pool `{0}` is not configured")]
    UnknownPool(Box<str>),
    /// A client or worker must belong to a tenant.
    #[error("a {0} must belong to a tenant")]
    TenantMissing(&'static str),
}

impl Directory {
    /// Makes the directory; a tenant's number is its place in `tenants`, which therefore only ever grows. The pool
    /// `standard` is added when it is not in `pools`.
    ///
    /// # Errors
    /// When a name appears twice or there are more than [`POOL_COUNT_MAX`] pools.
    pub fn new(tenants: Vec<Tenant>, pools: Vec<Pool>) -> Result<Self, DirectoryError> {
        let mut pools = pools;
        if !pools.iter().any(|pool| &*pool.name == POOL_DEFAULT) {
            pools.push(Pool::shared(POOL_DEFAULT));
        }
        if pools.len() > usize::from(POOL_COUNT_MAX) {
            return Err(DirectoryError::TooManyPools(pools.len()));
        }
        no_duplicates(pools.iter().map(|pool| &*pool.name))?;
        no_duplicates(tenants.iter().map(|tenant| &*tenant.name))?;
        Ok(Self { tenants, pools })
    }

    /// The tenant with this name.
    pub fn tenant(&self, name: &str) -> Option<TenantId> {
        let place = self.tenants.iter().position(|tenant| &*tenant.name == name)?;
        Some(TenantId(u32::try_from(place).expect("tenants are few")))
    }

    /// Every tenant with its number.
    pub fn tenants(&self) -> impl Iterator<Item = (TenantId, &Tenant)> {
        (0..).map(TenantId).zip(&self.tenants)
    }

    /// The pool with this name.
    pub fn pool(&self, name: &str) -> Option<PoolId> {
        let place = self.pools.iter().position(|pool| &*pool.name == name)?;
        Some(PoolId(u16::try_from(place).expect("the number of pools is bounded")))
    }

    /// The pool that a job of pool `name` runs in: its own, or `standard` when the configuration has it no more.
    pub fn pool_or_default(&self, name: &str) -> PoolId {
        self.pool(name).or_else(|| self.pool(POOL_DEFAULT)).expect("`standard` is always there")
    }

    /// Every pool with its number.
    pub fn pools(&self) -> impl Iterator<Item = (PoolId, &Pool)> {
        (0..).map(PoolId).zip(&self.pools)
    }

    /// Whether jobs of `tenant` may run in `pool`.
    pub fn pool_serves(&self, pool: PoolId, tenant: TenantId) -> bool {
        self.pools[usize::from(pool.0)].tenant.is_none_or(|owner| owner == tenant)
    }

    /// Whether a worker that belongs to `tenant` gets only that tenant's executions when it serves `pool`.
    pub fn pool_confines(&self, pool: PoolId, tenant: TenantId) -> bool {
        self.tenants.len() == 1 || self.pools[usize::from(pool.0)].tenant == Some(tenant)
    }

    /// Resolves what a certificate says. `tenant` is `None` for an identity that may act for any tenant, which only an
    /// administrator and a worker may be.
    ///
    /// # Errors
    /// When the tenant or a pool is not configured, or a client names no tenant.
    pub fn identify(
        &self,
        name: &str,
        role: Role,
        tenant: Option<&str>,
        pools: &[&str],
    ) -> Result<Identity, DirectoryError> {
        let tenant = match tenant {
            Some(tenant) => Some(self.tenant(tenant).ok_or_else(|| DirectoryError::UnknownTenant(tenant.into()))?),
            None if role == Role::Client => return Err(DirectoryError::TenantMissing("client")),
            None => None,
        };
        let mut set = PoolSet::EMPTY;
        for pool in pools {
            set.insert(self.pool(pool).ok_or_else(|| DirectoryError::UnknownPool((*pool).into()))?);
        }
        Ok(Identity { name: name.into(), role, tenant, pools: set })
    }
}

fn no_duplicates<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), DirectoryError> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(DirectoryError::Duplicate(pair[0].into())),
        None => Ok(()),
    }
}

/// What an identity may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything that a client may, for every tenant.
    Admin,
    /// Submits and manages jobs of its tenant.
    Client,
    /// Runs executions of its pools.
    Worker,
}

/// Who a session is, as its certificate says, in the node's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name in the certificate.
    pub name: Box<str>,
    /// What it may do.
    pub role: Role,
    /// The only tenant that it may act for; `None`: any.
    pub tenant: Option<TenantId>,
    /// The pools that a worker may serve.
    pub pools: PoolSet,
}

impl Identity {
    /// Whether it may act for `tenant`.
    pub fn may_act_for(&self, tenant: TenantId) -> bool {
        self.tenant.is_none_or(|own| own == tenant)
    }
}

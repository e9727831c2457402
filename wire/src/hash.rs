//! The hash functions that are part of the protocol: they decide where a job lives and how it is jittered, so they never change.
//!
//! `name_hash` is XXH3-64 (seed 0) over the tenant's name, one zero byte, and the job's name; a job lives in partition
//! `name_hash & (count - 1)`. `mix64` is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).

use crate::{PartitionCount, PartitionId};
use xxhash_rust::xxh3::Xxh3Default;

/// XXH3-64 of `tenant`, a zero byte, `job`.
pub fn name_hash(tenant: &str, job: &str) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(tenant.as_bytes());
    hasher.update(&[0]);
    hasher.update(job.as_bytes());
    hasher.digest()
}

/// The partition that holds the job `tenant/job` (routing strategy `job-hash`).
#[expect(clippy::cast_possible_truncation, reason = "masked to a u16 below")]
pub fn partition_of(tenant: &str, job: &str, count: PartitionCount) -> PartitionId {
    PartitionId(name_hash(tenant, job) as u16 & (count.count() - 1))
}

/// Scrambles `value`; a bijection.
pub const fn mix64(value: u64) -> u64 {
    let z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

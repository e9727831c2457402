//! The hasher of the core's maps: fast, and without a seed, so that a run can be repeated.
//!
//! Keys are numbers that the node itself gives out, or that are hashes already; none are chosen by strangers but instance
//! ids, of which one session has one.

use std::hash::{BuildHasherDefault, Hasher};
use tickwheel_wire::mix64;

/// A map with the core's hasher.
pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, BuildHasherDefault<MixHasher>>;

/// Mixes each number into 64 bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MixHasher(u64);

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.0 = mix64(self.0 ^ value);
    }
}

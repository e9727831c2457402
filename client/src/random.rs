//! The crate's one random source: SplitMix64 (Steele, Lea, Flood 2014), seeded from the standard library's hasher keys, which
//! come from the operating system.
//!
//! Good for ids, keys and jitter. Deliberately absent: anything secret; TLS has its own source.

use std::hash::{BuildHasher, RandomState};
use tickwheel_wire::mix64;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// A stream that no other process and no other call shares.
    pub fn new() -> Self {
        Self { state: RandomState::new().hash_one(std::process::id()) }
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        let value = mix64(self.state);
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        value
    }

    /// 128 fresh bits. They come from two hashers, so that ids of several processes cannot meet in one 64-bit state.
    pub fn wide() -> u128 {
        let (mut high, mut low) = (Self::new(), Self::new());
        (u128::from(high.next()) << 64) | u128::from(low.next())
    }

    /// A number below `bound`, nearly uniform; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_stay_below_their_bound() {
        assert_ne!(Random::new().next(), Random::new().next());
        assert_ne!(Random::wide(), Random::wide());
        let mut random = Random::new();
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}

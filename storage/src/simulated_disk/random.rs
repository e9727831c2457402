//! The disk's source of chance: a chain of `mix64`, so that the same seed and the same questions give the same answers.

use tickwheel_wire::mix64;

/// What a rate of certainty is: rates are parts of this.
pub const RATE_SCALE: u32 = 100_000;

#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(mix64(seed))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = mix64(self.0);
        self.0 % bound
    }

    /// A number below `count`, for indexing.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("it is below a usize")
    }

    /// Whether something of this rate happens now. A rate of zero asks nothing, so that what is switched off changes nothing.
    pub fn strikes(&mut self, rate: u32) -> bool {
        rate > 0 && self.below(u64::from(RATE_SCALE)) < u64::from(rate)
    }

    /// A seed for another source, without a draw from this one.
    pub fn seed(&self) -> u64 {
        mix64(self.0)
    }
}

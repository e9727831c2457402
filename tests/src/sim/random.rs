//! Chance, all of it from one root seed: a stream per concern, so that one concern drawing more leaves the others as they were.

use std::time::Duration;
use tickwheel_wire::mix64;

/// A stream of draws.
#[derive(Clone, Debug)]
pub struct Stream(u64);

impl Stream {
    /// The stream of `concern`, and of the `index`th thing within it.
    pub fn new(seed: u64, concern: &str, index: u64) -> Self {
        let salt = concern.bytes().fold(0, |salt, byte| mix64(salt ^ u64::from(byte)));
        Self(mix64(mix64(seed) ^ salt ^ mix64(index.wrapping_add(1))))
    }

    /// A stream of another concern that begins from where this one is, which draws as if there were no other.
    pub fn fork(&self, concern: &str) -> Self {
        Self::new(self.0, concern, 0)
    }

    /// The next 64 bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix64(self.0)
    }

    /// A number below `count`, which is at least 1.
    pub const fn below(&mut self, count: u64) -> u64 {
        self.draw() % count
    }

    /// A number from `min` to `max`.
    pub const fn between(&mut self, min: u64, max: u64) -> u64 {
        min + self.below(max - min + 1)
    }

    /// True in `permille` of 1,000 cases.
    pub const fn chance(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    /// An index below `count`.
    pub fn place(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("an index")
    }

    /// One of the choices.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.place(choices.len())]
    }

    /// A duration from `min` to `max`, of any order of magnitude between them alike.
    pub fn duration(&mut self, min: Duration, max: Duration) -> Duration {
        let micros = |bound: Duration| u64::try_from(bound.as_micros()).expect("a short run").max(1);
        let (min_us, max_us) = (micros(min), micros(max));
        let doublings = (max_us / min_us).max(1).ilog2();
        let from_us = min_us << self.below(u64::from(doublings) + 1);
        Duration::from_micros((from_us + self.below(from_us)).min(max_us))
    }

    /// A duration from `min` to `max` in milliseconds, all alike.
    pub const fn millis(&mut self, min: u64, max: u64) -> Duration {
        Duration::from_micros(self.between(min * 1_000, max * 1_000))
    }
}

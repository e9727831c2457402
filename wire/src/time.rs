//! Points in time. Durations are [`std::time::Duration`] at the edges and suffixed integers on the wire.

use std::{fmt, time::Duration};

/// A point in wall time: microseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// Range 1970 to the year 586,000; [`Timestamp::MAX`] stands for "never".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    /// Later than every real time; means "never".
    pub const MAX: Self = Self(u64::MAX);

    /// The time `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The time `secs` seconds after the epoch, saturating.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// `self + duration`, at most [`Timestamp::MAX`].
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// `self - duration`, at least [`Timestamp::EPOCH`].
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The time passed since `earlier`, zero when `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Whether this is the "never" value.
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// The two clocks of one moment, as every decision receives them.
///
/// `wall` never decreases within one process (the caller slews it); `monotonic` is the time since an arbitrary
/// origin of the process and is what time-outs count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Wall time, kept monotonic.
    pub wall: Timestamp,
    /// Monotonic time since the process's origin.
    pub monotonic: Duration,
}

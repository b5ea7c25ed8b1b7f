//! The hybrid logical clock that stamps records. Owned by a shard; the time is always an argument.

/// When a record was committed, in microseconds since 1970: the wall clock, or one more than the last stamp where the
/// wall clock has not moved on. Strictly increasing per shard. Shown to clients as epoch milliseconds with a fraction
/// (compat §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// Epoch milliseconds. Exact to the microsecond until the year 2255 (2^53 / 1000 µs).
    pub fn as_millis(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

#[derive(Debug, Default)]
pub struct Clock {
    last: Version,
}

impl Clock {
    /// The next stamp at wall time `now_us`.
    pub fn stamp(&mut self, now_us: u64) -> Version {
        self.last = Version(now_us.max(self.last.0 + 1));
        self.last
    }

    /// Takes note of a stamp given out earlier (recovery), so that later ones are higher.
    pub fn observe(&mut self, version: Version) {
        self.last = self.last.max(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_when_the_wall_clock_stands_still_or_goes_back() {
        let mut clock = Clock::default();
        clock.observe(Version(50));
        let stamps: Vec<u64> = [10, 60, 60, 59, 100].map(|now| clock.stamp(now).0).to_vec();
        assert_eq!(stamps, [51, 60, 61, 62, 100]);
    }
}

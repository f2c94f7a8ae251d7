//! Noticing that the wall clock was set.
//!
//! Dates of certificates, of CRLs and of signed calls are measured by the wall clock. A clock that is
//! set lets expired certificates in, or good ones no longer, and nobody would know why.

use std::time::{Duration, Instant};

/// How far the wall clock may run away from the one that cannot be set before it is told: more than
/// what is corrected step by step, or goes by while the system sleeps for a moment.
const TOLERANCE: Duration = Duration::from_secs(5);

/// The two clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    wall_ms: i64,
    steady: Instant,
}

impl Clocks {
    pub(crate) fn new(wall_ms: i64, steady: Instant) -> Self {
        Self { wall_ms, steady }
    }

    /// By how many milliseconds the wall clock was set since then: forward if it is more than 0.
    /// `None` if it was not. Counts from this moment on next time.
    pub(crate) fn jump(&mut self, wall_ms: i64, steady: Instant) -> Option<i64> {
        let passed = steady.saturating_duration_since(self.steady).as_millis();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        let jump = wall_ms.saturating_sub(self.wall_ms).saturating_sub(passed);
        *self = Self::new(wall_ms, steady);
        (u128::from(jump.unsigned_abs()) > TOLERANCE.as_millis()).then_some(jump)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_that_is_set_is_told_once_and_one_that_runs_is_not() {
        let begin = Instant::now();
        let mut clocks = Clocks::new(1_000_000, begin);
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(clocks.jump(1_001_000, after(1)), None);
        // A turn that came late, and a clock that is corrected a little.
        assert_eq!(clocks.jump(1_064_000, after(61)), None);
        assert_eq!(clocks.jump(4_665_000, after(62)), Some(3_600_000));
        assert_eq!(clocks.jump(4_666_000, after(63)), None);
        assert_eq!(clocks.jump(0, after(64)), Some(-4_667_000));
        assert_eq!(clocks.jump(i64::MAX, after(64)), Some(i64::MAX));
        assert!(
            clocks
                .jump(i64::MIN, after(65))
                .is_some_and(|jump| jump < 0)
        );
    }
}

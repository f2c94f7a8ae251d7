//! How often an account may call.

use std::num::NonZeroU32;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::admin::errors::{ApiError, Code};
use crate::ca::id::AccountId;

/// Calls per second for each account; as many at once.
///
/// Only accounts whose signature was verified come here, so that their number is bounded.
pub struct RateLimit<C: Clock = MonotonicClock> {
    accounts: RateLimiter<AccountId, DashMapStateStore<AccountId>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
}

impl RateLimit {
    /// That many calls a second.
    pub fn per_second(calls: NonZeroU32) -> Self {
        Self::with_clock(calls, MonotonicClock)
    }
}

impl<C: Clock + Clone> RateLimit<C> {
    fn with_clock(calls: NonZeroU32, clock: C) -> Self {
        Self {
            accounts: RateLimiter::new(
                Quota::per_second(calls),
                DashMapStateStore::default(),
                clock.clone(),
            ),
            clock,
        }
    }

    /// Count one call.
    ///
    /// # Errors
    /// `Throttling.User` with the time to wait, if the account has called too often.
    pub fn check(&self, account: &AccountId) -> Result<(), ApiError> {
        self.accounts.check_key(account).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now()).as_micros();
            let wait = u64::try_from(wait.div_ceil(1000)).unwrap_or(u64::MAX);
            ApiError::from(Code::ThrottlingUser).retry_after(wait)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use std::time::Duration;

    #[test]
    fn account_over_its_rate_waits_and_others_do_not() {
        let clock = FakeRelativeClock::default();
        let limit = RateLimit::with_clock(NonZeroU32::new(2).unwrap(), clock.clone());
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(limit.check(&a).is_ok());
        assert!(limit.check(&a).is_ok());
        let error = limit.check(&a).unwrap_err();
        assert_eq!(error.code, Code::ThrottlingUser);
        let wait = error.retry_after_ms.unwrap();
        assert!((1..=500).contains(&wait), "{wait}");
        assert!(limit.check(&b).is_ok());
        clock.advance(Duration::from_millis(wait));
        assert!(limit.check(&a).is_ok());
    }
}

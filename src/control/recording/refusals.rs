//! Refused attempts: recorded one by one, unless a caller makes too many.
//!
//! A key that may do nothing could otherwise fill the disk, or drive out of a log of limited length
//! what happened before.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::audit::{Event, Phase};

/// Which refused attempts have a record of their own.
pub(super) struct Refusals<C: Clock = MonotonicClock> {
    callers: RateLimiter<String, DashMapStateStore<String>, C, NoOpMiddleware<C::Instant>>,
    /// How many each caller made that have none.
    others: Mutex<HashMap<String, u64>>,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self::with_clock(MonotonicClock)
    }
}

impl<C: Clock + Clone> Refusals<C> {
    fn with_clock(clock: C) -> Self {
        let quota = Quota::with_period(EVERY).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        Self {
            callers: RateLimiter::new(
                quota.allow_burst(AT_ONCE),
                DashMapStateStore::default(),
                clock,
            ),
            others: Mutex::default(),
        }
    }

    /// Whether this one is to be recorded. Otherwise it is counted.
    pub(super) fn admit(&self, refused: &Event) -> bool {
        let caller = &refused.origin.principal;
        if self.callers.check_key(caller).is_ok() {
            return true;
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        // Callers are proved: there are not so many.
        if others.len() < MAX_CALLERS || others.contains_key(caller) {
            *others.entry(caller.clone()).or_default() += 1;
        }
        false
    }

    /// One record for each caller whose attempts were counted, as soon as its turn has come again.
    pub(super) fn summaries(&self) -> Vec<Event> {
        let mut summaries = Vec::new();
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.retain(|caller, count| {
            if self.callers.check_key(caller).is_err() {
                return true;
            }
            let what = format!("{count} more attempts of this caller were refused, and have no records of their own");
            let mut summary = Event::of_itself("RefusedAttempts", String::new(), what);
            summary.phase = Phase::Refused;
            summary.origin.principal.clone_from(caller);
            summaries.push(summary);
            false
        });
        if others.is_empty() {
            self.callers.retain_recent();
        }
        summaries
    }
}

/// How many refused attempts of one caller are recorded at a time.
const AT_ONCE: NonZeroU32 = NonZeroU32::new(60).unwrap();

/// And one more after each of these.
const EVERY: Duration = Duration::from_secs(10);

/// Of how many callers the others are counted.
const MAX_CALLERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn refused(caller: &str) -> Event {
        let mut event = Event::of_itself("InactivateCaCertificate", String::new(), String::new());
        event.origin.principal = caller.to_owned();
        event
    }

    #[test]
    fn caller_that_is_refused_too_often_is_counted_and_others_are_recorded() {
        let clock = FakeRelativeClock::default();
        let refusals = Refusals::with_clock(clock.clone());
        let recorded = (0..1000).filter(|_| refusals.admit(&refused("a"))).count();
        assert_eq!(recorded, 60);
        assert!(refusals.admit(&refused("b")));
        assert!(refusals.summaries().is_empty());
        clock.advance(EVERY);
        let [summary] = &refusals.summaries()[..] else {
            panic!("not one summary")
        };
        assert_eq!(summary.origin.principal, "a");
        assert!(
            summary
                .detail
                .as_ref()
                .unwrap()
                .starts_with("940 more attempts")
        );
        // Which took the turn of its caller.
        assert!(!refusals.admit(&refused("a")));
        clock.advance(EVERY * 60);
        assert_eq!(refusals.summaries().len(), 1);
        assert!(refusals.admit(&refused("a")));
    }
}

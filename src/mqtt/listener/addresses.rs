//! Limits for each address that clients come from, looked at before a handshake costs anything.
//!
//! An address is one of IPv4, or all of a /64 of IPv6, since that is what one network has. Behind
//! one address there may be a whole plant: what is counted there hurts only what is far from any.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::mqtt::metrics::Unserved;
use crate::mqtt::settings::PerAddress;

/// Who is there from which address.
pub(super) struct Addresses {
    limits: PerAddress,
    present: Mutex<HashMap<Source, Present>>,
    rate: Option<Rate<MonotonicClock>>,
}

/// What counts as one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        })
    }
}

struct Present {
    connections: usize,
    /// For handshakes.
    turns: Option<Arc<Semaphore>>,
}

impl Addresses {
    pub(super) fn new(limits: PerAddress) -> Self {
        Self {
            rate: limits
                .connects_per_second
                .map(|connects| Rate::new(connects, MonotonicClock)),
            present: Mutex::default(),
            limits,
        }
    }

    /// Count one that comes from this address, until the place is dropped.
    ///
    /// # Errors
    /// Why it may not come.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Unserved> {
        let source = Source::of(address);
        if self.rate.as_ref().is_some_and(|rate| !rate.admits(source)) {
            return Err(Unserved::AddressRate);
        }
        let mut present = self.present();
        let here = present.entry(source).or_insert_with(|| Present {
            connections: 0,
            turns: self
                .limits
                .handshakes
                .map(|it| Arc::new(Semaphore::new(it))),
        });
        if self
            .limits
            .connections
            .is_some_and(|it| here.connections >= it)
        {
            return Err(Unserved::AddressConnections);
        }
        here.connections += 1;
        Ok(Place {
            turns: here.turns.clone(),
            addresses: Arc::clone(self),
            source,
        })
    }

    fn present(&self) -> MutexGuard<'_, HashMap<Source, Present>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a connection among those from its address. There are no more entries than places.
pub(super) struct Place {
    addresses: Arc<Addresses>,
    source: Source,
    turns: Option<Arc<Semaphore>>,
}

impl Place {
    /// Wait until few enough handshakes of the address are under way. Others than those of the
    /// address do not wait for that.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turns = self.turns.clone()?;
        turns.acquire_owned().await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut present = self.addresses.present();
        if let Some(here) = present.get_mut(&self.source) {
            here.connections = here.connections.saturating_sub(1);
            if here.connections == 0 {
                present.remove(&self.source);
            }
        }
        if present.len() < present.capacity() / 4 {
            present.shrink_to(ENTRIES_KEPT);
        }
    }
}

/// How often an address may come, on average over [`BURST_SECONDS`].
struct Rate<C: Clock> {
    limiter: RateLimiter<Source, DashMapStateStore<Source>, C, NoOpMiddleware<C::Instant>>,
    book: Mutex<Book>,
}

/// How many addresses the limiter may know by now.
struct Book {
    asked: usize,
    sweep_after: usize,
    full: bool,
}

impl<C: Clock + Clone> Rate<C> {
    fn new(connects: NonZeroU32, clock: C) -> Self {
        let burst = connects.saturating_mul(BURST_SECONDS);
        let quota = Quota::per_second(connects).allow_burst(burst);
        Self {
            limiter: RateLimiter::new(quota, DashMapStateStore::default(), clock),
            book: Mutex::new(Book {
                asked: 0,
                sweep_after: ENTRIES_KEPT,
                full: false,
            }),
        }
    }

    fn admits(&self, source: Source) -> bool {
        !self.is_remembered() || self.limiter.check_key(&source).is_ok()
    }

    /// Whether there is room to remember one more address. Now and then those are forgotten that
    /// have not come for so long that it makes no difference. If more have come since than are to
    /// be remembered, no limit for each would stop them: they come, and the limits on all hold.
    fn is_remembered(&self) -> bool {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.asked += 1;
        if book.asked > book.sweep_after {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            let known = self.limiter.len();
            *book = Book {
                asked: 0,
                sweep_after: known.clamp(ENTRIES_KEPT, ENTRIES_MAX / 2),
                full: known > ENTRIES_MAX / 2,
            };
        }
        !book.full
    }
}

/// The first half of an address of IPv6.
const NETWORK: u128 = !0 << 64;

/// As many connects as are permitted in this time may come at once.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// Addresses for which memory is kept although they are gone.
const ENTRIES_KEPT: usize = 1_024;

/// Addresses of which is remembered how often they came; about 100 octets each.
const ENTRIES_MAX: usize = 200_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limits(connections: usize, handshakes: usize) -> PerAddress {
        PerAddress {
            connections: Some(connections),
            handshakes: Some(handshakes),
            connects_per_second: None,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_network_is_one_address() {
        let of = |text| Source::of(ip(text));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn address_has_so_many_places_and_leaves_nothing() {
        let addresses = Arc::new(Addresses::new(limits(2, 1)));
        let enter = |text| addresses.enter(ip(text));
        let (one, two) = (enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap());
        assert_eq!(enter("192.0.2.1").err(), Some(Unserved::AddressConnections));
        let other = enter("192.0.2.2").unwrap();
        drop(one);
        let again = enter("192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_err());
        drop((two, again, other));
        assert!(addresses.present().is_empty());
    }

    #[tokio::test]
    async fn handshakes_of_an_address_wait_for_its_own_only() {
        let addresses = Arc::new(Addresses::new(limits(10, 1)));
        let enter = |text| addresses.enter(ip(text)).unwrap();
        let (one, two, other) = (enter("192.0.2.1"), enter("192.0.2.1"), enter("192.0.2.2"));
        let held = one.turn().await.unwrap();
        let waiting = tokio::spawn(async move { two.turn().await.is_some() });
        assert!(other.turn().await.is_some());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        assert!(waiting.await.unwrap());
    }

    #[test]
    fn address_without_limits_is_not_limited() {
        let none = PerAddress {
            connections: None,
            handshakes: None,
            connects_per_second: None,
        };
        let addresses = Arc::new(Addresses::new(none));
        let places: Vec<_> = (0..10_000)
            .map(|_| addresses.enter(ip("192.0.2.1")))
            .collect();
        assert!(places.iter().all(Result::is_ok));
    }

    #[test]
    fn address_that_comes_too_often_waits_and_others_do_not() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::new(NonZeroU32::new(2).unwrap(), clock.clone());
        let (flood, other) = (Source::of(ip("192.0.2.1")), Source::of(ip("192.0.2.2")));
        assert!(
            (0..20).all(|_| rate.admits(flood)),
            "ten seconds' worth at once"
        );
        assert!(!rate.admits(flood));
        assert!(rate.admits(other));
        clock.advance(Duration::from_millis(500));
        assert!(rate.admits(flood));
        assert!(!rate.admits(flood));
    }

    #[test]
    fn addresses_that_are_gone_are_forgotten_and_never_too_many_are_known() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::new(NonZeroU32::new(1).unwrap(), clock.clone());
        let source = |number: u32| Source::of(std::net::Ipv4Addr::from_bits(number).into());
        let mut most = 0;
        for number in 0..600_000 {
            assert!(rate.admits(source(number)));
            most = most.max(rate.limiter.len());
        }
        assert!(most <= ENTRIES_MAX, "{most}");
        clock.advance(Duration::from_secs(20));
        for number in 0..300_000 {
            assert!(rate.admits(source(number % 10)) || number >= 100);
        }
        assert!(rate.limiter.len() <= 10, "{}", rate.limiter.len());
        assert!(!rate.admits(source(1)), "the limit holds again");
    }
}

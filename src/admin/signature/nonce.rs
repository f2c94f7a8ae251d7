//! The nonces that were used, so that a recorded request cannot be sent again.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use dashmap::DashMap;

use crate::ca::id::AccessKeyId;

/// A nonce that was used, as far as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedNonce {
    /// The key that signed with it.
    pub key: AccessKeyId,
    /// 128 bits of its SHA-256.
    pub hash: u128,
    /// The last minute, since 1970, in which it must be remembered.
    pub minute: i64,
}

/// What became of a nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It was used before.
    Again,
    /// There are too many to remember one more: refused, since forgetting would allow a replay.
    Full,
    /// The last minute of its request ended while it was looked at.
    TooLate,
    /// It is used now, but may have been before: its request is from a time of which nonces were
    /// forgotten. They were lost, or the clock was set back since.
    Unknown(UsedNonce),
    /// It is used now, and was not before.
    First(UsedNonce),
}

/// The nonces of every access key, each kept until its request would be too old anyway.
///
/// Only nonces of requests whose signature is right may come here: others would let a stranger
/// use up nonces and memory.
///
/// What is too old is said by the clock that checks dates, and a clock can be set back. So the
/// cache remembers up to which minute it has forgotten, and what would have to be remembered from
/// before that minute is not called new.
#[derive(Debug)]
pub struct NonceCache {
    keys: DashMap<AccessKeyId, Mutex<Used>>,
    /// Nonces whose last minute is before this one are forgotten. It never goes back.
    forgotten: AtomicI64,
    most: usize,
}

#[derive(Debug, Default)]
struct Used {
    all: HashSet<u128>,
    /// The same by the last minute in which they must be remembered.
    by_minute: BTreeMap<i64, Vec<u128>>,
}

impl NonceCache {
    /// Remember at most that many for each access key.
    pub fn new(most: usize) -> Self {
        Self {
            keys: DashMap::new(),
            forgotten: AtomicI64::new(0),
            most,
        }
    }

    /// Take in what was remembered before this process, however many there are. What had to be
    /// remembered until a minute before `forgotten` may be missing.
    pub fn restore(&self, forgotten: i64, nonces: impl IntoIterator<Item = UsedNonce>) {
        self.forgotten.fetch_max(forgotten, Ordering::AcqRel);
        for UsedNonce { key, hash, minute } in nonces {
            self.with(&key, |used| {
                used.insert(hash, minute);
            });
        }
    }

    /// Whether the nonce is known to have been used.
    pub fn is_used(&self, key: &AccessKeyId, nonce: &str) -> bool {
        let hash = hash(nonce);
        self.keys
            .get(key)
            .is_some_and(|used| lock(&used).all.contains(&hash))
    }

    /// Use the nonce, which need not be remembered after `expires_ms` (Unix milliseconds).
    pub fn mark(&self, key: &AccessKeyId, nonce: &str, now_ms: i64, expires_ms: i64) -> Seen {
        let (hash, now) = (hash(nonce), minute(now_ms));
        if self.forgotten.fetch_max(now, Ordering::AcqRel) < now {
            for used in &self.keys {
                lock(used.value()).forget_before(now);
            }
        }
        self.with(key, |used| {
            if used.all.contains(&hash) {
                return Seen::Again;
            }
            // Read under the lock under which this key's nonces are forgotten.
            let forgotten = self.forgotten();
            let last = minute(expires_ms);
            if last < forgotten && forgotten <= now.saturating_add(1) {
                return Seen::TooLate;
            }
            if used.all.len() >= self.most {
                return Seen::Full;
            }
            let nonce = UsedNonce {
                key: key.clone(),
                hash,
                minute: last.max(forgotten),
            };
            used.insert(hash, nonce.minute);
            match last < forgotten {
                true => Seen::Unknown(nonce),
                false => Seen::First(nonce),
            }
        })
    }

    /// Nonces whose last minute is before this one are forgotten.
    pub fn forgotten(&self) -> i64 {
        self.forgotten.load(Ordering::Acquire)
    }

    fn with<T>(&self, key: &AccessKeyId, act: impl FnOnce(&mut Used) -> T) -> T {
        if let Some(used) = self.keys.get(key) {
            return act(&mut lock(&used));
        }
        let used = self.keys.entry(key.clone()).or_default();
        act(&mut lock(&used))
    }
}

impl Used {
    fn insert(&mut self, hash: u128, minute: i64) {
        if self.all.insert(hash) {
            self.by_minute.entry(minute).or_default().push(hash);
        }
    }

    fn forget_before(&mut self, minute: i64) {
        while let Some(first) = self.by_minute.first_entry() {
            if *first.key() >= minute {
                return;
            }
            for hash in first.remove() {
                self.all.remove(&hash);
            }
        }
    }
}

fn lock(used: &Mutex<Used>) -> std::sync::MutexGuard<'_, Used> {
    used.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash(nonce: &str) -> u128 {
    let hash = digest::digest(&digest::SHA256, nonce.as_bytes());
    u128::from_be_bytes(hash.as_ref().first_chunk().copied().unwrap_or_default())
}

/// The minute since 1970 of Unix milliseconds.
pub(super) fn minute(ms: i64) -> i64 {
    ms.div_euclid(60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    /// The outcome without what is remembered.
    fn mark(cache: &NonceCache, key: &str, nonce: &str, now: i64, expires: i64) -> &'static str {
        let key = key.parse().unwrap();
        match cache.mark(&key, nonce, now * MINUTE, expires * MINUTE) {
            Seen::Again => "again",
            Seen::Full => "full",
            Seen::TooLate => "too late",
            Seen::Unknown(_) => "unknown",
            Seen::First(_) => "first",
        }
    }

    #[test]
    fn nonce_is_good_once_for_each_key_until_it_expires() {
        let cache = NonceCache::new(10);
        assert_eq!(mark(&cache, "a", "n", 0, 15), "first");
        assert_eq!(mark(&cache, "a", "n", 0, 15), "again");
        assert!(cache.is_used(&"a".parse().unwrap(), "n"));
        assert!(!cache.is_used(&"b".parse().unwrap(), "n"));
        assert_eq!(mark(&cache, "b", "n", 0, 15), "first");
        assert_eq!(mark(&cache, "a", "n", 15, 30), "again");
        assert_eq!(mark(&cache, "a", "n", 16, 30), "first");
        assert!(!cache.is_used(&"b".parse().unwrap(), "n"), "idle keys, too");
    }

    #[test]
    fn full_cache_refuses_and_forgets_nothing_early() {
        let cache = NonceCache::new(3);
        for nonce in ["1", "2", "3"] {
            assert_eq!(mark(&cache, "a", nonce, 0, 15), "first");
        }
        assert_eq!(mark(&cache, "a", "4", 0, 15), "full");
        assert_eq!(mark(&cache, "a", "1", 0, 15), "again");
        assert_eq!(mark(&cache, "a", "4", 16, 31), "first");
        assert_eq!(mark(&cache, "a", "1", 16, 31), "first");
    }

    #[test]
    fn what_was_forgotten_is_not_new_when_the_clock_is_set_back() {
        let cache = NonceCache::new(10);
        assert_eq!(mark(&cache, "a", "old", 100, 115), "first");
        assert_eq!(mark(&cache, "a", "x", 120, 135), "first");
        // Forgotten by now; set back, its date would be good again.
        assert_eq!(mark(&cache, "a", "old", 100, 115), "unknown");
        assert_eq!(mark(&cache, "a", "old", 100, 115), "again");
        assert_eq!(mark(&cache, "a", "old", 119, 119), "again");
        // Whatever must be remembered from after that time is known.
        assert_eq!(mark(&cache, "a", "x", 106, 135), "again");
        assert_eq!(mark(&cache, "a", "y", 106, 121), "first");
        // A last minute that has just ended is no clock that was set back.
        assert_eq!(mark(&cache, "b", "z", 119, 119), "too late");
        assert_eq!(mark(&cache, "a", "old", 121, 136), "first");
    }

    #[test]
    fn what_was_kept_is_used_and_what_may_have_been_lost_is_not_new() {
        let cache = NonceCache::new(1);
        let kept = NonceCache::new(10);
        let key = "a".parse().unwrap();
        let nonces = ["1", "2"].map(|nonce| match kept.mark(&key, nonce, 0, 15 * MINUTE) {
            Seen::First(nonce) => nonce,
            other => panic!("{other:?}"),
        });
        cache.restore(0, nonces.clone());
        assert_eq!(mark(&cache, "a", "1", 1, 15), "again");
        assert_eq!(mark(&cache, "a", "2", 1, 15), "again");
        assert_eq!(mark(&cache, "a", "3", 1, 15), "full");
        let cache = NonceCache::new(10);
        cache.restore(30, nonces);
        assert_eq!(mark(&cache, "a", "1", 1, 15), "again");
        assert_eq!(mark(&cache, "a", "3", 1, 15), "unknown");
        assert_eq!(mark(&cache, "a", "4", 15, 30), "first");
    }

    proptest::proptest! {
        /// Whatever the clock does, a nonce whose request is within its dates is new at most once.
        #[test]
        fn nonce_is_new_at_most_once_whatever_the_clock_does(
            times in proptest::collection::vec((0_i64..120, 0_i64..31, 0_usize..4), 1..60)
        ) {
            let cache = NonceCache::new(100);
            // A nonce goes with one request, and so with one date.
            let mut dates = std::collections::HashMap::new();
            let mut new = HashSet::new();
            for (now, ahead, nonce) in times {
                let last = *dates.entry(nonce).or_insert(now + ahead);
                if !(now..=now + 30).contains(&last) {
                    continue; // refused by its date
                }
                let name = nonce.to_string();
                if mark(&cache, "a", &name, now, last) == "first" {
                    proptest::prop_assert!(new.insert(nonce), "{} twice", nonce);
                }
            }
        }
    }
}

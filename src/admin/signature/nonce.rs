//! The nonces that were used, so that a recorded request cannot be sent again.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use dashmap::DashMap;

use crate::ca::id::AccessKeyId;

/// What became of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was used before.
    Again,
    /// There are too many to remember one more: refused, since forgetting would allow a replay.
    Full,
    /// It is used now.
    First,
}

/// The nonces of every access key, each kept until its request would be too old anyway.
///
/// Only nonces of requests whose signature is right may come here: others would let a stranger
/// use up nonces and memory.
#[derive(Debug)]
pub struct NonceCache {
    keys: DashMap<AccessKeyId, Mutex<Used>>,
    most: usize,
}

#[derive(Debug, Default)]
struct Used {
    /// 128 bits of the SHA-256 of each nonce.
    all: HashSet<u128>,
    /// The same by the minute in which they may be forgotten.
    by_minute: BTreeMap<i64, Vec<u128>>,
}

impl NonceCache {
    /// Remember at most that many for each access key.
    pub fn new(most: usize) -> Self {
        Self {
            keys: DashMap::new(),
            most,
        }
    }

    /// Use the nonce, which need not be remembered after `expires_ms` (Unix milliseconds).
    pub fn mark(&self, key: &AccessKeyId, nonce: &str, now_ms: i64, expires_ms: i64) -> Seen {
        let hash = digest::digest(&digest::SHA256, nonce.as_bytes());
        let hash = hash.as_ref().first_chunk().copied().unwrap_or_default();
        let hash = u128::from_be_bytes(hash);
        if !self.keys.contains_key(key) {
            self.keys.entry(key.clone()).or_default();
        }
        let Some(used) = self.keys.get(key) else {
            return Seen::Full;
        };
        let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
        used.forget_before(minute(now_ms));
        if used.all.contains(&hash) {
            Seen::Again
        } else if used.all.len() >= self.most {
            Seen::Full
        } else {
            used.all.insert(hash);
            let minutes = used.by_minute.entry(minute(expires_ms)).or_default();
            minutes.push(hash);
            Seen::First
        }
    }
}

impl Used {
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

fn minute(ms: i64) -> i64 {
    ms.div_euclid(60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn nonce_is_good_once_for_each_key_until_it_expires() {
        let cache = NonceCache::new(10);
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!(cache.mark(&a, "n", 0, 15 * MINUTE), Seen::First);
        assert_eq!(cache.mark(&a, "n", 1, 15 * MINUTE), Seen::Again);
        assert_eq!(cache.mark(&b, "n", 1, 15 * MINUTE), Seen::First);
        assert_eq!(cache.mark(&a, "n", 15 * MINUTE, 30 * MINUTE), Seen::Again);
        assert_eq!(cache.mark(&a, "n", 16 * MINUTE, 30 * MINUTE), Seen::First);
    }

    #[test]
    fn full_cache_refuses_and_forgets_nothing_early() {
        let cache = NonceCache::new(3);
        let key = "a".parse().unwrap();
        for nonce in ["1", "2", "3"] {
            assert_eq!(cache.mark(&key, nonce, 0, 15 * MINUTE), Seen::First);
        }
        assert_eq!(cache.mark(&key, "4", 0, 15 * MINUTE), Seen::Full);
        assert_eq!(cache.mark(&key, "1", 0, 15 * MINUTE), Seen::Again);
        assert_eq!(cache.mark(&key, "4", 16 * MINUTE, 31 * MINUTE), Seen::First);
        assert_eq!(cache.mark(&key, "1", 16 * MINUTE, 31 * MINUTE), Seen::First);
    }
}

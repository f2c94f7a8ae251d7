//! Hash tables whose keys are digests: a certificate, an authority.
//!
//! A digest is spread evenly already, so sixteen of its octets and one multiplication are enough,
//! where the tables of the standard library put all of them through a cipher. But whoever makes
//! certificates chooses what is digested, and can search for digests that begin alike. So a secret
//! number of the process goes in: which keys fall together cannot be known outside.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

/// A table by digest.
pub(crate) type DigestMap<K, V> = HashMap<K, V, ByDigest>;

/// A set of digests.
pub(crate) type DigestSet<K> = HashSet<K, ByDigest>;

/// Hashes one digest of 32 octets, nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ByDigest;

impl BuildHasher for ByDigest {
    type Hasher = DigestHasher;

    fn build_hasher(&self) -> DigestHasher {
        DigestHasher(0)
    }
}

pub(crate) struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, digest: &[u8]) {
        let (words, _) = digest.as_chunks::<8>();
        if let [one, two, ..] = words {
            let [first, second] = *SECRET;
            let one = u128::from(u64::from_le_bytes(*one) ^ first);
            let two = u128::from(u64::from_le_bytes(*two) ^ second);
            let [low, high] = halves(one * two);
            self.0 ^= low ^ high;
        }
    }

    /// How long it is, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Both halves go into the hash, so that each bit of it depends on all of both numbers.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the upper half is the other one"
)]
fn halves(product: u128) -> [u64; 2] {
    [product as u64, (product >> 64) as u64]
}

/// Where the tables of the standard library have theirs from.
static SECRET: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let random = RandomState::new();
    [random.hash_one(1_u8), random.hash_one(2_u8)]
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::id::CaId;

    #[test]
    fn digests_are_spread_over_a_table() {
        let ids = (0..4_096_u32).map(|number| CaId::of_der(&number.to_be_bytes()));
        let hashes: Vec<u64> = ids.map(|id| ByDigest.hash_one(id)).collect();
        // A table takes its places from the lower bits, and compares the upper seven; shards are
        // chosen by those in between.
        for shift in [0, 48, 57] {
            let mut places = vec![0_usize; 128];
            for hash in &hashes {
                places[usize::try_from(hash >> shift & 127).unwrap()] += 1;
            }
            // 32 each, if it were the same everywhere.
            assert!(places.iter().all(|count| (4..=96).contains(count)));
        }
    }

    #[test]
    fn digests_that_begin_alike_in_half_of_what_counts_do_not_fall_together() {
        let hashes: HashSet<u64> = (0..1_000_u64)
            .map(|number| {
                let mut digest = [7; 32];
                digest[8..16].copy_from_slice(&number.to_be_bytes());
                ByDigest.hash_one(CaId::from_bytes(digest)) & 0xffff
            })
            .collect();
        assert!(hashes.len() > 900);
    }
}

//! Hash tables whose keys are digests: a certificate, an authority.
//!
//! A digest is spread evenly already, so a few multiplications are enough, where the tables of the
//! standard library put it through a cipher. But whoever makes certificates chooses what is digested,
//! and can search for digests that are alike in part. So secret numbers of the process go in: which
//! keys fall together cannot be known outside.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use foldhash::SharedSeed;
use foldhash::quality::{FoldHasher, SeedableRandomState};

/// A table by digest.
pub(crate) type DigestMap<K, V> = HashMap<K, V, ByDigest>;

/// A set of digests.
pub(crate) type DigestSet<K> = HashSet<K, ByDigest>;

/// Hashes digests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ByDigest;

impl BuildHasher for ByDigest {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        SECRET.build_hasher()
    }
}

/// Where the tables of the standard library have theirs from.
static SECRET: LazyLock<SeedableRandomState> = LazyLock::new(|| {
    let random = RandomState::new();
    SeedableRandomState::with_seed(random.hash_one(1_u8), &SHARED)
});
static SHARED: LazyLock<SharedSeed> =
    LazyLock::new(|| SharedSeed::from_u64(RandomState::new().hash_one(2_u8)));

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
        // 992, if it were chance.
        assert!(hashes.len() > 900, "{}", hashes.len());
    }
}

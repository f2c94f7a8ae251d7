//! The keys that sign requests, as they are in force, and the accounts they belong to.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::ca::id::{AccessKeyId, AccountId};
use crate::ca::lifecycle::Status;
use crate::control::grant::KeyGrant;
use crate::secret::Secret;

/// A key that signs requests.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// Public half.
    pub id: AccessKeyId,
    /// Secret half.
    pub secret: Secret,
    /// The account on whose behalf it signs.
    pub account: AccountId,
    /// What it may do on that account's instances.
    pub grant: Arc<KeyGrant>,
    /// Inactive: its requests are refused.
    pub status: Status,
    /// Where it comes from.
    pub origin: KeyOrigin,
}

/// Where a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    /// The configuration; it changes only there.
    Configuration,
    /// The registry, where commands made it.
    Registry {
        /// What it is for, in the words of whoever made it.
        comment: String,
        /// When it was made, Unix milliseconds.
        created_at_ms: i64,
    },
}

/// The keys there are. They may change while requests are served.
#[derive(Debug, Default)]
pub struct AccessKeys(RwLock<HashMap<AccessKeyId, Arc<AccessKey>>>);

impl AccessKeys {
    /// The key of this id.
    pub fn get(&self, id: &AccessKeyId) -> Option<Arc<AccessKey>> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(id).cloned()
    }

    /// All keys, by id.
    pub fn all(&self) -> Vec<Arc<AccessKey>> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = keys.values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Add the key, or replace the one of its id, which grants nothing from then on.
    pub fn insert(&self, key: AccessKey) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let old = keys.insert(key.id.clone(), Arc::new(key));
        // After it is out of reach, so that whoever finds it revoked does not find it again.
        if let Some(old) = old {
            old.grant.revoke();
        }
    }

    /// Remove the key, which grants nothing from then on; `false` if there is none of this id.
    pub fn remove(&self, id: &AccessKeyId) -> bool {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match keys.remove(id) {
            Some(old) => {
                old.grant.revoke();
                true
            }
            None => false,
        }
    }
}

impl FromIterator<AccessKey> for AccessKeys {
    fn from_iter<T: IntoIterator<Item = AccessKey>>(keys: T) -> Self {
        let all = Self::default();
        for key in keys {
            all.insert(key);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Grant, Need};

    fn key(secret: &str) -> AccessKey {
        AccessKey {
            id: "k".parse().unwrap(),
            secret: Secret::new(secret.to_owned()),
            account: "a".parse().unwrap(),
            grant: Arc::new(KeyGrant::new(None)),
            status: Status::Active,
            origin: KeyOrigin::Configuration,
        }
    }

    #[test]
    fn keys_come_and_go_and_do_not_show_their_secret() {
        let keys: AccessKeys = [key("hunter2")].into_iter().collect();
        assert!(!format!("{keys:?}").contains("hunter2"));
        let id = "k".parse().unwrap();
        assert!(keys.get(&id).is_some());
        assert!(keys.remove(&id));
        assert!(!keys.remove(&id));
        assert!(keys.get(&id).is_none());
    }

    #[test]
    fn replaced_or_removed_key_grants_nothing_to_calls_under_way() {
        let keys = AccessKeys::default();
        let id = "k".parse().unwrap();
        let mut under_way = Vec::new();
        for _ in 0..2 {
            keys.insert(key("s"));
            under_way.push(Grant::Key(Arc::clone(&keys.get(&id).unwrap().grant)));
        }
        let check = |grant: &Grant| grant.check(Need::GetCaCertificate, "acs:mq:r:a:i");
        assert!(check(&under_way[0]).is_err());
        assert!(check(&under_way[1]).is_ok());
        keys.remove(&id);
        assert!(check(&under_way[1]).is_err());
    }
}

//! The keys that sign requests, and the accounts they belong to.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::ca::id::{AccessKeyId, AccountId};
use crate::config::secret::Secret;
use crate::control::grant::KeyGrant;

/// Whether a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Its requests are refused.
    Disabled,
    /// Its requests are taken.
    Enabled,
}

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
    /// Whether it may sign.
    pub state: KeyState,
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

    /// Add the key, or replace the one of its id.
    pub fn insert(&self, key: AccessKey) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.id.clone(), Arc::new(key));
    }

    /// Remove the key; `false` if there is none of this id.
    pub fn remove(&self, id: &AccessKeyId) -> bool {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.remove(id).is_some()
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

    #[test]
    fn keys_come_and_go_and_do_not_show_their_secret() {
        let key = AccessKey {
            id: "k".parse().unwrap(),
            secret: Secret::new("hunter2".to_owned()),
            account: "a".parse().unwrap(),
            grant: Arc::new(KeyGrant::new(None)),
            state: KeyState::Enabled,
        };
        let keys: AccessKeys = [key].into_iter().collect();
        assert!(!format!("{keys:?}").contains("hunter2"));
        let id = "k".parse().unwrap();
        assert!(keys.get(&id).is_some());
        assert!(keys.remove(&id));
        assert!(!keys.remove(&id));
        assert!(keys.get(&id).is_none());
    }
}

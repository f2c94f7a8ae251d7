//! Looking at many connected peers without holding up those that come and go.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Called, Entry, LivePeers};
use crate::ca::id::CaKeyId;
use crate::ca::registry::DeviceKey;
use crate::tls::peer::VerifiedPeer;

impl LivePeers {
    /// Look at every connected peer that depends on any of these authorities, once each, and at
    /// what it calls itself. Those that have been told to go are left out.
    ///
    /// Peers that come or go meanwhile may be seen or not. The index is held for
    /// some of them at a time; others that wait for a place in it get their turn in between.
    pub fn visit(&self, keys: &[CaKeyId], mut look: impl FnMut(&VerifiedPeer, Option<&Called>)) {
        let keys: std::collections::HashSet<_> = keys.iter().copied().collect();
        for key in &keys {
            let mut after = Bound::Unbounded;
            loop {
                let some = self.some_over(*key, after);
                let Some(last) = some.last() else { break };
                after = Bound::Excluded(last.number);
                for entry in &some {
                    // A peer stands at each authority of its path, and is looked at once.
                    let first = entry.peer.path().iter().find(|key| keys.contains(key));
                    if first == Some(key) && entry.is_welcome() {
                        look(&entry.peer, entry.called.get());
                    }
                }
                std::thread::yield_now();
            }
        }
    }

    /// Look at every connection of one device certificate in the same way.
    pub fn visit_device(
        &self,
        device: &DeviceKey,
        mut look: impl FnMut(&VerifiedPeer, Option<&Called>),
    ) {
        let mut after = Bound::Unbounded;
        loop {
            let some = match self.by_device.get(device) {
                Some(entries) => some_after(&entries, after),
                None => return,
            };
            let Some(last) = some.last() else { return };
            after = Bound::Excluded(last.number);
            for entry in some.iter().filter(|entry| entry.is_welcome()) {
                look(&entry.peer, entry.called.get());
            }
            std::thread::yield_now();
        }
    }

    /// Whether this device certificate is connected.
    pub fn is_connected(&self, device: &DeviceKey) -> bool {
        self.by_device.contains_key(device)
    }

    fn some_over(&self, key: CaKeyId, after: Bound<u64>) -> Vec<Arc<Entry>> {
        match self.by_key.get(&key) {
            Some(entries) => some_after(&entries, after),
            None => Vec::new(),
        }
    }
}

fn some_after(entries: &BTreeMap<u64, Arc<Entry>>, after: Bound<u64>) -> Vec<Arc<Entry>> {
    let next = entries.range((after, Bound::Unbounded));
    next.take(AT_A_TIME)
        .map(|(_, entry)| Arc::clone(entry))
        .collect()
}

/// Peers that are looked at before others get their turn.
const AT_A_TIME: usize = 1_024;

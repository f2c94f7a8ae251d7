//! Peers whose trust has ended and who are told so some at a time.

use std::sync::Arc;

use super::waves::Waves;
use super::{Entry, LivePeers, cut_all};
use crate::ca::id::CaKeyId;
use crate::ca::path::Admitted;
use crate::ca::registry::Registry;

impl LivePeers {
    /// The peers that [`cut_over`](Self::cut_over) would tell, in the order in which they came.
    pub(crate) fn unwelcome_over(
        &self,
        keys: &[CaKeyId],
        registry: &Registry,
        now: i64,
    ) -> Unwelcome {
        let objects = |entry: &Arc<Entry>| registry.objection(entry.peer.admitted(), now).is_some();
        let mut found = self.over(keys);
        found.retain(|entry| entry.is_welcome() && objects(entry));
        Unwelcome {
            peers: found,
            waves: Arc::clone(&self.waves),
        }
    }
}

/// Peers whose trust has ended and who have not been told.
pub(crate) struct Unwelcome {
    peers: Vec<Arc<Entry>>,
    waves: Arc<Waves>,
}

impl Unwelcome {
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Tell those that have not said yet who they are: they have no session that could go on, and
    /// would begin one. Gives how many were told; the others are left.
    pub(crate) fn end_nameless(&mut self, registry: &Registry, now: i64) -> usize {
        let (named, nameless): (Vec<_>, Vec<_>) = std::mem::take(&mut self.peers)
            .into_iter()
            .partition(|entry| entry.called.get().is_some());
        self.peers = named;
        let objection = |admitted: &Admitted| registry.objection(admitted, now);
        cut_all(nameless, objection, &self.waves)
    }

    /// Tell the first so many of them, unless they are welcome again. Gives how many were told.
    pub(crate) fn end_first(&self, count: usize, registry: &Registry, now: i64) -> usize {
        let first = self.peers.iter().take(count).cloned();
        let objection = |admitted: &Admitted| registry.objection(admitted, now);
        cut_all(first, objection, &self.waves)
    }
}

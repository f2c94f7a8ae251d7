//! Peers whose trust has ended and who are told so some at a time.

use std::sync::Arc;

use super::{Entry, LivePeers, cut_all};
use crate::ca::id::CaKeyId;
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
        let found = self.over(keys).into_values();
        let mut found: Vec<_> = found
            .filter(|entry| entry.is_welcome() && objects(entry))
            .collect();
        found.sort_unstable_by_key(|entry| entry.number);
        Unwelcome(found)
    }
}

/// Peers whose trust has ended and who have not been told.
pub(crate) struct Unwelcome(Vec<Arc<Entry>>);

impl Unwelcome {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tell those that have not said yet who they are: they have no session that could go on, and
    /// would begin one. Gives how many were told; the others are left.
    pub(crate) fn end_nameless(&mut self, registry: &Registry, now: i64) -> usize {
        let (named, nameless): (Vec<_>, Vec<_>) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|entry| entry.called.get().is_some());
        self.0 = named;
        cut_all(nameless, |admitted| registry.objection(admitted, now))
    }

    /// Tell the first so many of them, unless they are welcome again. Gives how many were told.
    pub(crate) fn end_first(&self, count: usize, registry: &Registry, now: i64) -> usize {
        let first = self.0.iter().take(count).cloned();
        cut_all(first, |admitted| registry.objection(admitted, now))
    }
}

//! Who is subscribed to what: from a topic to the shards, filters and members it is for.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use smallvec::SmallVec;

use super::slots::Slots;
use super::{FilterId, Routed, SessionKey, ShareId};
use crate::mqtt::shared::{Group, Presence};
use crate::mqtt::topics::trie::FilterTrie;
use crate::mqtt::topics::{SharedFilter, TopicFilter, TopicName};

/// The subscriptions of all shards.
pub(super) struct Directory {
    inner: RwLock<Inner>,
}

/// Whom one message is for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// In the order of the shards; each has somebody.
    pub(super) parts: SmallVec<[Part; 1]>,
}

/// Whom one message is for in one shard.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) shard: usize,
    pub(super) filters: SmallVec<[FilterId; 2]>,
    pub(super) shared: Vec<(SessionKey, ShareId)>,
    /// One of the filters has a crowd behind it.
    pub(super) crowd: Crowd,
}

/// How many sessions of a shard have subscribed to a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crowd {
    /// So few that a publisher may serve them itself.
    #[default]
    Small,
    /// More than that.
    Large,
}

struct Inner {
    trie: FilterTrie<Entry>,
    /// By shard: the filters behind its ids.
    filters: Vec<Slots<TopicFilter>>,
    shares: Slots<SharedFilter>,
}

/// One filter.
#[derive(Default)]
struct Entry {
    shards: Vec<(usize, FilterId, Crowd)>,
    groups: HashMap<Box<str>, Members>,
}

struct Members {
    id: ShareId,
    group: Group<SessionKey, usize>,
}

impl Directory {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            inner: RwLock::new(Inner {
                trie: FilterTrie::new(),
                filters: (0..shards).map(|_| Slots::new()).collect(),
                shares: Slots::new(),
            }),
        }
    }

    /// The id of a filter of a shard, given now if it has none; `None` if there is no such shard.
    pub(super) fn subscribe(&self, shard: usize, filter: &TopicFilter) -> Option<FilterId> {
        let mut inner = self.write();
        let Inner { trie, filters, .. } = &mut *inner;
        let slots = filters.get_mut(shard)?;
        let entry = trie.get_or_insert_with(filter, Entry::default);
        if let Some((_, known, _)) = entry.shards.iter().find(|known| known.0 == shard) {
            return Some(*known);
        }
        let (index, generation) = slots.insert(filter.clone());
        let id = FilterId { index, generation };
        entry.shards.push((shard, id, Crowd::Small));
        Some(id)
    }

    /// Note how many sessions of the shard have the filter.
    pub(super) fn set_crowd(&self, shard: usize, id: FilterId, crowd: Crowd) {
        let mut inner = self.write();
        let Inner { trie, filters, .. } = &mut *inner;
        let filter = filters
            .get(shard)
            .and_then(|slots| slots.get(id.index, id.generation));
        if let Some(filter) = filter
            && let Some(entry) = trie.get_mut(filter)
            && let Some(known) = entry.shards.iter_mut().find(|known| known.0 == shard)
        {
            known.2 = crowd;
        }
    }

    pub(super) fn unsubscribe(&self, shard: usize, id: FilterId) {
        let mut inner = self.write();
        let Inner { trie, filters, .. } = &mut *inner;
        let Some(filter) = filters
            .get_mut(shard)
            .and_then(|slots| slots.remove(id.index, id.generation))
        else {
            return;
        };
        if let Some(entry) = trie.get_mut(&filter) {
            entry.shards.retain(|known| known.0 != shard);
        }
        remove_if_unused(trie, &filter);
    }

    /// The id of the group that the session is now a member of; `None` if there is no such shard.
    pub(super) fn share_join(
        &self,
        shard: usize,
        shared: &SharedFilter,
        session: SessionKey,
        presence: Presence,
    ) -> Option<ShareId> {
        let mut inner = self.write();
        let Inner {
            trie,
            filters,
            shares,
        } = &mut *inner;
        filters.get(shard)?;
        let entry = trie.get_or_insert_with(shared.filter(), Entry::default);
        let members = entry
            .groups
            .entry(shared.group().into())
            .or_insert_with(|| {
                let (index, generation) = shares.insert(shared.clone());
                Members {
                    id: ShareId { index, generation },
                    group: Group::new(),
                }
            });
        members.group.join(session, shard, presence);
        Some(members.id)
    }

    pub(super) fn share_leave(&self, share: ShareId, session: SessionKey) {
        let mut inner = self.write();
        let Inner { trie, shares, .. } = &mut *inner;
        let Some(shared) = shares.get(share.index, share.generation) else {
            return;
        };
        let Some(entry) = trie.get_mut(shared.filter()) else {
            return;
        };
        let Some(members) = entry.groups.get_mut(shared.group()) else {
            return;
        };
        members.group.leave(session);
        if members.group.is_empty() {
            entry.groups.remove(shared.group());
            if let Some(shared) = shares.remove(share.index, share.generation) {
                remove_if_unused(trie, shared.filter());
            }
        }
    }

    pub(super) fn share_presence(&self, share: ShareId, session: SessionKey, presence: Presence) {
        let mut inner = self.write();
        let Inner { trie, shares, .. } = &mut *inner;
        if let Some(shared) = shares.get(share.index, share.generation)
            && let Some(entry) = trie.get_mut(shared.filter())
            && let Some(members) = entry.groups.get_mut(shared.group())
        {
            members.group.set_presence(session, presence);
        }
    }

    /// Everybody whom a message under this topic is for.
    pub(super) fn plan(&self, topic: &TopicName) -> Plan {
        let mut plan = Plan::default();
        self.read().trie.visit(topic, &mut |entry| {
            for &(shard, id, crowd) in &entry.shards {
                let part = plan.part(shard);
                part.filters.push(id);
                if crowd == Crowd::Large {
                    part.crowd = crowd;
                }
            }
            for members in entry.groups.values() {
                if let Some((session, shard)) = members.group.select() {
                    plan.part(shard).shared.push((session, members.id));
                }
            }
        });
        // One order for all, so that two publishes that wait for two shards never wait for each
        // other.
        plan.parts.sort_unstable_by_key(|part| part.shard);
        plan
    }

    /// Whether a message under this topic would be for anybody. Nobody's turn passes.
    pub(super) fn wants(&self, topic: &TopicName) -> bool {
        let mut wanted = false;
        self.read().trie.visit(topic, &mut |entry| {
            wanted |= !entry.shards.is_empty() || !entry.groups.is_empty();
        });
        wanted
    }

    /// One member of one group.
    pub(super) fn plan_for_share(&self, share: ShareId) -> Plan {
        let mut plan = Plan::default();
        let inner = self.read();
        if let Some(shared) = inner.shares.get(share.index, share.generation)
            && let Some(entry) = inner.trie.get(shared.filter())
            && let Some(members) = entry.groups.get(shared.group())
            && let Some((session, shard)) = members.group.select()
        {
            plan.part(shard).shared.push((session, share));
        }
        plan
    }

    /// Distinct filters in use, and trie nodes.
    pub(super) fn size(&self) -> (usize, usize) {
        let inner = self.read();
        (inner.trie.len(), inner.trie.nodes())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// What the publisher is told.
    pub(super) fn routed(&self) -> Routed {
        let mut routed = Routed::default();
        for part in &self.parts {
            routed.shards += 1;
            routed.filters += part.filters.len();
            routed.shares += part.shared.len();
        }
        routed
    }

    fn part(&mut self, shard: usize) -> &mut Part {
        let found = self.parts.iter().position(|part| part.shard == shard);
        let place = found.unwrap_or_else(|| {
            self.parts.push(Part {
                shard,
                filters: SmallVec::new(),
                shared: Vec::new(),
                crowd: Crowd::Small,
            });
            self.parts.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found, or pushed just now")]
        &mut self.parts[place]
    }
}

fn remove_if_unused(trie: &mut FilterTrie<Entry>, filter: &TopicFilter) {
    if trie
        .get(filter)
        .is_some_and(|entry| entry.shards.is_empty() && entry.groups.is_empty())
    {
        trie.remove(filter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::topics::{Subscription, TopicLimits};

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text, &TopicLimits::default()).unwrap()
    }

    fn topic(text: &str) -> TopicName {
        TopicName::parse(text, &TopicLimits::default()).unwrap()
    }

    fn share(text: &str) -> SharedFilter {
        match Subscription::parse(text, &TopicLimits::default()).unwrap() {
            Subscription::Shared(shared) => shared,
            Subscription::Plain(_) => panic!("{text} is not shared"),
        }
    }

    #[test]
    fn overlapping_filters_of_a_shard_are_one_part() {
        let directory = Directory::new(2);
        let wide = directory.subscribe(1, &filter("#")).unwrap();
        let narrow = directory.subscribe(1, &filter("a/+")).unwrap();
        let other = directory.subscribe(0, &filter("a/b")).unwrap();
        assert_eq!(directory.subscribe(1, &filter("#")), Some(wide));
        assert_eq!(directory.subscribe(2, &filter("#")), None);
        let plan = directory.plan(&topic("a/b"));
        assert_eq!(plan.parts.len(), 2);
        assert_eq!(plan.parts[0].filters[..], [other]);
        assert_eq!(plan.parts[1].filters[..], [wide, narrow]);
    }

    #[test]
    fn a_crowd_behind_one_filter_is_one_behind_the_part() {
        let directory = Directory::new(2);
        let wide = directory.subscribe(1, &filter("#")).unwrap();
        directory.subscribe(1, &filter("a/+")).unwrap();
        directory.subscribe(0, &filter("#")).unwrap();
        let crowds = || {
            let plan = directory.plan(&topic("a/b"));
            plan.parts.iter().map(|part| part.crowd).collect::<Vec<_>>()
        };
        assert_eq!(crowds(), [Crowd::Small, Crowd::Small]);
        directory.set_crowd(1, wide, Crowd::Large);
        assert_eq!(crowds(), [Crowd::Small, Crowd::Large]);
        directory.set_crowd(1, wide, Crowd::Small);
        assert_eq!(crowds(), [Crowd::Small, Crowd::Small]);
        // One that is not there any more.
        directory.unsubscribe(1, wide);
        directory.set_crowd(1, wide, Crowd::Large);
        assert_eq!(crowds(), [Crowd::Small, Crowd::Small]);
    }

    #[test]
    fn a_topic_is_wanted_while_a_filter_or_a_group_matches_it() {
        let directory = Directory::new(1);
        let sys = topic("$SYS/a");
        directory.subscribe(0, &filter("#")).unwrap();
        assert!(!directory.wants(&sys));
        let plain = directory.subscribe(0, &filter("$SYS/#")).unwrap();
        assert!(directory.wants(&sys));
        directory.unsubscribe(0, plain);
        assert!(!directory.wants(&sys));
        let group = share("$share/g/$SYS/+");
        let id = directory
            .share_join(0, &group, SessionKey(1), Presence::Away)
            .unwrap();
        assert!(directory.wants(&sys));
        directory.share_leave(id, SessionKey(1));
        assert!(!directory.wants(&sys));
    }

    #[test]
    fn an_id_is_never_given_twice() {
        let directory = Directory::new(1);
        let first = directory.subscribe(0, &filter("a")).unwrap();
        directory.unsubscribe(0, first);
        let second = directory.subscribe(0, &filter("b")).unwrap();
        assert_eq!(first.index, second.index);
        assert_ne!(first, second);
        directory.unsubscribe(0, first);
        assert_eq!(directory.plan(&topic("b")).parts.len(), 1);
    }

    #[test]
    fn groups_are_a_name_with_a_filter() {
        let directory = Directory::new(2);
        let (ann, bob) = (SessionKey(1), SessionKey(2));
        let online = Presence::Online;
        let first = directory
            .share_join(0, &share("$share/g/a"), ann, online)
            .unwrap();
        let second = directory
            .share_join(1, &share("$share/g/+"), bob, online)
            .unwrap();
        assert_ne!(first, second);
        assert_eq!(directory.plan(&topic("a")).routed().shares, 2);
        assert_eq!(directory.plan(&topic("b")).parts[0].shared, [(bob, second)]);
        assert_eq!(
            directory.plan_for_share(first).parts[0].shared,
            [(ann, first)]
        );
        directory.share_leave(first, ann);
        assert_eq!(directory.plan_for_share(first), Plan::default());
        directory.share_leave(second, bob);
        assert_eq!(directory.size(), (0, 0));
    }

    #[test]
    fn a_group_gives_each_message_to_one_member_in_turn() {
        let directory = Directory::new(2);
        let members: Vec<_> = (0..4).map(SessionKey).collect();
        let group = share("$share/g/#");
        let mut id = None;
        for (number, member) in members.iter().enumerate() {
            id = directory.share_join(number % 2, &group, *member, Presence::Online);
        }
        directory.share_presence(id.unwrap(), members[3], Presence::Away);
        let mut counts = HashMap::<_, usize>::new();
        for _ in 0..300 {
            let plan = directory.plan(&topic("a"));
            assert_eq!(
                plan.routed(),
                Routed {
                    shards: 1,
                    filters: 0,
                    shares: 1
                }
            );
            *counts.entry(plan.parts[0].shared[0].0).or_default() += 1;
        }
        assert_eq!(counts.len(), 3);
        assert!(counts.values().all(|count| *count == 100));
    }

    #[test]
    fn filters_that_come_and_go_leave_nothing() {
        let directory = Directory::new(3);
        let kept = directory.subscribe(2, &filter("kept")).unwrap();
        let size = directory.size();
        for round in 0..20 {
            let ids: Vec<_> = (0..1_000)
                .map(|number| {
                    let filter = filter(&format!("{round}/+/{number}/#"));
                    (
                        number % 3,
                        directory.subscribe(number % 3, &filter).unwrap(),
                    )
                })
                .collect();
            for (shard, id) in ids {
                assert!(id.index() < 1_000);
                directory.unsubscribe(shard, id);
            }
        }
        assert_eq!(directory.size(), size);
        assert_eq!(directory.plan(&topic("kept")).parts[0].filters[..], [kept]);
    }
}

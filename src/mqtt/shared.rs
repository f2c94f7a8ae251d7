//! Who of a shared group gets the next message (MQTT 5, 4.8.2).
//!
//! In turn among the members that are online. Only when nobody is online do members that are
//! away get messages, in turn too, so that they wait in a session's queue and are not lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether a member of a group has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The session exists and has no connection.
    Away,
    /// The session has a connection.
    Online,
}

/// The members of one shared group, by `K`, each with what it takes to reach it.
#[derive(Debug)]
pub struct Group<K, V> {
    online: Vec<(K, V)>,
    away: Vec<(K, V)>,
    places: HashMap<K, (Presence, usize)>,
    /// Moves under a shared borrow: many publishers select at the same time.
    turn: AtomicUsize,
}

impl<K: Copy + Eq + std::hash::Hash, V: Copy> Group<K, V> {
    /// A group without members.
    pub fn new() -> Self {
        Self {
            online: Vec::new(),
            away: Vec::new(),
            places: HashMap::new(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Add a member, or change how it is reached and whether it is online.
    pub fn join(&mut self, key: K, value: V, presence: Presence) {
        self.leave(key);
        let side = self.side(presence);
        side.push((key, value));
        let place = side.len() - 1;
        self.places.insert(key, (presence, place));
    }

    /// Take a member out. Whether it was one.
    pub fn leave(&mut self, key: K) -> bool {
        let Some((presence, place)) = self.places.remove(&key) else {
            return false;
        };
        let side = self.side(presence);
        side.swap_remove(place);
        if let Some((moved, _)) = side.get(place) {
            let moved = *moved;
            self.places.insert(moved, (presence, place));
        }
        true
    }

    /// Note that a member has come or gone. Whether it is a member.
    pub fn set_presence(&mut self, key: K, presence: Presence) -> bool {
        match self.places.get(&key) {
            None => false,
            Some((known, _)) if *known == presence => true,
            Some((known, place)) => {
                let (known, place) = (*known, *place);
                if let Some((_, value)) = self.side(known).get(place).copied() {
                    self.join(key, value, presence);
                }
                true
            }
        }
    }

    /// The member whose turn it is.
    pub fn select(&self) -> Option<(K, V)> {
        let side = match self.online.is_empty() {
            false => &self.online,
            true => &self.away,
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        side.get(turn.checked_rem(side.len())?).copied()
    }

    /// How many members there are, online or not.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn side(&mut self, presence: Presence) -> &mut Vec<(K, V)> {
        match presence {
            Presence::Away => &mut self.away,
            Presence::Online => &mut self.online,
        }
    }
}

impl<K: Copy + Eq + std::hash::Hash, V: Copy> Default for Group<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn drawn(group: &Group<u32, u32>, times: usize) -> HashMap<u32, usize> {
        let mut counts = HashMap::new();
        for _ in 0..times {
            let (key, value) = group.select().unwrap();
            assert_eq!(key, value);
            *counts.entry(key).or_default() += 1;
        }
        counts
    }

    #[test]
    fn turns_are_equal_among_those_online() {
        let mut group = Group::new();
        for key in 0..4 {
            group.join(key, key, Presence::Online);
        }
        group.set_presence(2, Presence::Away);
        let counts = drawn(&group, 300);
        assert_eq!(counts, HashMap::from([(0, 100), (1, 100), (3, 100)]));
    }

    #[test]
    fn members_that_are_away_get_messages_only_if_nobody_is_online() {
        let mut group = Group::new();
        group.join(1, 1, Presence::Away);
        group.join(2, 2, Presence::Away);
        assert_eq!(drawn(&group, 10), HashMap::from([(1, 5), (2, 5)]));
        group.set_presence(2, Presence::Online);
        assert_eq!(drawn(&group, 10), HashMap::from([(2, 10)]));
        group.leave(2);
        group.leave(1);
        assert_eq!(group.select(), None);
    }

    proptest! {
        #[test]
        fn a_group_agrees_with_a_plain_map(
            steps in proptest::collection::vec((0_u32..8, 0_u8..4), 0..100),
        ) {
            let mut group = Group::new();
            let mut model: HashMap<u32, Presence> = HashMap::new();
            for (key, step) in steps {
                match step {
                    0 => {
                        group.join(key, key, Presence::Online);
                        model.insert(key, Presence::Online);
                    }
                    1 => prop_assert_eq!(group.leave(key), model.remove(&key).is_some()),
                    _ => {
                        let presence = if step == 2 { Presence::Away } else { Presence::Online };
                        prop_assert_eq!(
                            group.set_presence(key, presence),
                            model.contains_key(&key)
                        );
                        model.entry(key).and_modify(|known| *known = presence);
                    }
                }
                prop_assert_eq!(group.len(), model.len());
                let online = model.values().filter(|p| **p == Presence::Online).count();
                let wanted = if online > 0 { online } else { model.len() };
                if wanted == 0 {
                    prop_assert_eq!(group.select(), None);
                } else {
                    let counts = drawn(&group, wanted);
                    prop_assert_eq!(counts.len(), wanted);
                }
            }
        }
    }
}

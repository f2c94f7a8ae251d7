//! Filters to values, and from a topic the values of the filters that match it.
//!
//! One node per level, a map of literal levels and one child for `+`. Looking up costs the
//! levels of the topic for each wildcard path that really exists, whatever else is stored.
//! A node exists only while a filter needs it, and a map gives room back when it has shrunk.
//! Recursion is as deep as a topic has levels, which [`TopicName`] and [`TopicFilter`] bound.

use std::collections::HashMap;

use super::{Levels, TopicFilter, TopicName};

/// A map from filters to `T`, searched by topic.
#[derive(Debug)]
pub struct FilterTrie<T> {
    root: Node<T>,
    filters: usize,
    nodes: usize,
}

#[derive(Debug)]
struct Node<T> {
    /// The filter that ends here.
    exact: Option<T>,
    /// The filter that ends here and continues with `#`.
    rest: Option<T>,
    any: Option<Box<Node<T>>>,
    literal: HashMap<Box<str>, Node<T>>,
}

impl<T> FilterTrie<T> {
    /// A trie without filters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of this filter, if it is stored.
    pub fn get(&self, filter: &TopicFilter) -> Option<&T> {
        let mut node = &self.root;
        for level in filter.levels() {
            node = match level {
                "#" => return node.rest.as_ref(),
                "+" => node.any.as_deref()?,
                literal => node.literal.get(literal)?,
            };
        }
        node.exact.as_ref()
    }

    /// The value of this filter, if it is stored.
    pub fn get_mut(&mut self, filter: &TopicFilter) -> Option<&mut T> {
        let mut node = &mut self.root;
        for level in filter.levels() {
            node = match level {
                "#" => return node.rest.as_mut(),
                "+" => node.any.as_deref_mut()?,
                literal => node.literal.get_mut(literal)?,
            };
        }
        node.exact.as_mut()
    }

    /// The value of this filter, made now if it is not stored.
    pub fn get_or_insert_with(&mut self, filter: &TopicFilter, make: impl FnOnce() -> T) -> &mut T {
        let Self {
            root,
            filters,
            nodes,
        } = self;
        let mut node = root;
        let mut ends_with_rest = false;
        for level in filter.levels() {
            match level {
                "#" => ends_with_rest = true,
                "+" => {
                    node = node.any.get_or_insert_with(|| {
                        *nodes += 1;
                        Box::default()
                    });
                }
                literal => {
                    node = node.literal.entry(literal.into()).or_insert_with(|| {
                        *nodes += 1;
                        Node::default()
                    });
                }
            }
        }
        let slot = match ends_with_rest {
            true => &mut node.rest,
            false => &mut node.exact,
        };
        slot.get_or_insert_with(|| {
            *filters += 1;
            make()
        })
    }

    /// Store a value for this filter; what was stored before comes back.
    pub fn insert(&mut self, filter: &TopicFilter, value: T) -> Option<T> {
        match self.get_mut(filter) {
            Some(slot) => Some(std::mem::replace(slot, value)),
            None => {
                self.get_or_insert_with(filter, || value);
                None
            }
        }
    }

    /// Take this filter out, and free every node that only it needed.
    pub fn remove(&mut self, filter: &TopicFilter) -> Option<T> {
        let removed = self.root.remove(filter.levels(), &mut self.nodes)?;
        self.filters -= 1;
        Some(removed)
    }

    /// Call `visit` with the value of each filter that matches this topic, once each.
    pub fn visit<'a>(&'a self, topic: &TopicName, visit: &mut impl FnMut(&'a T)) {
        let mut levels = topic.levels();
        if !topic.is_reserved() {
            self.root.visit(levels, visit);
        } else if let Some(node) = levels.next().and_then(|first| self.root.literal.get(first)) {
            node.visit(levels, visit);
        }
    }

    /// How many filters are stored.
    pub fn len(&self) -> usize {
        self.filters
    }

    /// Whether no filter is stored.
    pub fn is_empty(&self) -> bool {
        self.filters == 0
    }

    /// How many nodes there are below the root: what memory follows.
    pub fn nodes(&self) -> usize {
        self.nodes
    }
}

impl<T> Node<T> {
    fn visit<'a>(&'a self, mut levels: Levels<'_>, visit: &mut impl FnMut(&'a T)) {
        if let Some(value) = &self.rest {
            visit(value);
        }
        let Some(level) = levels.next() else {
            if let Some(value) = &self.exact {
                visit(value);
            }
            return;
        };
        if let Some(any) = &self.any {
            any.visit(levels.clone(), visit);
        }
        if let Some(node) = self.literal.get(level) {
            node.visit(levels, visit);
        }
    }

    fn remove(&mut self, mut levels: Levels<'_>, nodes: &mut usize) -> Option<T> {
        let Some(level) = levels.next() else {
            return self.exact.take();
        };
        match level {
            "#" => self.rest.take(),
            "+" => {
                let child = self.any.as_mut()?;
                let removed = child.remove(levels, nodes)?;
                if child.is_unused() {
                    self.any = None;
                    *nodes -= 1;
                }
                Some(removed)
            }
            literal => {
                let child = self.literal.get_mut(literal)?;
                let removed = child.remove(levels, nodes)?;
                if child.is_unused() {
                    self.literal.remove(literal);
                    *nodes -= 1;
                    give_room_back(&mut self.literal);
                }
                Some(removed)
            }
        }
    }

    fn is_unused(&self) -> bool {
        self.exact.is_none() && self.rest.is_none() && self.any.is_none() && self.literal.is_empty()
    }
}

/// Shrink a map that has become much too large for what it holds: seldom enough that removing
/// stays cheap, and the last entry takes all of the memory along.
pub(crate) fn give_room_back<K: Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>) {
    if map.is_empty() {
        *map = HashMap::new();
    } else if map.capacity() > 16 && map.len() < map.capacity() / 4 {
        map.shrink_to(map.len() * 2);
    }
}

impl<T> Default for FilterTrie<T> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            filters: 0,
            nodes: 0,
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            exact: None,
            rest: None,
            any: None,
            literal: HashMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;

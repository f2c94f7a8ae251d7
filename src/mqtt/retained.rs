//! Retained messages: the last word on a topic, kept for who subscribes later (MQTT 5, 3.3.1.3).
//!
//! A tree by topic level, the mirror image of the filter trie: there a topic finds filters, here
//! a filter finds topics. A filter without wildcards costs its levels, `+` the children of a
//! level, `#` all that is below. What is kept is opaque; the caller says how large it is.

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::topics::trie::give_room_back;
use super::topics::{Levels, TopicFilter, TopicName};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedLimits {
    /// Messages. Default 100,000.
    pub max_messages: usize,
    /// Octets of messages and their topics. Default 256 MiB.
    pub max_bytes: usize,
}

impl Default for RetainedLimits {
    fn default() -> Self {
        Self {
            max_messages: 100_000,
            max_bytes: 256 << 20,
        }
    }
}

/// Why a message is not retained. What was retained for its topic before is gone nevertheless:
/// to go on showing an outdated value as the last one would be worse than showing none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetainedError {
    /// There are as many messages as the limit allows.
    #[error("there are {max} retained messages, no more are allowed")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// It does not fit into the room that is left.
    #[error("retained messages may have {max} octets in all, {left} are left, this has {got}")]
    NoRoom {
        /// The limit, in octets.
        max: usize,
        /// What is left of it, in octets.
        left: usize,
        /// The size of the message and its topic, in octets.
        got: usize,
    },
}

/// The retained messages of a broker, each a `T` that is cheap to clone. Any thread may use it.
///
/// Times are in milliseconds of whatever clock the caller uses throughout.
#[derive(Debug)]
pub struct Retained<T> {
    kept: RwLock<Kept<T>>,
    limits: RetainedLimits,
}

#[derive(Debug)]
struct Kept<T> {
    root: Node<T>,
    messages: usize,
    bytes: usize,
    /// Those that expire, the earliest first.
    expiries: BTreeSet<(u64, TopicName)>,
}

#[derive(Debug)]
struct Node<T> {
    message: Option<Message<T>>,
    children: HashMap<Box<str>, Node<T>>,
}

#[derive(Debug)]
struct Message<T> {
    value: T,
    bytes: usize,
    expires_at: Option<u64>,
}

impl<T: Clone> Retained<T> {
    /// A store without messages.
    pub fn new(limits: RetainedLimits) -> Self {
        Self {
            kept: RwLock::new(Kept {
                root: Node::default(),
                messages: 0,
                bytes: 0,
                expiries: BTreeSet::new(),
            }),
            limits,
        }
    }

    /// Keep a message of `bytes` octets for its topic, in place of the one before, until
    /// `expires_at` (first moment at which it is of no use). What has expired by `now` is
    /// dropped first.
    ///
    /// # Errors
    /// [`RetainedError`]; the topic has no retained message then.
    pub fn set(
        &self,
        topic: &TopicName,
        value: T,
        bytes: usize,
        expires_at: Option<u64>,
        now: u64,
    ) -> Result<(), RetainedError> {
        let bytes = bytes.saturating_add(topic.as_str().len());
        let mut kept = self.write();
        kept.sweep(now);
        kept.remove(topic);
        if kept.messages >= self.limits.max_messages {
            let max = self.limits.max_messages;
            return Err(RetainedError::TooMany { max });
        }
        let left = self.limits.max_bytes.saturating_sub(kept.bytes);
        if bytes > left {
            return Err(RetainedError::NoRoom {
                max: self.limits.max_bytes,
                left,
                got: bytes,
            });
        }
        kept.insert(
            topic,
            Message {
                value,
                bytes,
                expires_at,
            },
        );
        Ok(())
    }

    /// Forget the message of a topic (a publish with the retain flag and an empty payload).
    /// Whether there was one.
    pub fn clear(&self, topic: &TopicName) -> bool {
        self.write().remove(topic)
    }

    /// The message of a topic.
    pub fn get(&self, topic: &TopicName) -> Option<T> {
        let kept = self.read();
        let mut node = &kept.root;
        for level in topic.levels() {
            node = node.children.get(level)?;
        }
        node.message.as_ref().map(|message| message.value.clone())
    }

    /// The messages of all topics, in no particular order.
    pub fn all(&self) -> Vec<T> {
        let kept = self.read();
        let mut found = Vec::with_capacity(kept.messages);
        kept.root
            .visit_all(0, &mut |value| found.push(value.clone()));
        found
    }

    /// The messages of all topics that match, in no particular order, without the expired ones.
    pub fn matching(&self, filter: &TopicFilter, now: u64) -> Vec<T> {
        let mut found = Vec::new();
        self.visit(filter, now, &mut |value| found.push(value.clone()));
        found
    }

    /// Call `visit` with the messages of all topics that match. Setting waits meanwhile.
    pub fn visit(&self, filter: &TopicFilter, now: u64, visit: &mut impl FnMut(&T)) {
        let mut levels = filter.levels();
        let kept = self.read();
        if !filter.begins_with_wildcard() {
            return kept.root.visit(levels, now, visit);
        }
        // A leading wildcard does not match what begins with `$` (4.7.2-1).
        let first = levels.next();
        for (level, child) in &kept.root.children {
            if !level.starts_with('$') {
                match first {
                    Some("#") => child.visit_all(now, visit),
                    _ => child.visit(levels.clone(), now, visit),
                }
            }
        }
    }

    /// Forget what has expired by `now`; how many messages that were.
    pub fn sweep(&self, now: u64) -> usize {
        self.write().sweep(now)
    }

    /// How many messages are kept.
    pub fn len(&self) -> usize {
        self.read().messages
    }

    /// Whether no message is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The octets of all messages and their topics.
    pub fn bytes(&self) -> usize {
        self.read().bytes
    }

    fn read(&self) -> RwLockReadGuard<'_, Kept<T>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Kept<T>> {
        self.kept.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Kept<T> {
    fn insert(&mut self, topic: &TopicName, message: Message<T>) {
        self.messages += 1;
        self.bytes += message.bytes;
        if let Some(expires_at) = message.expires_at {
            self.expiries.insert((expires_at, topic.clone()));
        }
        let mut node = &mut self.root;
        for level in topic.levels() {
            node = node.children.entry(level.into()).or_default();
        }
        node.message = Some(message);
    }

    fn remove(&mut self, topic: &TopicName) -> bool {
        let Some(message) = self.root.remove(topic.levels()) else {
            return false;
        };
        self.messages -= 1;
        self.bytes -= message.bytes;
        if let Some(expires_at) = message.expires_at {
            self.expiries.remove(&(expires_at, topic.clone()));
        }
        true
    }

    fn sweep(&mut self, now: u64) -> usize {
        let before = self.messages;
        while let Some((_, topic)) = self
            .expiries
            .first()
            .filter(|(expires_at, _)| *expires_at <= now)
            .cloned()
        {
            self.remove(&topic);
        }
        before - self.messages
    }
}

impl<T> Node<T> {
    /// As deep as a topic has levels, which [`TopicName`] bounds.
    fn remove(&mut self, mut levels: Levels<'_>) -> Option<Message<T>> {
        let Some(level) = levels.next() else {
            return self.message.take();
        };
        let child = self.children.get_mut(level)?;
        let removed = child.remove(levels)?;
        if child.message.is_none() && child.children.is_empty() {
            self.children.remove(level);
            give_room_back(&mut self.children);
        }
        Some(removed)
    }

    fn visit(&self, mut levels: Levels<'_>, now: u64, visit: &mut impl FnMut(&T)) {
        match levels.next() {
            None => self.visit_own(now, visit),
            Some("#") => self.visit_all(now, visit),
            Some("+") => {
                for child in self.children.values() {
                    child.visit(levels.clone(), now, visit);
                }
            }
            Some(level) => {
                if let Some(child) = self.children.get(level) {
                    child.visit(levels, now, visit);
                }
            }
        }
    }

    fn visit_all(&self, now: u64, visit: &mut impl FnMut(&T)) {
        self.visit_own(now, visit);
        for child in self.children.values() {
            child.visit_all(now, visit);
        }
    }

    fn visit_own(&self, now: u64, visit: &mut impl FnMut(&T)) {
        if let Some(message) = &self.message
            && message.expires_at.is_none_or(|at| now < at)
        {
            visit(&message.value);
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            message: None,
            children: HashMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;

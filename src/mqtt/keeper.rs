//! The retained messages, as frames (MQTT 5, 3.3.1.3), within limits.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytestring::ByteString;

use super::frame::Frame;
use super::settings::Limits;
use super::topics::{TopicFilter, TopicLimits, TopicName};

/// The retained messages of a broker.
#[derive(Debug)]
pub struct Keeper {
    kept: Mutex<Kept>,
    max_messages: usize,
    max_bytes: usize,
    topics: TopicLimits,
}

#[derive(Debug, Default)]
struct Kept {
    by_topic: HashMap<ByteString, Frame>,
    bytes: usize,
}

/// What became of a retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It does not fit; what was retained for the topic before is gone.
    Full,
    /// It is retained, or the topic has none any more.
    Done,
}

impl Keeper {
    /// A store without messages.
    pub fn new(limits: &Limits) -> Self {
        Self {
            kept: Mutex::default(),
            max_messages: limits.retained_messages,
            max_bytes: limits.retained_bytes,
            topics: limits.topics,
        }
    }

    /// Set, replace or (with an empty payload) clear the message of its topic.
    pub fn set(&self, frame: &Frame) -> Keeping {
        let mut kept = self.lock();
        kept.remove(frame.topic());
        if frame.payload().is_empty() {
            return Keeping::Done;
        }
        let size = frame.octets().len();
        if kept.by_topic.len() >= self.max_messages || kept.bytes + size > self.max_bytes {
            return Keeping::Full;
        }
        kept.bytes += size;
        kept.by_topic
            .insert(ByteString::from(frame.topic()), frame.clone());
        Keeping::Done
    }

    /// The messages whose topics match, that have not expired; at most `most`.
    pub fn matching(&self, filter: &TopicFilter, now: u64, most: usize) -> Vec<Frame> {
        let fresh = |frame: &&Frame| frame.expires_at().is_none_or(|at| at > now);
        let kept = self.lock();
        if !filter.has_wildcard() {
            let found = kept.by_topic.get(filter.as_str()).filter(fresh);
            return found.cloned().into_iter().collect();
        }
        kept.by_topic
            .iter()
            .filter(|(topic, _)| {
                TopicName::parse((*topic).clone(), &self.topics)
                    .is_ok_and(|topic| filter.matches(&topic))
            })
            .map(|(_, frame)| frame)
            .filter(fresh)
            .take(most)
            .cloned()
            .collect()
    }

    /// Forget what has expired.
    pub fn purge(&self, now: u64) {
        let mut kept = self.lock();
        let Kept { by_topic, bytes } = &mut *kept;
        by_topic.retain(|_, frame| {
            let fresh = frame.expires_at().is_none_or(|at| at > now);
            if !fresh {
                *bytes -= frame.octets().len();
            }
            fresh
        });
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, topic: &str) {
        if let Some(old) = self.by_topic.remove(topic) {
            self.bytes -= old.octets().len();
        }
    }
}

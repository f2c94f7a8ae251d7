//! Which topics have another retained message, or none, than disk has.

use std::collections::HashSet;

use bytestring::ByteString;

use crate::mqtt::topics::TopicName;

/// The topics, or that they are too many to tell.
#[derive(Debug)]
pub(super) enum Changed {
    These {
        topics: HashSet<ByteString>,
        octets: usize,
    },
    /// Any: all of them are to be written.
    Any,
}

/// What is noted of the changes between two rounds, whatever clients do.
const MAX_TOPICS: usize = 200_000;
const MAX_OCTETS: usize = 16 << 20;

impl Changed {
    pub(super) fn add(&mut self, topic: &TopicName) {
        let Self::These { topics, octets } = self else {
            return;
        };
        if topics.contains(topic.as_str()) {
            return;
        }
        *octets += topic.as_str().len();
        if topics.len() >= MAX_TOPICS || *octets > MAX_OCTETS {
            *self = Self::Any;
            return;
        }
        // The topic can be a slice of a packet: copied, so that it does not keep it.
        topics.insert(ByteString::from(topic.as_str()));
    }

    /// Take what has changed so far.
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

impl Default for Changed {
    fn default() -> Self {
        Self::These {
            topics: HashSet::new(),
            octets: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_bounded() {
        let mut changed = Changed::default();
        let long = "x".repeat(4_000);
        for number in 0..10_000 {
            let topic = TopicName::parse(format!("{number}/{long}"), &Default::default()).unwrap();
            changed.add(&topic);
            if let Changed::These { octets, .. } = &changed {
                assert!(*octets <= MAX_OCTETS);
            }
        }
        assert!(matches!(changed.take(), Changed::Any));
        let topic = TopicName::parse("a", &Default::default()).unwrap();
        changed.add(&topic);
        changed.add(&topic);
        assert!(matches!(changed, Changed::These { topics, octets: 1 } if topics.len() == 1));
    }
}

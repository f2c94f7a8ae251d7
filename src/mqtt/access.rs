//! Who may publish and subscribe where.
//!
//! Topics that begin with `$` are the broker's. Administrators may publish commands to
//! [`COMMAND_TOPIC`], read their answers at [`DEFAULT_RESPONSE_TOPIC`] and the levels below it, and
//! read `$SYS`. Nobody else may do anything there, and wildcards do not reach into `$CONTROL`.
//! All other topics are open to everybody.

use super::control_channel::{COMMAND_TOPIC, DEFAULT_RESPONSE_TOPIC};
use super::topics::{TopicFilter, TopicName};

/// Whether something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// It may not.
    Denied,
    /// It may.
    Granted,
}

/// What a permitted message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    /// It is not permitted.
    Denied,
    /// A command of an administrator.
    Command,
    /// The bus.
    Message,
}

/// The rules of a broker.
#[derive(Debug, Clone, Default)]
pub struct Access {}

impl Access {
    /// What becomes of a message published to this topic.
    pub fn publish(&self, administrator: bool, topic: &TopicName) -> Publishing {
        match (topic.is_reserved(), topic.as_str()) {
            (false, _) => Publishing::Message,
            (true, COMMAND_TOPIC) if administrator => Publishing::Command,
            (true, _) => Publishing::Denied,
        }
    }

    /// Whether this filter may be subscribed to, alone or in a shared group.
    pub fn subscribe(&self, administrator: bool, filter: &TopicFilter) -> Permission {
        let text = filter.as_str();
        let permitted = if !text.starts_with('$') {
            true
        } else if !administrator {
            false
        } else if text == "$SYS" || text.starts_with("$SYS/") {
            true
        } else {
            is_answer_topic(text) && !filter.has_wildcard()
        };
        match permitted {
            true => Permission::Granted,
            false => Permission::Denied,
        }
    }

    /// Whether the answer to a command of an administrator may go to this topic.
    pub fn answer(&self, topic: &TopicName) -> Permission {
        match !topic.is_reserved() || is_answer_topic(topic.as_str()) {
            true => Permission::Granted,
            false => Permission::Denied,
        }
    }
}

fn is_answer_topic(text: &str) -> bool {
    text.strip_prefix(DEFAULT_RESPONSE_TOPIC)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_s_topics_are_for_administrators() {
        let access = Access::default();
        let limits = Default::default();
        let publish =
            |admin, topic: &str| access.publish(admin, &TopicName::parse(topic, &limits).unwrap());
        assert_eq!(publish(false, "a/b"), Publishing::Message);
        assert_eq!(publish(false, COMMAND_TOPIC), Publishing::Denied);
        assert_eq!(publish(true, COMMAND_TOPIC), Publishing::Command);
        assert_eq!(publish(true, DEFAULT_RESPONSE_TOPIC), Publishing::Denied);
        assert_eq!(publish(true, "$SYS/x"), Publishing::Denied);
        assert_eq!(publish(false, "$x"), Publishing::Denied);
        let subscribe = |admin, filter: &str| {
            access.subscribe(admin, &TopicFilter::parse(filter, &limits).unwrap())
                == Permission::Granted
        };
        for filter in ["#", "+/portcullis/v1", "a"] {
            assert!(subscribe(false, filter), "{filter}");
        }
        for filter in ["$SYS/#", "$CONTROL/#", DEFAULT_RESPONSE_TOPIC, "$x/+"] {
            assert!(!subscribe(false, filter), "{filter}");
        }
        for filter in [DEFAULT_RESPONSE_TOPIC, "$SYS/#"] {
            assert!(subscribe(true, filter), "{filter}");
        }
        for filter in [
            "$CONTROL/#",
            "$CONTROL/portcullis/v1/response/+",
            COMMAND_TOPIC,
        ] {
            assert!(!subscribe(true, filter), "{filter}");
        }
    }
}

//! Who may publish and subscribe where.
//!
//! Topics that begin with `$` are the broker's. Administrators may publish commands to
//! [`COMMAND_TOPIC`], read their answers at [`DEFAULT_RESPONSE_TOPIC`] and the levels below it, and
//! read `$SYS`. Nobody else may do anything there, and wildcards do not reach into `$CONTROL`.
//!
//! About all other topics the rules of the configuration decide, for administrators as well; the
//! first that matches counts ([`rules`]). Their topics can have variables ([`pattern`],
//! [`variable`]), which are replaced once, when a client connects. Without rules these topics are
//! open to everybody. `docs/access-rules.md` tells it all to those who write rules.

pub mod pattern;
pub mod rules;
mod scope;
pub mod variable;

use std::fmt;
use std::sync::Arc;

use self::rules::{AccessSettings, Action, Applied, Effect, RuleSet, Verdict};
use super::control_channel::{COMMAND_TOPIC, DEFAULT_RESPONSE_TOPIC};
use super::topics::{TopicFilter, TopicName};
use crate::tls::peer::VerifiedPeer;

/// Whether something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// It may not.
    Denied(Denial),
    /// It may.
    Granted,
}

/// What a permitted message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    /// It is not permitted.
    Denied(Denial),
    /// A command of an administrator.
    Command,
    /// The bus.
    Message,
}

/// What denies, to tell the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The topic is the broker's.
    Reserved,
    /// The rule at this place of the configuration, counted from 0.
    Rule(usize),
    /// No rule matches, and the default is to deny.
    Default,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved => f.write_str("reserved"),
            Self::Rule(place) => write!(f, "access[{place}]"),
            Self::Default => f.write_str("access_default"),
        }
    }
}

/// The rules of a broker.
#[derive(Debug, Clone)]
pub struct Access(Arc<RuleSet>);

/// What one client may do: the rules with its own values for the variables.
#[derive(Debug, PartialEq)]
pub struct Rights {
    administrator: bool,
    applied: Applied,
}

impl Access {
    /// The rules, prepared for clients.
    pub fn new(settings: AccessSettings) -> Self {
        Self(Arc::new(RuleSet::new(settings)))
    }

    /// What this client may do.
    pub fn rights(&self, peer: &VerifiedPeer, client_id: &str, administrator: bool) -> Rights {
        Rights {
            administrator,
            applied: self.0.apply(peer, client_id),
        }
    }

    /// Whether the answer to a command of an administrator may go to this topic.
    pub fn answer(&self, topic: &TopicName) -> Permission {
        match !topic.is_reserved() || is_answer_topic(topic.as_str()) {
            true => Permission::Granted,
            false => Permission::Denied(Denial::Reserved),
        }
    }
}

impl Rights {
    /// What becomes of a message published to this topic.
    pub fn publish(&self, topic: &TopicName) -> Publishing {
        match (topic.is_reserved(), topic.as_str()) {
            (true, COMMAND_TOPIC) if self.administrator => Publishing::Command,
            (true, _) => Publishing::Denied(Denial::Reserved),
            (false, text) => match permission(self.applied.on_topic(Action::Publish, text)) {
                Permission::Granted => Publishing::Message,
                Permission::Denied(denial) => Publishing::Denied(denial),
            },
        }
    }

    /// Whether this filter may be subscribed to, alone or in a shared group.
    pub fn subscribe(&self, filter: &TopicFilter) -> Permission {
        let text = filter.as_str();
        if !text.starts_with('$') {
            return permission(self.applied.on_filter(filter));
        }
        let permitted = self.administrator
            && (is_status_topic(text) || (is_answer_topic(text) && !filter.has_wildcard()));
        match permitted {
            true => Permission::Granted,
            false => Permission::Denied(Denial::Reserved),
        }
    }

    /// Whether messages of this topic may be read. Whoever may [`subscribe`](Self::subscribe) to
    /// a filter may read all that it matches.
    pub fn read(&self, topic: &str) -> Permission {
        if !topic.starts_with('$') {
            return permission(self.applied.on_topic(Action::Subscribe, topic));
        }
        match self.administrator && (is_status_topic(topic) || is_answer_topic(topic)) {
            true => Permission::Granted,
            false => Permission::Denied(Denial::Reserved),
        }
    }
}

fn permission(verdict: Verdict) -> Permission {
    match verdict {
        Verdict::Rule(Effect::Allow, _) | Verdict::Default(Effect::Allow) => Permission::Granted,
        Verdict::Rule(Effect::Deny, place) => Permission::Denied(Denial::Rule(place)),
        Verdict::Default(Effect::Deny) => Permission::Denied(Denial::Default),
    }
}

fn is_status_topic(text: &str) -> bool {
    text == "$SYS" || text.starts_with("$SYS/")
}

fn is_answer_topic(text: &str) -> bool {
    text.strip_prefix(DEFAULT_RESPONSE_TOPIC)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;

//! What the topic of a rule has in common with a topic or a filter.
//!
//! Everything here is about topics that do not begin with `$`, which a leading wildcard does not
//! match; those that do are never asked about.

use crate::mqtt::topics::TopicFilter;

/// One level of the topic of a rule, as it is for one client.
#[derive(Debug, Clone, Copy)]
pub(super) enum Level<'a> {
    /// This text.
    Text(&'a str),
    /// One of these texts.
    OneOf(&'a [Box<str>]),
    /// Any one level.
    Any,
    /// All levels that follow, and none.
    Rest,
}

impl Level<'_> {
    /// Whether it takes this text.
    fn takes(self, text: &str) -> bool {
        match self {
            Level::Text(own) => own == text,
            Level::OneOf(own) => own.iter().any(|own| **own == *text),
            Level::Any | Level::Rest => true,
        }
    }
}

/// Whether the rule is about this topic.
pub(super) fn matches<'a>(mut rule: impl Iterator<Item = Level<'a>>, topic: &str) -> bool {
    let mut topic = topic.split('/');
    loop {
        match (rule.next(), topic.next()) {
            (Some(Level::Rest), _) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(level), Some(text)) if level.takes(text) => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

/// Whether the rule is about every topic that the filter matches.
pub(super) fn covers<'a>(mut rule: impl Iterator<Item = Level<'a>>, filter: &TopicFilter) -> bool {
    // There is no topic without levels, so `#` alone is `+/#`.
    let alone = (filter.as_str() == "#").then_some("+");
    let mut filter = alone.into_iter().chain(filter.levels());
    loop {
        match (rule.next(), filter.next()) {
            (Some(Level::Rest), _) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) | (Some(_), Some("#")) => return false,
            (Some(Level::Any), Some(_)) => {}
            (Some(_), Some("+")) => return false,
            (Some(level), Some(text)) if level.takes(text) => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

/// Whether the rule is about a topic that the filter matches.
pub(super) fn overlaps<'a>(
    mut rule: impl Iterator<Item = Level<'a>>,
    filter: &TopicFilter,
) -> bool {
    let mut filter = filter.levels();
    loop {
        match (rule.next(), filter.next()) {
            (Some(Level::Rest), _) | (_, Some("#")) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(_), Some("+")) => {}
            (Some(level), Some(text)) if level.takes(text) => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

//! Topic names and topic filters (MQTT 5, 4.7), and the trie that finds the filters of a topic.
//!
//! A value of these types exists only if its text is legal, so that nothing behind the session
//! layer checks again, and so that the number of levels, which bounds the work and the depth of
//! recursion of everything that walks a topic, is known to be small.

pub mod trie;

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

/// What a topic may be, beyond what the standard demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicLimits {
    /// The longest topic or filter, in octets of UTF-8. At most 65,535, the standard's own limit.
    /// Default 4,096.
    pub max_bytes: usize,
    /// The most levels (one more than there are separators), 1 to 256. Default 128.
    pub max_levels: usize,
    /// What to do with control characters and non-characters. Default: refuse.
    pub control_characters: ControlCharacters,
}

/// What to do with U+0001 to U+001F, U+007F to U+009F and the Unicode non-characters, which a
/// client should not send and a server may refuse (MQTT 5, 1.5.4). U+0000 is refused always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlCharacters {
    /// A topic with one of them is no topic.
    Refuse,
    /// They are characters like others.
    Allow,
}

impl Default for TopicLimits {
    fn default() -> Self {
        Self {
            max_bytes: 4_096,
            max_levels: 128,
            control_characters: ControlCharacters::Refuse,
        }
    }
}

/// The name a message is published under: no wildcards.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(ByteString);

/// The levels of a topic or a filter, in order.
#[derive(Debug, Clone)]
pub struct Levels<'a>(Option<&'a str>);

/// What a subscription asks for: levels, of which `+` stands for any one and a last `#` for all
/// that follow. Never a shared one; see [`Subscription`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(ByteString);

/// A shared subscription, `$share/{group}/{filter}` (MQTT 5, 4.8.2).
///
/// The group is the name together with the filter: two filters under one name are two groups.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SharedFilter {
    group: ByteString,
    filter: TopicFilter,
}

/// The filter of a SUBSCRIBE or UNSUBSCRIBE, told apart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subscription {
    /// Each subscriber gets each message.
    Plain(TopicFilter),
    /// One member of the group gets each message.
    Shared(SharedFilter),
}

/// Why a text is not a topic name or a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// It has no characters (4.7.3-1).
    #[error("a topic has at least one character")]
    Empty,
    /// It is longer than the standard or the configuration allows (4.7.3-3).
    #[error("a topic has at most {max} octets, this has {got}")]
    TooLong {
        /// The limit, in octets.
        max: usize,
        /// What was sent, in octets.
        got: usize,
    },
    /// It has more levels than the configuration allows.
    #[error("a topic has at most {max} levels, this has {got}")]
    TooDeep {
        /// The limit.
        max: usize,
        /// What was sent.
        got: usize,
    },
    /// It is not UTF-8 (1.5.4-1).
    #[error("a topic is UTF-8 text")]
    NotUtf8,
    /// It has U+0000 (4.7.3-2), or a control character or non-character while those are refused.
    #[error("a topic cannot have the character U+{:04X}", u32::from(*.0))]
    Character(char),
    /// A topic name has a wildcard (4.7.1), or a filter has one that is not a whole level, or
    /// levels after `#` (4.7.1-1, 4.7.1-2).
    #[error("`{0}` is not allowed at that place of a topic")]
    Wildcard(char),
    /// A shared subscription has no group name, a wildcard in it, or no filter (4.8.2).
    #[error("a shared subscription is `$share/`, a name without wildcards, `/`, and a filter")]
    Share,
}

impl<'a> Iterator for Levels<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let left = self.0.take()?;
        let end = left.bytes().position(|octet| octet == b'/');
        let Some(end) = end else {
            return Some(left);
        };
        self.0 = left.get(end + 1..);
        left.get(..end)
    }
}

impl TopicName {
    /// The topic name with this text.
    ///
    /// # Errors
    /// [`TopicError`] if the text breaks a rule of the standard or of `limits`.
    pub fn parse(text: impl Into<ByteString>, limits: &TopicLimits) -> Result<Self, TopicError> {
        let text = text.into();
        check_text(&text, limits)?;
        match text.bytes().find(|octet| matches!(octet, b'+' | b'#')) {
            Some(wildcard) => Err(TopicError::Wildcard(wildcard.into())),
            None => Ok(Self(text)),
        }
    }

    /// The topic name with these octets of text.
    ///
    /// # Errors
    /// As [`TopicName::parse`], and [`TopicError::NotUtf8`].
    pub fn from_bytes(octets: Bytes, limits: &TopicLimits) -> Result<Self, TopicError> {
        let text = ByteString::try_from(octets).map_err(|_| TopicError::NotUtf8)?;
        Self::parse(text, limits)
    }

    /// Whether the topic begins with `$`, which leading wildcards do not match (4.7.2-1).
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }

    /// The levels, in order; at least one, possibly empty.
    pub fn levels(&self) -> Levels<'_> {
        Levels(Some(&self.0))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text in the type the codec uses, without a copy.
    pub fn to_byte_string(&self) -> ByteString {
        self.0.clone()
    }
}

impl TopicFilter {
    /// The filter with this text, which must not be a shared one.
    ///
    /// # Errors
    /// [`TopicError`] if the text breaks a rule of the standard or of `limits`, or begins with
    /// `$share/`.
    pub fn parse(text: impl Into<ByteString>, limits: &TopicLimits) -> Result<Self, TopicError> {
        let text = text.into();
        if text.starts_with(SHARE_PREFIX) {
            return Err(TopicError::Share);
        }
        check_text(&text, limits)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level == "#" && levels.peek().is_some() {
                return Err(TopicError::Wildcard('#'));
            }
            if level.len() > 1
                && let Some(wildcard) = level.chars().find(|c| matches!(c, '+' | '#'))
            {
                return Err(TopicError::Wildcard(wildcard));
            }
        }
        Ok(Self(text))
    }

    /// The levels, in order; at least one, possibly empty.
    pub fn levels(&self) -> Levels<'_> {
        Levels(Some(&self.0))
    }

    /// Whether the first level is a wildcard, so that topics beginning with `$` do not match.
    pub fn begins_with_wildcard(&self) -> bool {
        self.0.starts_with(['+', '#'])
    }

    /// Whether there is any wildcard.
    pub fn has_wildcard(&self) -> bool {
        self.0.contains(['+', '#'])
    }

    /// Whether the filter matches this topic (4.7).
    pub fn matches(&self, topic: &TopicName) -> bool {
        if topic.is_reserved() && self.begins_with_wildcard() {
            return false;
        }
        let mut topic_levels = topic.levels();
        for wanted in self.levels() {
            match (wanted, topic_levels.next()) {
                ("#", _) => return true,
                (_, None) => return false,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                (_, Some(_)) => return false,
            }
        }
        topic_levels.next().is_none()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text in the type the codec uses, without a copy.
    pub fn to_byte_string(&self) -> ByteString {
        self.0.clone()
    }
}

impl SharedFilter {
    /// The name of the group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// What the group is subscribed to.
    pub fn filter(&self) -> &TopicFilter {
        &self.filter
    }
}

impl Subscription {
    /// The subscription that this text of a SUBSCRIBE or UNSUBSCRIBE packet names.
    ///
    /// # Errors
    /// [`TopicError`] if the text breaks a rule of the standard or of `limits`.
    pub fn parse(text: impl Into<ByteString>, limits: &TopicLimits) -> Result<Self, TopicError> {
        let text = text.into();
        let Some(shared) = text.strip_prefix(SHARE_PREFIX) else {
            return TopicFilter::parse(text, limits).map(Self::Plain);
        };
        check_text(&text, limits)?;
        let (group, filter) = shared.split_once('/').ok_or(TopicError::Share)?;
        if group.is_empty() || group.contains(['+', '#']) || filter.is_empty() {
            return Err(TopicError::Share);
        }
        Ok(Self::Shared(SharedFilter {
            group: ByteString::from(group),
            filter: TopicFilter::parse(filter, limits)?,
        }))
    }

    /// The filter that topics are matched against.
    pub fn filter(&self) -> &TopicFilter {
        match self {
            Self::Plain(filter) => filter,
            Self::Shared(shared) => shared.filter(),
        }
    }
}

macro_rules! shows_its_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }
    };
}

shows_its_text!(TopicName);
shows_its_text!(TopicFilter);

impl fmt::Display for SharedFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SHARE_PREFIX}{}/{}", self.group, self.filter)
    }
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(filter) => filter.fmt(f),
            Self::Shared(shared) => shared.fmt(f),
        }
    }
}

/// The rules that names and filters have in common.
fn check_text(text: &str, limits: &TopicLimits) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    let max = limits.max_bytes.min(STANDARD_MAX_BYTES);
    if text.len() > max {
        let got = text.len();
        return Err(TopicError::TooLong { max, got });
    }
    let max = limits.max_levels.clamp(1, HARD_MAX_LEVELS);
    let got = 1 + text.bytes().filter(|&octet| octet == b'/').count();
    if got > max {
        return Err(TopicError::TooDeep { max, got });
    }
    // Mostly it is printable ASCII, which needs no look at characters.
    if text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
        return Ok(());
    }
    match text
        .chars()
        .find(|&c| is_refused(c, limits.control_characters))
    {
        Some(character) => Err(TopicError::Character(character)),
        None => Ok(()),
    }
}

fn is_refused(character: char, policy: ControlCharacters) -> bool {
    let code = u32::from(character);
    match policy {
        ControlCharacters::Allow => code == 0,
        ControlCharacters::Refuse => {
            character.is_control() || (0xFDD0..=0xFDEF).contains(&code) || (code & 0xFFFE) == 0xFFFE
        }
    }
}

const SHARE_PREFIX: &str = "$share/";

/// A string of MQTT has a length of two octets (1.5.4).
const STANDARD_MAX_BYTES: usize = 65_535;

/// Whatever is configured: what walks a topic may use a stack frame for each level.
const HARD_MAX_LEVELS: usize = 256;

#[cfg(test)]
mod tests;

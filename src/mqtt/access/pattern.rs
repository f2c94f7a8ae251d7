//! The topic of a rule: a filter whose levels can have variables.

use std::fmt;
use std::str::FromStr;

use super::variable::{Extent, Values, Variable};
use crate::tls::peer::VerifiedPeer;

/// The topic of a rule, such as `devices/${common_name}/#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    levels: Vec<Level>,
}

/// One level of a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level {
    /// This text.
    Text(Box<str>),
    /// `+`: any one level.
    Any,
    /// A last `#`: all levels that follow, and none.
    Rest,
    /// Text with variables in it: one level.
    Template(Template),
}

/// A level with variables, such as `${ca_sn}-${device_sn}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// Why a text is not the topic of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It has no characters.
    #[error("the topic of a rule has at least one character")]
    Empty,
    /// It is too long.
    #[error("the topic of a rule has at most {MAX_OCTETS} octets, this has {0}")]
    TooLong(usize),
    /// It has too many levels.
    #[error("the topic of a rule has at most {MAX_LEVELS} levels, this has {0}")]
    TooDeep(usize),
    /// It begins with `$`.
    #[error(
        "rules are about topics that do not begin with `$`; those are the broker's, and a shared \
         subscription is judged by the filter behind its group"
    )]
    Reserved,
    /// It has a control character.
    #[error("the topic of a rule cannot have the character U+{:04X}", u32::from(*.0))]
    Character(char),
    /// A wildcard is not a whole level, or levels follow `#`.
    #[error("`{0}` must be a whole level, and `#` the last one")]
    Wildcard(char),
    /// `${` without `}`.
    #[error("`${{` begins a variable, and `}}` is missing")]
    Unclosed,
    /// There is no such variable.
    #[error("there is no variable `{0}`; there are {names}", names = names())]
    Unknown(String),
}

impl Pattern {
    pub(super) fn levels(&self) -> &[Level] {
        &self.levels
    }
}

impl Template {
    /// What the level can be for a client.
    pub(super) fn values(&self, peer: &VerifiedPeer, client_id: &str) -> Values {
        let nothing = Values {
            usable: vec!["".into()],
            extent: Extent::Complete,
        };
        self.0.iter().fold(nothing, |before, part| {
            before.followed_by(&match part {
                Part::Text(text) => Values {
                    usable: vec![text.clone()],
                    extent: Extent::Complete,
                },
                Part::Variable(variable) => variable.values(peer, client_id),
            })
        })
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_OCTETS {
            return Err(PatternError::TooLong(text.len()));
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(PatternError::Character(control));
        }
        if text.starts_with('$') && !text.starts_with(OPEN) {
            return Err(PatternError::Reserved);
        }
        let count = text.split('/').count();
        if count > MAX_LEVELS {
            return Err(PatternError::TooDeep(count));
        }
        let mut levels = Vec::with_capacity(count);
        for written in text.split('/') {
            if levels.last() == Some(&Level::Rest) {
                return Err(PatternError::Wildcard('#'));
            }
            levels.push(level(written)?);
        }
        Ok(Self {
            text: text.to_owned(),
            levels,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn level(written: &str) -> Result<Level, PatternError> {
    match written {
        "+" => return Ok(Level::Any),
        "#" => return Ok(Level::Rest),
        _ => {}
    }
    if let Some(wildcard) = written.chars().find(|c| matches!(c, '+' | '#')) {
        return Err(PatternError::Wildcard(wildcard));
    }
    let mut parts = Vec::new();
    let mut rest = written;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (name, after) = after.split_once(CLOSE).ok_or(PatternError::Unclosed)?;
        let variable =
            Variable::named(name).ok_or_else(|| PatternError::Unknown(name.to_owned()))?;
        if !before.is_empty() {
            parts.push(Part::Text(before.into()));
        }
        parts.push(Part::Variable(variable));
        rest = after;
    }
    if parts.is_empty() {
        return Ok(Level::Text(written.into()));
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    Ok(Level::Template(Template(parts)))
}

fn names() -> String {
    Variable::ALL.map(Variable::as_str).join(", ")
}

const OPEN: &str = "${";
const CLOSE: char = '}';

/// The longest topic of a rule, in octets.
pub const MAX_OCTETS: usize = 1_024;

/// As many as a topic can have.
const MAX_LEVELS: usize = 256;

//! Which gate a client is led to, by the server name that it asks for (RFC 6066, section 3).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls::AlertDescription;
use rustls::pki_types::DnsName;

/// A DNS name that clients ask for, or `*.` and one: every name that has one label more.
///
/// Written in lower case, whatever case it was read in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GateName(Pattern);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Pattern {
    Exact(Box<str>),
    /// What stands after `*.`.
    Below(Box<str>),
}

/// Why a text is no name of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GateNameError {
    /// Clients leave an address out of the ClientHello.
    #[error("an address is never sent as a server name (RFC 6066, section 3)")]
    Address,
    /// A star that is not the whole first label.
    #[error("* can stand for the whole first label only, as in *.example.com")]
    Wildcard,
    /// Neither a DNS name nor a wildcard.
    #[error("must be a DNS name in ASCII without a dot at its end, or *. and such a name")]
    NotADnsName,
}

impl GateName {
    /// A name that it covers: itself, or with `label` in place of the star.
    pub fn example(&self, label: &str) -> String {
        match &self.0 {
            Pattern::Exact(exact) => exact.to_string(),
            Pattern::Below(parent) => format!("{label}.{parent}"),
        }
    }
}

impl FromStr for GateName {
    type Err = GateNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.parse::<IpAddr>().is_ok() {
            return Err(GateNameError::Address);
        }
        let parent = text.strip_prefix("*.");
        if parent.unwrap_or(text).contains('*') {
            return Err(GateNameError::Wildcard);
        }
        // The shortest name that a wildcard covers shows whether it covers any.
        let shortest = match parent {
            Some(parent) => format!("a.{parent}"),
            None => text.to_owned(),
        };
        // The same check that rustls makes of what a client sends.
        if DnsName::try_from(shortest.as_str()).is_err() || text.ends_with('.') {
            return Err(GateNameError::NotADnsName);
        }
        let lower = |text: &str| text.to_ascii_lowercase().into_boxed_str();
        Ok(Self(match parent {
            Some(parent) => Pattern::Below(lower(parent)),
            None => Pattern::Exact(lower(text)),
        }))
    }
}

impl fmt::Display for GateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Exact(exact) => f.write_str(exact),
            Pattern::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// The gates at one address, each with the names it has there; at most one without names, which
/// takes the clients that ask for no name or for one that no gate has.
///
/// `T` is what stands behind a gate. A gate that has names is open to clients that ask for one of
/// them only, also if it is alone at its address.
#[derive(Debug, Clone)]
pub struct Gates<T> {
    gates: Vec<T>,
    exact: HashMap<Box<str>, usize>,
    below: HashMap<Box<str>, usize>,
    rest: Option<usize>,
}

/// What a gate cannot have, because an earlier one has it. Gates are numbered from 0 in the order
/// in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The name with this place among the names of the gate.
    Name {
        /// Which of its names, from 0.
        name: usize,
        /// The gate that has it; maybe the same one.
        by: usize,
    },
    /// The clients that no name leads elsewhere.
    Rest {
        /// The gate that takes them.
        by: usize,
    },
}

/// Why a client is led to no gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoGate {
    /// It asks for a name that no gate has.
    #[error("no gate has the server name that the client asks for")]
    UnknownName,
    /// It asks for none, and every gate here has names.
    #[error("the client asks for no server name, and every gate here has names")]
    MissingName,
}

impl NoGate {
    /// The reason as one word for logs and metric labels, from a closed set.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownName => "unknown_server_name",
            Self::MissingName => "no_server_name",
        }
    }

    /// The alert that tells the client: `unrecognized_name` (RFC 6066, section 3), or
    /// `missing_extension` (RFC 8446, section 9.2; clients of TLS 1.2 take it as any fatal alert).
    pub fn alert(self) -> AlertDescription {
        match self {
            Self::UnknownName => AlertDescription::UnrecognisedName,
            Self::MissingName => AlertDescription::MissingExtension,
        }
    }
}

impl<T> Gates<T> {
    /// No gates: nobody is led anywhere.
    pub fn new() -> Self {
        Self {
            gates: Vec::new(),
            exact: HashMap::new(),
            below: HashMap::new(),
            rest: None,
        }
    }

    /// Add a gate with these names, or for the rest if there are none. What an earlier gate has
    /// stays there, and is told.
    pub fn add(&mut self, names: &[GateName], gate: T) -> Vec<Conflict> {
        let number = self.gates.len();
        self.gates.push(gate);
        if names.is_empty() {
            let by = *self.rest.get_or_insert(number);
            return match by == number {
                true => Vec::new(),
                false => vec![Conflict::Rest { by }],
            };
        }
        let mut conflicts = Vec::new();
        for (name, GateName(pattern)) in names.iter().enumerate() {
            let (map, key) = match pattern {
                Pattern::Exact(exact) => (&mut self.exact, exact),
                Pattern::Below(parent) => (&mut self.below, parent),
            };
            match map.get(key) {
                Some(&by) => conflicts.push(Conflict::Name { name, by }),
                None => {
                    map.insert(key.clone(), number);
                }
            }
        }
        conflicts
    }

    /// The gate for a client that asks for this name: the one that has the name, else the one
    /// with a wildcard that covers it, else the one without names. Case does not count.
    ///
    /// # Errors
    /// If there is none.
    pub fn choose(&self, server_name: Option<&str>) -> Result<&T, NoGate> {
        let found = server_name.and_then(|name| self.named(&normal(name)));
        let gate = found
            .or(self.rest)
            .and_then(|number| self.gates.get(number));
        gate.ok_or(match server_name {
            Some(_) => NoGate::UnknownName,
            None => NoGate::MissingName,
        })
    }

    fn named(&self, name: &str) -> Option<usize> {
        let exact = self.exact.get(name);
        let found = exact.or_else(|| self.below.get(above(name)?));
        found.copied()
    }

    /// The gate that every client is led to, whatever it asks for: there is only one, and it has
    /// no names.
    pub fn for_all(&self) -> Option<&T> {
        match self.gates.as_slice() {
            [gate] if self.rest.is_some() => Some(gate),
            _ => None,
        }
    }

    /// All gates, in the order in which they were added.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.gates.iter()
    }
}

impl<T> Default for Gates<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// In lower case, without the dot that some clients leave at the end.
fn normal(server_name: &str) -> String {
    let name = server_name.strip_suffix('.').unwrap_or(server_name);
    name.to_ascii_lowercase()
}

/// What stands after the first label.
fn above(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, above)| above)
}

#[cfg(test)]
mod tests;

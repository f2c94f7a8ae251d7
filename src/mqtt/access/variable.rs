//! What a rule can say of a client without knowing it: the variables, and their values.

use std::fmt;

use crate::ca::names::Names;
use crate::tls::peer::VerifiedPeer;

/// A field of the client's certificate, or its client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variable {
    /// Common name of the certificate; the last one, if there are several.
    CommonName,
    /// Serial number of the registered CA nearest to it on the verified path.
    CaSn,
    /// Serial number of the certificate.
    DeviceSn,
    /// The client id: the client's choice, as far as the policy on client ids lets it choose.
    ClientId,
    /// Organizations of the certificate.
    Organization,
    /// Organizational units of the certificate.
    OrganizationalUnit,
    /// Host names among its subject alternative names.
    SanDns,
    /// URIs among its subject alternative names.
    SanUri,
    /// Mail addresses among its subject alternative names.
    SanEmail,
}

/// The values of a variable, or of a level made of variables, for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// Those that can stand as one level of a topic.
    pub(super) usable: Vec<Box<str>>,
    /// Whether there are others.
    pub(super) extent: Extent,
}

/// Whether the values that can be used are all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// There may be others, or there is none at all.
    Partial,
    /// They are, and there is at least one.
    Complete,
}

impl Variable {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::CommonName,
        Self::CaSn,
        Self::DeviceSn,
        Self::ClientId,
        Self::Organization,
        Self::OrganizationalUnit,
        Self::SanDns,
        Self::SanUri,
        Self::SanEmail,
    ];

    /// Its name in a rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommonName => "common_name",
            Self::CaSn => "ca_sn",
            Self::DeviceSn => "device_sn",
            Self::ClientId => "client_id",
            Self::Organization => "organization",
            Self::OrganizationalUnit => "organizational_unit",
            Self::SanDns => "san_dns",
            Self::SanUri => "san_uri",
            Self::SanEmail => "san_email",
        }
    }

    /// The variable with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// Its values for a client.
    pub(super) fn values(self, peer: &VerifiedPeer, client_id: &str) -> Values {
        match self {
            Self::CommonName => Values::of(peer.common_name()),
            Self::CaSn => Values::of(Some(&*peer.ca_sn().to_string())),
            Self::DeviceSn => Values::of(Some(&*peer.serial().to_string())),
            Self::ClientId => Values::of(Some(client_id)),
            Self::Organization => Values::of_names(&peer.names().organization),
            Self::OrganizationalUnit => Values::of_names(&peer.names().organizational_unit),
            Self::SanDns => Values::of_names(&peer.names().san_dns),
            Self::SanUri => Values::of_names(&peer.names().san_uri),
            Self::SanEmail => Values::of_names(&peer.names().san_email),
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Values {
    /// Those of these that can be used.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut usable = Vec::new();
        let mut extent = Extent::Complete;
        for value in values {
            match is_one_level(value) {
                true => usable.push(value.into()),
                false => extent = Extent::Partial,
            }
        }
        if usable.is_empty() {
            extent = Extent::Partial;
        }
        Self { usable, extent }
    }

    fn of_names(names: &Names) -> Self {
        let mut values = Self::of(names.iter());
        if !names.is_complete() {
            values.extent = Extent::Partial;
        }
        values
    }

    /// Each of these followed by each of those, as far as they are not too many.
    pub(super) fn followed_by(self, next: &Self) -> Self {
        let mut extent = match (self.extent, next.extent) {
            (Extent::Complete, Extent::Complete) => Extent::Complete,
            _ => Extent::Partial,
        };
        let all = self.usable.iter().flat_map(|first| {
            let joined = |second| [&**first, second].concat().into_boxed_str();
            next.usable.iter().map(move |second| joined(second))
        });
        let usable: Vec<Box<str>> = all.take(MAX_COMBINATIONS).collect();
        if usable.len() < self.usable.len() * next.usable.len() {
            extent = Extent::Partial;
        }
        Self { usable, extent }
    }
}

/// Whether a value can stand for one level of a topic: what is empty, has a separator, a wildcard
/// or a control character would make another rule of the one that was written.
fn is_one_level(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= MAX_VALUE_OCTETS
        && !value.contains(['/', '+', '#'])
        && !value.chars().any(char::is_control)
}

/// The client id is the only value that can be longer than a name of a certificate.
const MAX_VALUE_OCTETS: usize = 1_024;

/// Values of one level with several variables that have several values each.
const MAX_COMBINATIONS: usize = 64;

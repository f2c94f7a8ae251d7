//! The names in a device certificate besides its common name: organization, organizational unit
//! and the subject alternative names (RFC 5280, 4.1.2.6 and 4.2.1.6).
//!
//! What a CA signed is still text that somebody chose. A value is given out only if it is not
//! empty, can be shown and is not long, and only so many of each kind; that there were others is
//! told with them, so that who has to deny can.

use x509_parser::extensions::GeneralName;
use x509_parser::x509::AttributeTypeAndValue;

use crate::ca::certificate::parse;

/// The names in a certificate, by their kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectNames {
    /// Organizations (`O`) of the subject.
    pub organization: Names,
    /// Organizational units (`OU`) of the subject.
    pub organizational_unit: Names,
    /// Alternative names that are host names (dNSName).
    pub san_dns: Names,
    /// Alternative names that are URIs (uniformResourceIdentifier).
    pub san_uri: Names,
    /// Alternative names that are mail addresses (rfc822Name).
    pub san_email: Names,
}

/// The names of one kind, in the order of the certificate, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    values: Vec<String>,
    extent: Extent,
}

/// Whether the certificate has names that are not given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// It may have.
    Partial,
    /// These are all there are.
    Complete,
}

impl SubjectNames {
    /// The names in the certificate with this DER. If it cannot be read, none is known.
    pub fn of_der(der: &[u8]) -> Self {
        let Ok(parsed) = parse(der) else {
            return Self::unknown();
        };
        let subject = parsed.subject();
        let mut names = Self {
            organization: attributes(subject.iter_organization()),
            organizational_unit: attributes(subject.iter_organizational_unit()),
            ..Self::unknown()
        };
        if let Ok(extension) = parsed.subject_alternative_name() {
            (names.san_dns, names.san_uri, names.san_email) = Default::default();
            let alternatives = extension.map(|extension| &extension.value.general_names);
            for alternative in alternatives.into_iter().flatten() {
                names.add_alternative(alternative);
            }
        }
        names
    }

    fn unknown() -> Self {
        let unknown = || Names {
            values: Vec::new(),
            extent: Extent::Partial,
        };
        Self {
            organization: unknown(),
            organizational_unit: unknown(),
            san_dns: unknown(),
            san_uri: unknown(),
            san_email: unknown(),
        }
    }

    fn add_alternative(&mut self, alternative: &GeneralName<'_>) {
        match alternative {
            GeneralName::DNSName(name) => self.san_dns.add(Some(name)),
            GeneralName::URI(uri) => self.san_uri.add(Some(uri)),
            GeneralName::RFC822Name(address) => self.san_email.add(Some(address)),
            GeneralName::Invalid(tag, _) => match tag.0 {
                1 => self.san_email.add(None),
                2 => self.san_dns.add(None),
                6 => self.san_uri.add(None),
                _ => {}
            },
            _ => {}
        }
    }

    /// The alternative names of all kinds: host names, then URIs, then mail addresses.
    pub fn alternatives(&self) -> impl Iterator<Item = &str> {
        let kinds = [&self.san_dns, &self.san_uri, &self.san_email];
        kinds.into_iter().flat_map(Names::iter)
    }
}

impl Names {
    /// The names; at most 32, each of 1 to 255 octets without control characters.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    /// Whether the certificate has no other names of this kind than those given out.
    pub fn is_complete(&self) -> bool {
        self.extent == Extent::Complete
    }

    /// Add a name; `None` is one that cannot be read.
    fn add(&mut self, name: Option<&str>) {
        let Some(name) = name.filter(|name| is_showable(name)) else {
            self.extent = Extent::Partial;
            return;
        };
        if self.values.iter().any(|known| known == name) {
            return;
        }
        match self.values.len() < MAX_VALUES {
            true => self.values.push(name.to_owned()),
            false => self.extent = Extent::Partial,
        }
    }
}

impl Default for Names {
    /// No names, and none that are not given out.
    fn default() -> Self {
        Self {
            values: Vec::new(),
            extent: Extent::Complete,
        }
    }
}

fn attributes<'a>(attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Names {
    let mut names = Names::default();
    for attribute in attributes {
        names.add(attribute.as_str().ok());
    }
    names
}

/// Whether a name can stand in a log line: not empty, at most 255 octets, no control characters.
pub(crate) fn is_showable(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_OCTETS && !name.chars().any(char::is_control)
}

/// More names of one kind than any real certificate of a device has.
const MAX_VALUES: usize = 32;

/// The longest host name; and long for anything else.
const MAX_OCTETS: usize = 255;

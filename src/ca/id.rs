//! Names of things, one type each: parsed once at the edge, printed one way everywhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text has a character that the identifier cannot have.
    #[error("{what} has a character that is not allowed there")]
    Character {
        /// Which identifier.
        what: &'static str,
    },
    /// The text is too short or too long.
    #[error("{what} must have {min} to {max} {unit}, this has {got}")]
    Length {
        /// Which identifier.
        what: &'static str,
        /// The least it must have, in `unit`.
        min: usize,
        /// The most it may have, in `unit`.
        max: usize,
        /// What is counted.
        unit: &'static str,
        /// What there is, in `unit`.
        got: usize,
    },
}

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The identifier with these 32 octets, as read back from a store.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 octets of the digest.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; 32];
                if text.len() != 64 {
                    return Err(IdError::Length {
                        what: $what,
                        min: 64,
                        max: 64,
                        unit: "hexadecimal digits",
                        got: text.len(),
                    });
                }
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| IdError::Character { what: $what })?;
                Ok(Self(bytes))
            }
        }
    };
}

digest_id! {
    /// One CA certificate: the SHA-256 of its DER.
    CaId, "a CA id"
}

digest_id! {
    /// One certificate authority, however many certificates it has: the SHA-256 over its
    /// subject name and its public key (both DER, the subject preceded by its length).
    ///
    /// Renewed and cross-signed certificates of a CA share it.
    CaKeyId, "a CA key id"
}

digest_id! {
    /// One list of revoked certificates over all of its issues: the SHA-256 over who issues it and
    /// which part of the issuer's certificates it is for.
    CrlId, "a CRL id"
}

digest_id! {
    /// One issue of a list: the SHA-256 of its DER.
    CrlDigest, "the digest of a CRL"
}

impl CrlId {
    /// The identity of the list that these parts describe. Each is preceded by its length.
    pub(crate) fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Self(out)
    }
}

impl CrlDigest {
    /// The digest of the list with this DER.
    pub fn of_der(der: &[u8]) -> Self {
        Self(sha256(&[der]))
    }
}

impl CaId {
    /// The identity of the certificate with this DER.
    pub fn of_der(der: &[u8]) -> Self {
        Self(sha256(&[der]))
    }
}

impl CaKeyId {
    /// The identity of the authority with this subject (the contents of the DER `Name`) and
    /// this public key (the whole DER `SubjectPublicKeyInfo`).
    pub fn of_parts(subject: &[u8], spki: &[u8]) -> Self {
        let length = (subject.len() as u64).to_be_bytes();
        Self(sha256(&[&length, subject, spki]))
    }
}

/// SHA-256 of the parts, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// The name of a change that is to be made at a time: 16 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScheduleId(u64);

impl ScheduleId {
    /// The id with these octets.
    pub fn from_bytes(octets: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(octets))
    }
}

impl From<ScheduleId> for u128 {
    fn from(id: ScheduleId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ScheduleId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != 16 {
            return Err(IdError::Length {
                what: "the id of a schedule",
                min: 16,
                max: 16,
                unit: "characters",
                got: text.len(),
            });
        }
        let mut octets = [0; 8];
        hex::decode_to_slice(text, &mut octets).map_err(|_| IdError::Character {
            what: "the id of a schedule",
        })?;
        Ok(Self::from_bytes(octets))
    }
}

/// The serial number of a certificate, unique for its issuer only (RFC 5280, 4.1.2.2).
///
/// Kept as a positive number without leading zero octets, so that what an operator types in
/// upper case, with colons or without the leading `00` finds the certificate. Printed as the
/// lower-case hexadecimal of the DER content octets. 1 to 20 significant octets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertSerial {
    // In place, since there are millions of them. The rest is zero, so that the order is that of the
    // octets: of two that differ in zeros at the end only, the shorter one is first.
    octets: [u8; CertSerial::MAX_OCTETS],
    length: u8,
}

impl CertSerial {
    pub(crate) const MAX_OCTETS: usize = 20;

    /// A bound below every serial number, for ranges in ordered maps; not itself one.
    pub(crate) fn lower_bound() -> Self {
        Self {
            octets: [0; Self::MAX_OCTETS],
            length: 0,
        }
    }

    /// The last serial number in the order of this type.
    pub(crate) fn upper_bound() -> Self {
        Self {
            octets: [0xff; Self::MAX_OCTETS],
            length: Self::MAX_OCTETS as u8,
        }
    }

    /// The serial with these big-endian octets.
    ///
    /// # Errors
    /// [`IdError::Length`] if there are no octets, or more than 20 significant ones.
    pub fn from_be_bytes(octets: &[u8]) -> Result<Self, IdError> {
        let significant = Self::significant(octets)?;
        let mut octets = [0; Self::MAX_OCTETS];
        let (place, _) = octets.split_at_mut(significant.len());
        place.copy_from_slice(significant);
        // At most MAX_OCTETS.
        let length = significant.len() as u8;
        Ok(Self { octets, length })
    }

    /// The number in a fixed number of octets, zeros first: equal for equal serial numbers.
    ///
    /// # Errors
    /// As [`from_be_bytes`](Self::from_be_bytes).
    pub(crate) fn fixed(octets: &[u8]) -> Result<[u8; Self::MAX_OCTETS], IdError> {
        let significant = Self::significant(octets)?;
        let mut fixed = [0; Self::MAX_OCTETS];
        let (_, place) = fixed.split_at_mut(Self::MAX_OCTETS - significant.len());
        place.copy_from_slice(significant);
        Ok(fixed)
    }

    fn significant(octets: &[u8]) -> Result<&[u8], IdError> {
        let significant = match octets.iter().position(|&octet| octet != 0) {
            Some(first) => octets.get(first..).unwrap_or_default(),
            None => octets.get(..1.min(octets.len())).unwrap_or_default(),
        };
        if significant.is_empty() || significant.len() > Self::MAX_OCTETS {
            return Err(IdError::Length {
                what: "a serial number",
                min: 1,
                max: Self::MAX_OCTETS,
                unit: "octets",
                got: significant.len(),
            });
        }
        Ok(significant)
    }

    /// The big-endian octets, without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        self.octets
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

impl fmt::Display for CertSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.as_bytes();
        if octets.first().is_some_and(|&octet| octet >= 0x80) {
            f.write_str("00")?;
        }
        f.write_str(&hex::encode(octets))
    }
}

impl fmt::Debug for CertSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertSerial({self})")
    }
}

impl FromStr for CertSerial {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        // 128 characters are the longest serial that the ApsaraMQ documentation allows.
        if text.is_empty() || text.len() > 128 {
            return Err(IdError::Length {
                what: "a serial number",
                min: 1,
                max: 128,
                unit: "characters",
                got: text.len(),
            });
        }
        let mut digits: String = text.chars().filter(|&c| c != ':').collect();
        if digits.len() % 2 == 1 {
            digits.insert(0, '0');
        }
        let octets = hex::decode(&digits).map_err(|_| IdError::Character {
            what: "a serial number",
        })?;
        Self::from_be_bytes(&octets)
    }
}

impl Serialize for CertSerial {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.is_empty() || text.len() > $max {
                    return Err(IdError::Length {
                        what: $what,
                        min: 1,
                        max: $max,
                        unit: "octets",
                        got: text.len(),
                    });
                }
                let allowed: fn(char) -> bool = $allowed;
                if !text.chars().all(allowed) {
                    return Err(IdError::Character { what: $what });
                }
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name_id! {
    /// A named broker in this process (`MqttInstanceId` of the API): letters, digits, `-`, `_`;
    /// at most 64.
    InstanceId, "an instance id", 64, |c| c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

name_id! {
    /// An account that owns instances and access keys: letters, digits, `-`, `_`; at most 64.
    AccountId, "an account id", 64, |c| c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

name_id! {
    /// The public half of an access key: letters, digits, `-`, `_`, `.`; at most 128.
    AccessKeyId, "an access key id", 128, |c| c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// A request's name in answers, logs and audit records: an upper-case UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u128);

impl RequestId {
    /// The request id made of these 16 random octets, as a version 4 UUID (RFC 9562, 5.4).
    pub fn from_random(random: [u8; 16]) -> Self {
        Self(
            uuid::Builder::from_random_bytes(random)
                .into_uuid()
                .as_u128(),
        )
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = uuid::Uuid::encode_buffer();
        f.write_str(
            uuid::Uuid::from_u128(self.0)
                .hyphenated()
                .encode_upper(&mut buffer),
        )
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

impl FromStr for RequestId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        uuid::Uuid::try_parse(text)
            .map(|uuid| Self(uuid.as_u128()))
            .map_err(|_| IdError::Character {
                what: "a request id",
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn serial_forms_that_operators_type_are_one_serial() {
        let canonical: CertSerial = "00f26900ba87".parse().unwrap();
        for text in [
            "F2:69:00:BA:87",
            "f26900ba87",
            "0000f26900ba87",
            "00F26900BA87",
        ] {
            assert_eq!(text.parse::<CertSerial>().unwrap(), canonical, "{text}");
        }
        assert_eq!(canonical.to_string(), "00f26900ba87");
        assert_eq!("0".parse::<CertSerial>().unwrap().to_string(), "00");
        assert_eq!("7".parse::<CertSerial>().unwrap().to_string(), "07");
    }

    #[test]
    fn serial_refuses_what_is_none() {
        let too_long = "7f".repeat(21);
        for text in ["", ":", "xyz", "12 34", "-1", "0x12", too_long.as_str()] {
            assert!(text.parse::<CertSerial>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn instance_refuses_what_would_break_a_log_line() {
        let too_long = "a".repeat(65);
        for text in ["", "a b", "a\n", "ä", "a/b", too_long.as_str()] {
            assert!(text.parse::<InstanceId>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn serials_are_in_the_order_of_their_octets(
            one in proptest::collection::vec(0..3_u8, 1..=20),
            other in proptest::collection::vec(0..3_u8, 1..=20),
        ) {
            let [one, other] = [one, other].map(|it| CertSerial::from_be_bytes(&it).unwrap());
            prop_assert_eq!(one.cmp(&other), one.as_bytes().cmp(other.as_bytes()));
            prop_assert!(CertSerial::lower_bound() < one && one <= CertSerial::upper_bound());
        }

        #[test]
        fn serial_round_trips(octets in proptest::collection::vec(any::<u8>(), 1..=20)) {
            let serial = CertSerial::from_be_bytes(&octets).unwrap();
            prop_assert_eq!(serial.to_string().parse::<CertSerial>().unwrap(), serial);
        }

        #[test]
        fn digest_ids_round_trip(bytes in any::<[u8; 32]>()) {
            let id = CaId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<CaId>().unwrap(), id);
            let id = CaKeyId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<CaKeyId>().unwrap(), id);
        }

        #[test]
        fn request_id_round_trips(random in any::<[u8; 16]>()) {
            let id = RequestId::from_random(random);
            prop_assert_eq!(id.to_string().parse::<RequestId>().unwrap(), id);
        }
    }
}

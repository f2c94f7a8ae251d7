//! Lists of revoked certificates for tests, also such as no CA makes.

use rcgen::SigningKey;
use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use time::macros::format_description;

use super::{TestCa, now_secs};
use crate::ca::crl::{Crl, CrlError, UnverifiedCrl};
use crate::tls::server_config::algorithms;

/// A list in the making: one of version 2 that is good for a day.
#[derive(Clone)]
pub(crate) struct TestCrl {
    pub(crate) version: Vec<u8>,
    pub(crate) this_update: i64,
    pub(crate) next_update: Option<i64>,
    /// Whole entries.
    pub(crate) entries: Vec<Vec<u8>>,
    /// Whole extensions, the number among them.
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl TestCrl {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            version: tlv(0x02, &[1]),
            this_update: now_secs() - 60,
            next_update: Some(now_secs() + 24 * 3600),
            entries: Vec::new(),
            extensions: vec![extension(CRL_NUMBER, Critical::No, &tlv(0x02, &[number]))],
        }
    }

    pub(crate) fn revoking(number: u8, serials: &[u64]) -> Self {
        let mut crl = Self::new(number);
        crl.entries = serials.iter().map(|serial| entry(*serial, &[])).collect();
        crl
    }

    pub(crate) fn until(mut self, next_update: i64) -> Self {
        self.next_update = Some(next_update);
        self
    }

    pub(crate) fn issued_at(mut self, this_update: i64) -> Self {
        self.this_update = this_update;
        self
    }

    pub(crate) fn with_extension(mut self, extension: Vec<u8>) -> Self {
        self.extensions.push(extension);
        self
    }

    pub(crate) fn with_entry(mut self, entry: Vec<u8>) -> Self {
        self.entries.push(entry);
        self
    }

    /// For these distribution points, and with these flags of the extension (context tags).
    pub(crate) fn for_points(self, points: &[&str], flags: &[u8]) -> Self {
        let names: Vec<u8> = points
            .iter()
            .flat_map(|point| tlv(0x86, point.as_bytes()))
            .collect();
        let mut content = match points {
            [] => Vec::new(),
            _ => tlv(0xa0, &tlv(0xa0, &names)),
        };
        content.extend(flags.iter().flat_map(|flag| tlv(0x80 | flag, &[0xff])));
        let value = tlv(0x30, &content);
        self.with_extension(extension(DISTRIBUTION_POINT, Critical::Yes, &value))
    }

    /// Signed by this CA, in DER.
    pub(crate) fn der(&self, ca: &TestCa) -> Vec<u8> {
        let algorithm = tlv(0x30, &tlv(0x06, ECDSA_WITH_SHA256));
        let mut body = self.version.clone();
        body.extend(&algorithm);
        body.extend(tlv(0x30, ca.certificate().subject()));
        body.extend(moment(self.this_update));
        body.extend(self.next_update.map(moment).unwrap_or_default());
        if !self.entries.is_empty() {
            body.extend(tlv(0x30, &self.entries.concat()));
        }
        if !self.extensions.is_empty() {
            body.extend(tlv(0xa0, &tlv(0x30, &self.extensions.concat())));
        }
        let body = tlv(0x30, &body);
        let mut signature = vec![0];
        signature.extend(ca.key.sign(&body).unwrap());
        tlv(0x30, &[body, algorithm, tlv(0x03, &signature)].concat())
    }

    pub(crate) fn verified(&self, ca: &TestCa) -> Result<Crl, CrlError> {
        verify(&self.der(ca), &[ca])
    }
}

/// Read and verify, with these CAs registered.
pub(crate) fn verify(der: &[u8], registered: &[&TestCa]) -> Result<Crl, CrlError> {
    let registered: Vec<_> = registered
        .iter()
        .map(|ca| std::sync::Arc::new(ca.certificate()))
        .collect();
    UnverifiedCrl::read(der)?.verify(&registered, algorithms(), 1_000)
}

/// An entry for this serial number, with these extensions.
pub(crate) fn entry(serial: u64, extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut content = tlv(0x02, &integer(serial));
    content.extend(moment(now_secs() - 3600));
    if !extensions.is_empty() {
        content.extend(tlv(0x30, &extensions.concat()));
    }
    tlv(0x30, &content)
}

/// Its reason, as an extension of an entry.
pub(crate) fn reason(code: u8) -> Vec<u8> {
    extension(REASON, Critical::No, &tlv(0x0a, &[code]))
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Critical {
    No,
    Yes,
}

pub(crate) fn extension(oid: &[u8], critical: Critical, value: &[u8]) -> Vec<u8> {
    let mut content = tlv(0x06, oid);
    if critical == Critical::Yes {
        content.extend(tlv(0x01, &[0xff]));
    }
    content.extend(tlv(0x04, value));
    tlv(0x30, &content)
}

pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(u8::try_from(short).unwrap()),
        long => {
            let octets = long.to_be_bytes();
            let octets = &octets[octets.iter().position(|it| *it != 0).unwrap()..];
            out.push(0x80 | u8::try_from(octets.len()).unwrap());
            out.extend(octets);
        }
    }
    out.extend(content);
    out
}

/// The octets of a positive INTEGER.
fn integer(value: u64) -> Vec<u8> {
    let octets = value.to_be_bytes();
    let first = octets.iter().position(|it| *it != 0).unwrap_or(7);
    let mut out = vec![];
    if octets[first] >= 0x80 {
        out.push(0);
    }
    out.extend(&octets[first..]);
    out
}

fn moment(seconds: i64) -> Vec<u8> {
    let format = format_description!("[year repr:last_two][month][day][hour][minute][second]Z");
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    tlv(0x17, at.format(&format).unwrap().as_bytes())
}

pub(crate) fn at(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(seconds).unwrap(),
    ))
}

pub(crate) const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 20];
const REASON: &[u8] = &[0x55, 0x1d, 21];
pub(crate) const DELTA: &[u8] = &[0x55, 0x1d, 27];
const DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 28];
pub(crate) const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 29];

/// Flags of the issuing distribution point.
pub(crate) const ONLY_DEVICES: u8 = 1;
pub(crate) const ONLY_CAS: u8 = 2;
pub(crate) const INDIRECT: u8 = 4;
pub(crate) const ONLY_ATTRIBUTES: u8 = 5;

/// ecdsa-with-SHA256 (RFC 5758, 3.2).
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

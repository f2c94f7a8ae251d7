//! Who signed a request, proved: the vendor's signatures, versions 3 and 1.

pub mod authenticator;
pub mod nonce;
#[cfg(test)]
mod properties;
pub mod replay;
pub mod v1;
pub mod v3;

use aws_lc_rs::{digest, hmac};
use axum::http::HeaderMap;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::admin::errors::{ApiError, Code};
use crate::admin::params::Params;
use crate::config::secret::Secret;

/// How far a client's clock may be off, in milliseconds, and how long a request can be replayed
/// at most but for the nonce.
const MAX_SKEW_MS: i64 = 15 * 60 * 1000;

/// A request as it arrived, as far as signatures look at it.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// What stood in the query.
    pub query: &'a Params,
    /// What stood in the body, if it was a form.
    pub form: &'a Params,
    /// All header fields.
    pub headers: &'a HeaderMap,
    /// The raw body.
    pub body: &'a [u8],
}

/// What a request says of its signer; nothing of it is proved yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Id of the access key.
    pub key_id: String,
    /// Name of the operation.
    pub action: String,
    /// Version of the API.
    pub version: String,
    /// When it was signed, Unix milliseconds.
    pub signed_at_ms: i64,
    /// Makes the request unique.
    pub nonce: String,
    /// How it is signed.
    pub method: Method,
    /// What is signed.
    pub string_to_sign: String,
    /// The signature's octets; empty if they could not be decoded.
    pub signature: Vec<u8>,
}

/// A signature method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Version 3: `ACS3-HMAC-SHA256`.
    V3,
    /// Version 1, of the older SDKs: `HMAC-SHA1`.
    V1,
}

impl Method {
    fn key(self, secret: &Secret) -> hmac::Key {
        match self {
            Self::V3 => hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()),
            Self::V1 => {
                let secret = Secret::new(format!("{}&", secret.reveal()));
                hmac::Key::new(
                    hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    secret.reveal().as_bytes(),
                )
            }
        }
    }

    /// The signature over `string_to_sign`, as octets.
    pub fn sign(self, secret: &Secret, string_to_sign: &str) -> Vec<u8> {
        let tag = hmac::sign(&self.key(secret), string_to_sign.as_bytes());
        tag.as_ref().to_vec()
    }

    /// Whether the signature is right, in constant time.
    fn verify(self, secret: &Secret, string_to_sign: &str, signature: &[u8]) -> bool {
        hmac::verify(&self.key(secret), string_to_sign.as_bytes(), signature).is_ok()
    }
}

/// The date as both versions write it, `2026-11-24T08:39:42Z`, in Unix milliseconds.
fn parse_date(text: &str) -> Result<i64, ApiError> {
    PrimitiveDateTime::parse(text, DATE)
        .map_err(|_| ApiError::from(Code::TimeStampFormat))
        .map(|date| date.assume_utc().unix_timestamp().saturating_mul(1000))
}

/// The time as both versions write it.
pub(crate) fn format_date(now: OffsetDateTime) -> String {
    // A year past 9999 is the only one that has no such form; nobody takes it.
    now.format(DATE).unwrap_or_default()
}

const DATE: &[time::format_description::FormatItem<'static>] =
    time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256_hex(data: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, data))
}

/// The value, if the field is there once and is a text.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(incomplete(format!("The header {name} is given twice.")));
    }
    std::str::from_utf8(value.as_bytes())
        .map(|text| Some(text.trim()))
        .map_err(|_| incomplete(format!("The header {name} is not UTF-8.")))
}

fn incomplete(detail: impl Into<String>) -> ApiError {
    ApiError::with_detail(Code::IncompleteSignature, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_one_form() {
        assert_eq!(parse_date("2026-11-24T08:39:42Z"), Ok(1_795_509_582_000));
        let now = OffsetDateTime::from_unix_timestamp(1_795_509_582).unwrap();
        assert_eq!(format_date(now), "2026-11-24T08:39:42Z");
        for bad in [
            "",
            "2026-11-24 08:39:42",
            "2026-11-24T08:39:42+00:00",
            "2026-13-24T08:39:42Z",
            "1795509582",
        ] {
            assert_eq!(
                parse_date(bad).unwrap_err().code,
                Code::TimeStampFormat,
                "{bad}"
            );
        }
    }
}

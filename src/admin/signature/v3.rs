//! Version 3, `ACS3-HMAC-SHA256`: a canonical form of method, path, query, the headers that the
//! client chose, and the body.

use super::{Claim, Incoming, Method, header, incomplete, parse_date, sha256_hex};
use crate::admin::errors::{ApiError, Code};
use crate::admin::params::{Params, encode};

/// The method's name, as it stands in `Authorization`.
pub const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// Headers that a signature must cover, besides every other `x-acs-` header that is sent.
const MUST_BE_SIGNED: [&str; 6] = [
    "host",
    "x-acs-action",
    "x-acs-version",
    "x-acs-date",
    "x-acs-signature-nonce",
    "x-acs-content-sha256",
];

/// What is signed; the client of this program and the server make it with the same code.
///
/// `headers` are the signed ones with their values, sorted by name; `payload` is the SHA-256 of
/// the body in hexadecimal.
pub fn string_to_sign(
    method: &str,
    path: &str,
    query: &Params,
    headers: &[(&str, &str)],
    payload: &str,
) -> String {
    let mut canonical = format!("{method}\n");
    match path {
        "" => canonical.push('/'),
        path => canonical.extend(path.split_inclusive('/').flat_map(segment)),
    }
    canonical.push('\n');
    canonical.push_str(&query.canonical());
    canonical.push('\n');
    for (name, value) in headers {
        canonical.push_str(name);
        canonical.push(':');
        canonical.push_str(value.trim());
        canonical.push('\n');
    }
    canonical.push('\n');
    canonical.push_str(&signed_headers(headers));
    canonical.push('\n');
    canonical.push_str(payload);
    format!("{ALGORITHM}\n{}", sha256_hex(canonical.as_bytes()))
}

/// The value of `Authorization`.
pub fn authorization(key_id: &str, headers: &[(&str, &str)], signature: &[u8]) -> String {
    format!(
        "{ALGORITHM} Credential={key_id},SignedHeaders={},Signature={}",
        signed_headers(headers),
        hex::encode(signature)
    )
}

/// Read what the request says of its signer.
///
/// # Errors
/// If the signature has another form, does not cover what it must, or the body is another one.
pub(super) fn claim(request: &Incoming<'_>, authorization: &str) -> Result<Claim, ApiError> {
    let Authorization {
        key_id,
        signed_names,
        signature,
    } = Authorization::parse(authorization)?;
    let required = |name: &str, code: Code| match header(request.headers, name)? {
        None | Some("") => Err(ApiError::from(code)),
        Some(value) => Ok(value),
    };
    let action = required("x-acs-action", Code::MissingAction)?;
    let version = required("x-acs-version", Code::MissingVersion)?;
    let date = required("x-acs-date", Code::MissingTimestamp)?;
    let nonce = required("x-acs-signature-nonce", Code::MissingSignatureNonce)?;
    let payload = required("x-acs-content-sha256", Code::IncompleteSignature)?;

    let unsigned = request
        .headers
        .keys()
        .map(|name| name.as_str())
        .filter(|name| name.starts_with("x-acs-"))
        .chain(MUST_BE_SIGNED)
        .find(|name| !signed_names.contains(name));
    if let Some(name) = unsigned {
        return Err(incomplete(format!("The header {name} must be signed.")));
    }
    let mut headers = Vec::with_capacity(signed_names.len());
    for name in signed_names {
        let value = header(request.headers, name)?
            .ok_or_else(|| incomplete(format!("The signed header {name} is not there.")))?;
        headers.push((name, value));
    }
    if sha256_hex(request.body) != payload.to_ascii_lowercase() {
        return Err(incomplete(
            "The header x-acs-content-sha256 is not the SHA-256 of the body.",
        ));
    }
    Ok(Claim {
        key_id: key_id.to_owned(),
        action: action.to_owned(),
        version: version.to_owned(),
        signed_at_ms: parse_date(date)?,
        nonce: nonce.to_owned(),
        method: Method::V3,
        string_to_sign: string_to_sign(
            request.method,
            request.path,
            request.query,
            &headers,
            payload,
        ),
        signature: hex::decode(signature).unwrap_or_default(),
    })
}

struct Authorization<'a> {
    key_id: &'a str,
    signed_names: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Result<Self, ApiError> {
        let fields = match text.split_once(' ') {
            Some((ALGORITHM, fields)) => fields,
            Some((other, _)) if other.starts_with("ACS3-") => {
                return Err(Code::InvalidSignatureMethod.into());
            }
            _ => return Err(incomplete("The header Authorization has another form.")),
        };
        let (mut key_id, mut signed, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field
                .trim()
                .split_once('=')
                .ok_or_else(|| incomplete("The header Authorization has another form."))?;
            let place = match name {
                "Credential" => &mut key_id,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return Err(incomplete("Authorization has a field it cannot have.")),
            };
            if place.replace(value).is_some() {
                return Err(incomplete("Authorization has a field twice."));
            }
        }
        let (Some(key_id), Some(signed), Some(signature)) = (key_id, signed, signature) else {
            return Err(incomplete(
                "Authorization must have Credential, SignedHeaders and Signature.",
            ));
        };
        if key_id.is_empty() {
            return Err(Code::MissingAccessKeyId.into());
        }
        let signed_names: Vec<_> = signed.split(';').collect();
        let ordered = signed_names.is_sorted_by(|a, b| a < b);
        let lower = |name: &&str| !name.is_empty() && !name.contains(|c: char| c.is_uppercase());
        if !ordered || !signed_names.iter().all(lower) {
            return Err(incomplete(
                "SignedHeaders must be in lower case, sorted, and name each header once.",
            ));
        }
        Ok(Self {
            key_id,
            signed_names,
            signature,
        })
    }
}

fn signed_headers(headers: &[(&str, &str)]) -> String {
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    names.join(";")
}

/// One segment of a path with the slash after it, if it has one.
fn segment(text: &str) -> impl Iterator<Item = &str> {
    let (segment, slash) = match text.strip_suffix('/') {
        Some(segment) => (segment, "/"),
        None => (text, ""),
    };
    encode(segment).chain([slash])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;
    use axum::http::{HeaderMap, HeaderName, HeaderValue};

    pub(crate) const EMPTY: &str =
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    const AUTHORIZATION: &str = "ACS3-HMAC-SHA256 Credential=LTAI5tFakeKeyId000001,SignedHeaders=accept;host;user-agent;x-acs-action;x-acs-content-sha256;x-acs-credentials-provider;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=453145765a89fe97fe613f3255c2a5e46f5d23a63fe336871412e762008b8592";

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept-encoding", "identity"),
            ("host", "127.0.0.1:45421"),
            ("x-acs-version", "2020-04-20"),
            ("x-acs-action", "InactivateCaCertificate"),
            (
                "user-agent",
                "AlibabaCloud (Linux; x86_64) Python/3.11.7 Core/0.4.3 TeaDSL/2",
            ),
            ("x-acs-date", "2026-11-24T08:39:42Z"),
            ("x-acs-signature-nonce", "a2fd647f8e60f7fd7f633ff614dbf9a1"),
            ("accept", "application/json"),
            ("x-acs-content-sha256", EMPTY),
            ("x-acs-credentials-provider", "static_ak"),
            ("content-length", "0"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn check(headers: &HeaderMap, query: &str, body: &[u8], text: &str) -> Result<bool, Code> {
        let request = Incoming {
            method: "POST",
            path: "/",
            query: &Params::decode(query).unwrap(),
            form: &Params::default(),
            headers,
            body,
        };
        let claim = claim(&request, text).map_err(|error| error.code)?;
        let secret = Secret::new("FakeSecret0123456789abcdefghij".to_owned());
        Ok(Method::V3.verify(&secret, &claim.string_to_sign, &claim.signature))
    }

    const QUERY: &str = "MqttInstanceId=post-cn-7mz2d000001&Sn=007269004887aabb";

    #[test]
    fn request_of_the_vendor_sdk_verifies() {
        assert_eq!(check(&headers(), QUERY, b"", AUTHORIZATION), Ok(true));
    }

    #[test]
    fn string_to_sign_is_the_known_one() {
        let signed = [
            ("accept", "application/json"),
            ("host", "127.0.0.1:45421"),
            (
                "user-agent",
                "AlibabaCloud (Linux; x86_64) Python/3.11.7 Core/0.4.3 TeaDSL/2",
            ),
            ("x-acs-action", "InactivateCaCertificate"),
            ("x-acs-content-sha256", EMPTY),
            ("x-acs-credentials-provider", "static_ak"),
            ("x-acs-date", "2026-11-24T08:39:42Z"),
            ("x-acs-signature-nonce", "a2fd647f8e60f7fd7f633ff614dbf9a1"),
            ("x-acs-version", "2020-04-20"),
        ];
        let query = Params::decode(QUERY).unwrap();
        let text = string_to_sign("POST", "/", &query, &signed, EMPTY);
        assert_eq!(
            text,
            "ACS3-HMAC-SHA256\nd4b2d2c99dc109ee9f3f9f6db5282d0dd81423b0869614ec268d638c1d8c49f0"
        );
        let secret = Secret::new("FakeSecret0123456789abcdefghij".to_owned());
        let signature = Method::V3.sign(&secret, &text);
        assert_eq!(
            authorization("LTAI5tFakeKeyId000001", &signed, &signature),
            AUTHORIZATION
        );
    }

    #[test]
    fn any_tampering_is_noticed() {
        let other_query = QUERY.replace("aabb", "aabc");
        assert_eq!(
            check(&headers(), &other_query, b"", AUTHORIZATION),
            Ok(false)
        );
        let more = format!("{QUERY}&CaSn=1");
        assert_eq!(check(&headers(), &more, b"", AUTHORIZATION), Ok(false));
        assert_eq!(
            check(&headers(), QUERY, b"Sn=1", AUTHORIZATION),
            Err(Code::IncompleteSignature)
        );
        let signed = [
            "accept",
            "host",
            "user-agent",
            "x-acs-action",
            "x-acs-credentials-provider",
            "x-acs-signature-nonce",
            "x-acs-version",
        ];
        for name in signed {
            let mut headers = headers();
            headers.insert(name, HeaderValue::from_static("other"));
            assert_eq!(
                check(&headers, QUERY, b"", AUTHORIZATION),
                Ok(false),
                "{name}"
            );
        }
        let mut moved = headers();
        moved.insert(
            "x-acs-date",
            HeaderValue::from_static("2026-11-24T08:39:43Z"),
        );
        assert_eq!(check(&moved, QUERY, b"", AUTHORIZATION), Ok(false));
        let short = AUTHORIZATION.replace("592", "");
        assert_eq!(check(&headers(), QUERY, b"", &short), Ok(false));
        let other = AUTHORIZATION.replace("592", "593");
        assert_eq!(check(&headers(), QUERY, b"", &other), Ok(false));
    }

    #[test]
    fn signatures_that_leave_something_out_are_refused() {
        for name in MUST_BE_SIGNED {
            let text = AUTHORIZATION.replacen(&format!("{name};"), "", 1);
            let text = text.replacen(&format!(";{name},"), ",", 1);
            assert_ne!(text, AUTHORIZATION);
            assert_eq!(
                check(&headers(), QUERY, b"", &text),
                Err(Code::IncompleteSignature),
                "{name}"
            );
        }
        let mut more = headers();
        more.insert("x-acs-security-token", HeaderValue::from_static("t"));
        assert_eq!(
            check(&more, QUERY, b"", AUTHORIZATION),
            Err(Code::IncompleteSignature)
        );
        for (name, code) in [
            ("x-acs-action", Code::MissingAction),
            ("x-acs-version", Code::MissingVersion),
            ("x-acs-date", Code::MissingTimestamp),
            ("x-acs-signature-nonce", Code::MissingSignatureNonce),
            ("host", Code::IncompleteSignature),
            ("accept", Code::IncompleteSignature),
        ] {
            let mut fewer = headers();
            fewer.remove(name);
            assert_eq!(
                check(&fewer, QUERY, b"", AUTHORIZATION),
                Err(code),
                "{name}"
            );
            let mut twice = headers();
            twice.append(HeaderName::from_static(name), HeaderValue::from_static("x"));
            assert_eq!(
                check(&twice, QUERY, b"", AUTHORIZATION),
                Err(Code::IncompleteSignature),
                "{name}"
            );
        }
    }

    #[test]
    fn unsigned_content_type_is_tolerated() {
        let mut headers = headers();
        headers.insert(
            "content-type",
            HeaderValue::from_static("application/octet-stream"),
        );
        assert_eq!(check(&headers, QUERY, b"", AUTHORIZATION), Ok(true));
    }

    #[test]
    fn other_forms_of_authorization_are_refused() {
        for (text, code) in [
            ("", Code::IncompleteSignature),
            ("Basic abc", Code::IncompleteSignature),
            (
                "ACS3-HMAC-SM3 Credential=a,SignedHeaders=b,Signature=c",
                Code::InvalidSignatureMethod,
            ),
            ("ACS3-HMAC-SHA256 ", Code::IncompleteSignature),
            ("ACS3-HMAC-SHA256 Credential=a", Code::IncompleteSignature),
            (
                "ACS3-HMAC-SHA256 Credential=,SignedHeaders=b,Signature=c",
                Code::MissingAccessKeyId,
            ),
            (
                "ACS3-HMAC-SHA256 Credential=a,Credential=b,SignedHeaders=b,Signature=c",
                Code::IncompleteSignature,
            ),
            (
                "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host;accept,Signature=c",
                Code::IncompleteSignature,
            ),
            (
                "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host;host,Signature=c",
                Code::IncompleteSignature,
            ),
            (
                "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=Host,Signature=c",
                Code::IncompleteSignature,
            ),
            (
                "ACS3-HMAC-SHA256 Credential=a,SignedHeaders=,Signature=c",
                Code::IncompleteSignature,
            ),
        ] {
            assert_eq!(check(&headers(), QUERY, b"", text), Err(code), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_authorization_is_an_error_or_a_mismatch(text in ".{0,200}") {
            let text = format!("ACS3-HMAC-SHA256 {text}");
            proptest::prop_assert_ne!(check(&headers(), QUERY, b"", &text), Ok(true));
        }
    }
}

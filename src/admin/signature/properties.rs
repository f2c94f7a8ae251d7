//! What must hold of the canonical forms for every request: clients that differ in encoding and
//! order sign the same, and no two requests that differ in anything else do.
//!
//! The texts are short and made of few characters, most of which are special somewhere, so that
//! two that could be taken for each other do come up.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::admin::params::ParamsError;

const TEXT: &str = "[&=%+ \n/:;26aAé]{0,4}";

/// Header fields cannot hold more than this: no line ends.
const FIELD: &str = "[&=%+ \t/:;,26aA]{0,4}";

const SIGNED_AT: &str = "2026-11-24T08:39:42Z";

fn params() -> impl Strategy<Value = Params> {
    btree_map(TEXT, TEXT, 0..4).prop_map(|pairs| {
        let mut params = Params::default();
        for (name, value) in pairs {
            params.insert(name, value).unwrap();
        }
        params
    })
}

fn secret() -> Secret {
    Secret::new("FakeSecret0123456789abcdefghij".to_owned())
}

/// How clients write the octets of a parameter.
#[derive(Debug, Clone, Copy)]
enum Encoding {
    /// RFC 3986, as the canonical form has it.
    Strict,
    /// A space is `+`.
    Python,
    /// `*~()!'` stay.
    Node,
    /// Lower-case digits.
    Lower,
    /// Everything is encoded.
    Everything,
    /// Only what would be read otherwise is encoded.
    Least,
}

impl Encoding {
    fn encode(self, text: &str) -> String {
        let mut out = String::new();
        for c in text.chars() {
            let plain = c.is_ascii_alphanumeric() || "-_.~".contains(c);
            match self {
                Self::Python if c == ' ' => out.push('+'),
                Self::Strict | Self::Python | Self::Lower if plain => out.push(c),
                Self::Node if plain || "*()!'".contains(c) => out.push(c),
                Self::Least if !"&=%+".contains(c) => out.push(c),
                _ => {
                    for octet in c.to_string().bytes() {
                        out.push_str(&match self {
                            Self::Lower => format!("%{octet:02x}"),
                            _ => format!("%{octet:02X}"),
                        });
                    }
                }
            }
        }
        out
    }
}

fn encoding() -> impl Strategy<Value = Encoding> {
    use Encoding::*;
    prop::sample::select(&[Strict, Python, Node, Lower, Everything, Least][..])
}

/// A V3 request, and what of it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    method: &'static str,
    path: String,
    query: Params,
    /// Fields that a client chose to sign besides those it must, by name.
    fields: std::collections::BTreeMap<&'static str, String>,
    body: Vec<u8>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let names = prop::sample::select(&["accept", "content-type", "host", "x-acs-a", "x-acs-b"][..]);
    (
        prop::sample::select(&["GET", "POST"][..]),
        "(/[a%+& .]{0,2}){0,3}",
        params(),
        btree_map(names, FIELD, 0..3),
        vec(prop::sample::select(&b"a&="[..]), 0..3),
    )
        .prop_map(|(method, path, query, fields, body)| Sent {
            method,
            path,
            query,
            fields,
            body,
        })
}

impl Sent {
    fn headers(&self) -> HeaderMap {
        let payload = sha256_hex(&self.body);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "h"),
            ("x-acs-action", "GetCaCertificate"),
            ("x-acs-content-sha256", &payload),
            ("x-acs-date", SIGNED_AT),
            ("x-acs-signature-nonce", "n"),
            ("x-acs-version", "2020-04-20"),
        ]
        .into_iter()
        .chain(
            self.fields
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        ) {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// What a client makes of it with the functions of this crate.
    fn authorization(&self) -> String {
        let headers = self.headers();
        let mut signed: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        signed.sort_unstable();
        let payload = sha256_hex(&self.body);
        let text = v3::string_to_sign(self.method, &self.path, &self.query, &signed, &payload);
        v3::authorization("key", &signed, &Method::V3.sign(&secret(), &text))
    }

    fn claim(&self, authorization: &str) -> Result<Claim, ApiError> {
        let request = Incoming {
            method: self.method,
            path: &self.path,
            query: &self.query,
            form: &Params::default(),
            headers: &self.headers(),
            body: &self.body,
        };
        v3::claim(&request, authorization)
    }

    /// The request as far as the signature must tell it from others: white space around a field
    /// is none of it (RFC 9110, 5.5), and a path that is not there is the root.
    fn meant(&self) -> Self {
        let mut meant = self.clone();
        if meant.path.is_empty() {
            meant.path.push('/');
        }
        for value in meant.fields.values_mut() {
            *value = value.trim().to_owned();
        }
        meant.fields.entry("host").or_insert_with(|| "h".to_owned());
        meant
    }
}

/// Parameters whose names and values, as they are, make this text: `cuts` says which of the
/// special characters separate.
fn cut(text: &str, cuts: [bool; 8]) -> Result<Params, ParamsError> {
    let mut params = Params::default();
    let (mut name, mut part) = (None, String::new());
    for (c, cut) in text.chars().zip(cuts) {
        match c {
            '&' if cut => {
                let value = std::mem::take(&mut part);
                params.insert(name.take().unwrap_or_default(), value)?;
            }
            '=' if cut && name.is_none() => name = Some(std::mem::take(&mut part)),
            _ => part.push(c),
        }
    }
    params.insert(name.unwrap_or_default(), part)?;
    Ok(params)
}

fn verifies(claim: &Claim) -> bool {
    claim
        .method
        .verify(&secret(), &claim.string_to_sign, &claim.signature)
}

/// A V1 request with its signature, its parameters in the order and places that `places` says.
fn signed_v1(
    method: &'static str,
    params: &Params,
    encoding: Encoding,
    places: &[bool],
) -> [String; 2] {
    let signature = Method::V1.sign(&secret(), &v1::string_to_sign(method, params));
    let mut whole = params.clone();
    whole
        .insert("Signature".to_owned(), STANDARD.encode(signature))
        .unwrap();
    let canonical = whole.canonical();
    let mut out = [String::new(), String::new()];
    for (at, pair) in canonical.split('&').rev().enumerate() {
        let (name, value) = pair.split_once('=').unwrap();
        let decoded = Params::decode(&format!("{name}={value}")).unwrap();
        let (name, value) = decoded.iter().next().unwrap();
        let place = usize::from(*places.get(at % places.len().max(1)).unwrap_or(&false));
        let (name, value) = (encoding.encode(name), encoding.encode(value));
        out[place].push_str(&format!("{name}={value}&"));
    }
    out
}

fn claim_v1(method: &'static str, [query, form]: &[String; 2]) -> Result<Claim, ApiError> {
    v1::claim(&Incoming {
        method,
        path: "/",
        query: &Params::decode(query).unwrap(),
        form: &Params::decode(form).unwrap(),
        headers: &HeaderMap::new(),
        body: form.as_bytes(),
    })
}

/// The parameters with what a V1 signature needs.
fn complete(params: &Params) -> Params {
    let rest = "Action=a&Version=v&AccessKeyId=key&SignatureNonce=n&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0";
    let rest = Params::decode(&format!("{rest}&Timestamp={SIGNED_AT}")).unwrap();
    params.clone().merge(rest).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn encoding_and_order_of_a_client_do_not_matter(
        params in params(), encoding in encoding(), turn in 0_usize..4
    ) {
        let mut pairs: Vec<_> = params
            .iter()
            .map(|(name, value)| format!("{}={}", encoding.encode(name), encoding.encode(value)))
            .collect();
        let turn = turn.min(pairs.len());
        pairs.rotate_left(turn);
        let read = Params::decode(&pairs.join("&")).unwrap();
        prop_assert_eq!(read.canonical(), params.canonical());
        prop_assert_eq!(
            v1::string_to_sign("GET", &read),
            v1::string_to_sign("GET", &params)
        );
        prop_assert_eq!(&read, &params);
        // Nothing in it can be taken for a part of the form around it.
        let canonical = params.canonical();
        let separators = canonical.bytes().filter(|octet| b"&=".contains(octet)).count();
        prop_assert_eq!(separators, (2 * params.iter().count()).saturating_sub(1));
    }

    #[test]
    fn different_parameters_have_different_canonical_forms(
        a in params(), b in params(), methods in any::<[bool; 2]>()
    ) {
        prop_assert_eq!(a.canonical() == b.canonical(), a == b);
        let [of_a, of_b] = methods.map(|post| if post { "POST" } else { "GET" });
        prop_assert_eq!(
            v1::string_to_sign(of_a, &a) == v1::string_to_sign(of_b, &b),
            (of_a, &a) == (of_b, &b)
        );
    }

    /// One text, cut into names and values in two ways: whoever joins without encoding has one
    /// form for both.
    #[test]
    fn text_that_is_cut_in_two_ways_has_two_canonical_forms(
        text in "[ab&=&=%+]{0,8}", cuts in any::<[[bool; 8]; 2]>()
    ) {
        let [a, b] = cuts.map(|cuts| cut(&text, cuts));
        if let (Ok(a), Ok(b)) = (a, b) {
            prop_assert_eq!(a.canonical() == b.canonical(), a == b);
            prop_assert_eq!(
                v1::string_to_sign("GET", &a) == v1::string_to_sign("GET", &b),
                a == b
            );
            let [of_a, of_b] = [&a, &b].map(|it| v3::string_to_sign("GET", "/", it, &[], ""));
            prop_assert_eq!(of_a == of_b, a == b);
        }
    }

    #[test]
    fn v3_signature_of_a_client_verifies_and_says_what_was_signed(request in sent()) {
        let claim = request.claim(&request.authorization()).unwrap();
        prop_assert!(verifies(&claim));
        prop_assert_eq!(claim.key_id.as_str(), "key");
        prop_assert_eq!(claim.action.as_str(), "GetCaCertificate");
        prop_assert_eq!(claim.nonce.as_str(), "n");
        prop_assert_eq!(claim.signed_at_ms, parse_date(SIGNED_AT).unwrap());
    }

    #[test]
    fn v3_signature_of_one_request_is_good_for_no_other(a in sent(), b in sent()) {
        let of_a = a.claim(&a.authorization()).unwrap();
        let of_b = b.claim(&b.authorization()).unwrap();
        let same = a.meant() == b.meant();
        prop_assert_eq!(of_a.string_to_sign == of_b.string_to_sign, same);
        // Sent with the other's `Authorization`. A field that it does not name does not count,
        // but every one that means something to us must be named.
        let moved = b.claim(&a.authorization()).is_ok_and(|claim| verifies(&claim));
        let named = |name: &str| name == "host" || a.fields.contains_key(name);
        let mut counts = b.clone();
        counts.fields.retain(|name, _| named(name) || name.starts_with("x-acs-"));
        prop_assert_eq!(moved, a.meant() == counts.meant());
    }

    /// As above, with all but one thing equal.
    #[test]
    fn v3_signature_is_no_good_after_any_change(a in sent(), b in sent(), what in 0..5) {
        let mut changed = a.clone();
        match what {
            0 => changed.method = b.method,
            1 => changed.path = b.path,
            2 => changed.query = b.query,
            3 => changed.body = b.body,
            _ => {
                for (name, value) in &mut changed.fields {
                    if let Some(other) = b.fields.get(name) {
                        value.clone_from(other);
                    }
                }
            }
        }
        let verified = changed.claim(&a.authorization()).is_ok_and(|claim| verifies(&claim));
        prop_assert_eq!(verified, changed.meant() == a.meant());
    }

    #[test]
    fn v1_signature_verifies_in_every_encoding_and_place(
        params in params(), encoding in encoding(), places in vec(any::<bool>(), 1..5)
    ) {
        let params = complete(&params);
        let claim = claim_v1("POST", &signed_v1("POST", &params, encoding, &places)).unwrap();
        prop_assert!(verifies(&claim));
        prop_assert_eq!(claim.string_to_sign, v1::string_to_sign("POST", &params));
    }

    #[test]
    fn v1_signature_of_one_request_is_good_for_no_other(a in params(), b in params()) {
        let (a, b) = (complete(&a), complete(&b));
        let [signed, _] = signed_v1("GET", &a, Encoding::Strict, &[false]);
        let signature = Params::decode(&signed).unwrap();
        let signature = signature.get("Signature").unwrap().to_owned();
        let mut other = b.clone();
        other.insert("Signature".to_owned(), signature).unwrap();
        let moved = claim_v1("GET", &[other.canonical(), String::new()]).unwrap();
        prop_assert_eq!(verifies(&moved), a == b);
        let post = claim_v1("POST", &[other.canonical(), String::new()]).unwrap();
        prop_assert!(!verifies(&post));
    }

    #[test]
    fn no_other_signature_verifies(text in TEXT, flip in 0_usize..160, cut in 0_usize..32) {
        for method in [Method::V3, Method::V1] {
            let right = method.sign(&secret(), &text);
            prop_assert!(method.verify(&secret(), &text, &right));
            let mut wrong = right.clone();
            wrong[flip / 8] ^= 1 << (flip % 8);
            prop_assert!(!method.verify(&secret(), &text, &wrong));
            prop_assert!(!method.verify(&secret(), &text, &right[..cut.min(right.len() - 1)]));
            let longer = [&right[..], &[0]].concat();
            prop_assert!(!method.verify(&secret(), &text, &longer));
        }
    }
}

#[test]
fn header_fields_cannot_hold_the_end_of_a_line() {
    for octets in ["a\nhost:evil", "a\r\nhost:evil", "a\0"] {
        assert!(HeaderValue::from_str(octets).is_err());
        assert!(HeaderName::from_bytes(octets.as_bytes()).is_err());
    }
    assert!(HeaderName::from_bytes(b"host:evil").is_err());
}

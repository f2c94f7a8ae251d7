//! The signatures of both versions: a request is refused unless it is signed, and what the refusal
//! says is to be signed is what makes it accepted.
//!
//! The input is a request in lines: the method and the target, then a header field in each, then an
//! empty line and the body.
#![no_main]

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use portcullis::admin::errors::Code;
use portcullis::admin::params::Params;
use portcullis::admin::signature::authenticator::Authenticator;
use portcullis::admin::signature::{Incoming, Method};
use portcullis_fuzz::{KEY, NOW_MS, authenticator, secret};

static KNOWN: LazyLock<Authenticator> = LazyLock::new(|| authenticator(secret()));

#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    query: Params,
    form: Params,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    fn read(octets: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(octets).ok()?;
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.split('\n');
        let (method, target) = lines.next()?.split_once(' ')?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).ok()?,
                HeaderValue::from_str(value).ok()?,
            );
        }
        Some(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: Params::decode(query).ok()?,
            form: Params::decode(body).ok()?,
            headers,
            body: body.as_bytes().to_vec(),
        })
    }

    /// `Ok` if the signature is accepted; otherwise why not.
    fn check(&self) -> Result<(), (Code, Option<String>)> {
        let incoming = Incoming {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            form: &self.form,
            headers: &self.headers,
            body: &self.body,
        };
        match KNOWN.check(&incoming, NOW_MS) {
            Ok(proved) => {
                assert_eq!(proved.signed().key.id.as_str(), KEY);
                assert!(!proved.signed().action.is_empty());
                Ok(())
            }
            Err(error) => Err((error.code, error.detail)),
        }
    }

    /// The same request with that signature.
    fn signed(&self, text: &str) -> Self {
        let mut signed = self.clone();
        match self.headers.get("authorization") {
            Some(authorization) => {
                let right = hex::encode(Method::V3.sign(&secret(), text));
                let fields: Vec<_> = authorization
                    .to_str()
                    .unwrap()
                    .split(',')
                    .map(|field| match field.split_once("Signature=") {
                        Some((before, _)) => format!("{before}Signature={right}"),
                        None => field.to_owned(),
                    })
                    .collect();
                let value = HeaderValue::from_str(&fields.join(",")).unwrap();
                signed.headers.insert("authorization", value);
            }
            None => {
                let right = STANDARD.encode(Method::V1.sign(&secret(), text));
                for params in [&mut signed.query, &mut signed.form] {
                    if params.remove("Signature").is_some() {
                        params
                            .insert("Signature".to_owned(), right.clone())
                            .unwrap();
                    }
                }
            }
        }
        signed
    }
}

fuzz_target!(|octets: &[u8]| {
    let Some(request) = Request::read(octets) else {
        return;
    };
    let outcome = request.check();
    assert_eq!(outcome, request.check(), "the decision is stable");
    let Err((Code::SignatureDoesNotMatch, Some(text))) = outcome else {
        return;
    };
    // An `Authorization` in which the signature cannot be found by splitting is left out.
    if let Some(value) = request.headers.get("authorization")
        && value.to_str().is_err()
    {
        return;
    }
    let v3 = request.headers.contains_key("authorization");
    if v3 {
        let hash = text.strip_prefix("ACS3-HMAC-SHA256\n").expect("the method");
        assert!(hash.len() == 64 && hash.bytes().all(|octet| octet.is_ascii_hexdigit()));
    } else {
        assert!(
            text.starts_with(&format!("{}&%2F&", request.method)),
            "{text}"
        );
    }
    let signed = request.signed(&text);
    assert_eq!(signed.check(), Ok(()), "what was to be signed, was");

    // The signature is for this request only.
    let refused = |other: Request| assert!(other.check().is_err(), "{other:?}");
    let mut other = signed.clone();
    other.method.push('X');
    refused(other);
    let mut other = signed.clone();
    if other
        .query
        .insert("Another".to_owned(), String::new())
        .is_ok()
    {
        refused(other);
    }
    for (name, value) in signed.query.iter() {
        let mut other = signed.clone();
        other.query.remove(name);
        refused(other.clone());
        let name = name.to_owned();
        other.query.insert(name, format!("{value}+")).unwrap();
        refused(other);
    }
    if v3 {
        let mut other = signed.clone();
        other.path.push('x');
        refused(other);
        let mut other = signed.clone();
        other.body.push(b'&');
        refused(other);
        let mut other = signed.clone();
        other
            .headers
            .insert("x-acs-another", HeaderValue::from_static("1"));
        refused(other);
        for name in signed
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-acs-"))
        {
            let mut other = signed.clone();
            other
                .headers
                .insert(name, HeaderValue::from_static("another"));
            if signed.headers.get(name) != other.headers.get(name) {
                refused(other);
            }
        }
    }
});

//! A second opinion on the signed API: signs requests (V3) and speaks HTTP on its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use super::DEADLINE;
use super::broker::INSTANCE;
use super::pki::Ca;

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// An access key with where to use it.
#[derive(Clone)]
pub struct Api {
    pub address: SocketAddr,
    pub instance: String,
    pub key_id: String,
    pub secret: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// The error code of the body, or the empty string.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["Code"].as_str().unwrap_or_default().to_owned()
    }

    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }
}

/// A request before it is signed; the scenarios change what they want to be wrong.
pub struct Request {
    pub action: String,
    pub params: Vec<(String, String)>,
    pub date: String,
    pub nonce: String,
    pub secret: String,
    /// Added to the query after signing.
    pub tampered: Option<String>,
}

impl Api {
    /// The key of `admin-key.json`.
    pub fn from_key_file(address: SocketAddr, json: &str) -> Self {
        let key: Value = serde_json::from_str(json).unwrap();
        let text = |name: &str| key[name].as_str().unwrap().to_owned();
        assert_eq!(key["MqttInstanceId"], INSTANCE);
        Self::new(
            address,
            INSTANCE,
            &text("AccessKeyId"),
            &text("AccessKeySecret"),
        )
    }

    /// Any key, for calls on this instance.
    pub fn new(address: SocketAddr, instance: &str, key_id: &str, secret: &str) -> Self {
        Self {
            address,
            instance: instance.to_owned(),
            key_id: key_id.to_owned(),
            secret: secret.to_owned(),
        }
    }

    /// A request that is right.
    pub fn request(&self, action: &str, params: &[(&str, &str)]) -> Request {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let now = OffsetDateTime::now_utc();
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        Request {
            action: action.to_owned(),
            params: params.iter().map(own).collect(),
            date: now.format(&format).unwrap(),
            nonce: format!(
                "{}-{}-{count}",
                std::process::id(),
                now.unix_timestamp_nanos()
            ),
            secret: self.secret.clone(),
            tampered: None,
        }
    }

    /// Sign and send; gives up on a broker that is gone.
    pub fn try_send(&self, request: &Request) -> io::Result<Answer> {
        exchange(self.address, &self.sign(request))
    }

    /// Sign and send.
    pub fn send(&self, request: &Request) -> Answer {
        self.try_send(request).unwrap()
    }

    /// Call an operation on the instance.
    pub fn call(&self, action: &str, params: &[(&str, &str)]) -> Answer {
        self.call_in(&self.instance, action, params)
    }

    /// Call an operation on this instance.
    pub fn call_in(&self, instance: &str, action: &str, params: &[(&str, &str)]) -> Answer {
        let mut all = vec![("MqttInstanceId", instance)];
        all.extend_from_slice(params);
        self.send(&self.request(action, &all))
    }

    /// The octets that are sent, to be recorded and sent again.
    pub fn sign(&self, request: &Request) -> String {
        let mut pairs: Vec<_> = request
            .params
            .iter()
            .map(|(k, v)| (encode(k), encode(v)))
            .collect();
        pairs.sort();
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let query = pairs.join("&");
        let body_hash = hex::encode(digest::digest(&digest::SHA256, b""));
        let host = self.address.to_string();
        let headers = [
            ("host", host.as_str()),
            ("x-acs-action", &request.action),
            ("x-acs-content-sha256", &body_hash),
            ("x-acs-date", &request.date),
            ("x-acs-signature-nonce", &request.nonce),
            ("x-acs-version", "2020-04-20"),
        ];
        let canonical: String = headers.iter().map(|(k, v)| format!("{k}:{v}\n")).collect();
        let names: Vec<_> = headers.iter().map(|(k, _)| *k).collect();
        let names = names.join(";");
        let whole = format!("POST\n/\n{query}\n{canonical}\n{names}\n{body_hash}");
        let hashed = hex::encode(digest::digest(&digest::SHA256, whole.as_bytes()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, request.secret.as_bytes());
        let signature = hmac::sign(&key, format!("ACS3-HMAC-SHA256\n{hashed}").as_bytes());
        let sent: String = headers
            .iter()
            .map(|(k, v)| format!("{k}: {v}\r\n"))
            .collect();
        let tampered = request.tampered.as_deref().unwrap_or_default();
        format!(
            "POST /?{query}{tampered} HTTP/1.1\r\n{sent}authorization: ACS3-HMAC-SHA256 Credential={},SignedHeaders={names},Signature={}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            self.key_id,
            hex::encode(signature)
        )
    }

    /// The same with the signature of the older SDKs (V1), everything in the query.
    pub fn sign_v1(&self, request: &Request) -> String {
        let own = [
            ("Action", request.action.as_str()),
            ("Version", "2020-04-20"),
            ("AccessKeyId", &self.key_id),
            ("Timestamp", &request.date),
            ("SignatureNonce", &request.nonce),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
            ("Format", "JSON"),
        ];
        let own = own.map(|(k, v)| (k.to_owned(), encode(v)));
        let params = request.params.iter().map(|(k, v)| (encode(k), encode(v)));
        let mut pairs: Vec<_> = own.into_iter().chain(params).collect();
        pairs.sort();
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let query = pairs.join("&");
        let text = format!("GET&%2F&{}", encode(&query));
        let secret = format!("{}&", request.secret);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let signature =
            base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        format!(
            "GET /?{query}&Signature={} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            encode(&signature),
            self.address
        )
    }

    // --- what scenarios do most ---

    /// Switch a CA off.
    #[track_caller]
    pub fn inactivate(&self, sn: &str) -> Value {
        self.call("InactivateCaCertificate", &[("Sn", sn)]).ok()
    }

    /// Switch a CA on.
    #[track_caller]
    pub fn activate(&self, sn: &str) -> Value {
        self.call("ActiveCaCertificate", &[("Sn", sn)]).ok()
    }

    /// `"0"` or `"1"`.
    #[track_caller]
    pub fn status(&self, sn: &str) -> String {
        let body = self.call("GetCaCertificate", &[("Sn", sn)]).ok();
        body["Data"]["Status"].as_str().unwrap().to_owned()
    }

    /// All registered CAs, one page.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        let page = [("PageNo", "1"), ("PageSize", "100")];
        let body = self.call("ListCaCertificate", &page).ok();
        body["Data"]["CaCertificateVOS"].as_array().unwrap().clone()
    }

    /// The serial number of the registered CA of this name.
    #[track_caller]
    pub fn sn_of(&self, name: &str) -> String {
        let all = self.list();
        let found = all.iter().find(|ca| ca["CaName"] == name);
        let found = found.unwrap_or_else(|| panic!("{name} is not registered: {all:?}"));
        found["Sn"].as_str().unwrap().to_owned()
    }

    /// A fresh register code.
    #[track_caller]
    pub fn register_code(&self) -> String {
        self.register_code_of(&self.instance)
    }

    /// A fresh register code of this instance.
    #[track_caller]
    pub fn register_code_of(&self, instance: &str) -> String {
        let body = self.call_in(instance, "GetRegisterCode", &[]).ok();
        body["RegisterCode"].as_str().unwrap().to_owned()
    }

    /// Try to register a CA with the proof of possession.
    pub fn try_register(&self, name: &str, ca: &Ca) -> Answer {
        let verification = ca.verification(&self.register_code());
        let params = naming(name, ca, &verification);
        self.call("RegisterCaCertificate", &borrowed(&params))
    }

    /// Register a CA with the proof of possession; gives its serial number.
    #[track_caller]
    pub fn register(&self, name: &str, ca: &Ca) -> String {
        let body = self.try_register(name, ca).ok();
        body["Sn"].as_str().unwrap().to_owned()
    }

    /// Register a CA with this proof; gives its serial number.
    #[track_caller]
    pub fn register_with(&self, name: &str, ca: &Ca, verification: &str) -> String {
        let params = naming(name, ca, verification);
        let body = self.call("RegisterCaCertificate", &borrowed(&params));
        body.ok()["Sn"].as_str().unwrap().to_owned()
    }

    /// Register a CA in this instance.
    #[track_caller]
    pub fn register_in(&self, instance: &str, ca: &Ca) {
        let verification = ca.verification(&self.register_code_of(instance));
        let params = naming("elsewhere", ca, &verification);
        self.call_in(instance, "RegisterCaCertificate", &borrowed(&params))
            .ok();
    }
}

/// The parameters of a registration.
fn naming(name: &str, ca: &Ca, verification: &str) -> [(&'static str, String); 3] {
    [
        ("CaName", name.to_owned()),
        ("CaContent", ca.pem()),
        ("VerificationContent", verification.to_owned()),
    ]
}

fn borrowed<'a>(params: &'a [(&'a str, String); 3]) -> [(&'a str, &'a str); 3] {
    params
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()))
}

/// Percent-encoded by RFC 3986.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// An unsigned GET.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    exchange(address, &request)
}

/// Send these bytes and read the answer to its end.
pub fn exchange(address: SocketAddr, request: &str) -> io::Result<Answer> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    exchange_over(socket, request)
}

/// The same over a connection that is there.
pub fn exchange_over(mut socket: impl Read + Write, request: &str) -> io::Result<Answer> {
    socket.write_all(request.as_bytes())?;
    let mut raw = Vec::new();
    socket.read_to_end(&mut raw)?;
    let raw = String::from_utf8(raw).map_err(io::Error::other)?;
    let (head, body) = raw
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other(format!("half an answer: {raw:?}")))?;
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
    let headers = headers.to_ascii_lowercase();
    let text = if headers.contains("transfer-encoding: chunked") {
        unchunk(body)
    } else {
        body.to_owned()
    };
    // A process that is killed may leave half a body behind.
    let length = headers
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    if length.is_some_and(|length| length != text.len()) {
        return Err(io::Error::other("half a body"));
    }
    Ok(Answer {
        status: status.ok_or_else(|| io::Error::other(format!("no status: {first:?}")))?,
        headers,
        text,
    })
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

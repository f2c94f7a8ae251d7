//! Requests to the admin API that are made by hand: signed with either version, with the
//! parameters wherever they may stand, over HTTP or HTTPS, and open to be tampered with.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use super::DEADLINE;
use super::api::{Answer, Api, encode, exchange_over};
use super::sdk::{Caller, with_instance};

/// The admin API's address, with the way to speak there.
#[derive(Clone)]
pub struct Door {
    pub address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Door {
    /// In plain text.
    pub fn http(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// Over TLS, trusting this CA.
    pub fn https(address: SocketAddr, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address,
            tls: Some(Arc::new(config)),
        }
    }

    /// Send this text and read the answer to the end of the connection.
    pub fn exchange(&self, text: &str) -> io::Result<Answer> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        match &self.tls {
            None => exchange_over(socket, text),
            Some(config) => {
                let name = ServerName::from(self.address.ip());
                let connection = ClientConnection::new(config.clone(), name).unwrap();
                exchange_over(StreamOwned::new(connection, socket), text)
            }
        }
    }

    /// An unsigned GET.
    pub fn get(&self, path: &str) -> io::Result<Answer> {
        let host = self.address;
        self.exchange(&format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        ))
    }

    /// Send the request as it is.
    #[track_caller]
    pub fn send(&self, request: &Raw) -> Answer {
        self.exchange(&request.text()).unwrap()
    }
}

/// A request as it goes over the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    pub method: String,
    pub path: String,
    /// Encoded, without the question mark.
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Raw {
    /// The value of a header field.
    pub fn header(&mut self, name: &str) -> &mut String {
        let field = self.headers.iter_mut().find(|(found, _)| found == name);
        &mut field.unwrap_or_else(|| panic!("no {name}")).1
    }

    /// Take a header field out.
    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(found, _)| found != name);
    }

    /// Add a header field.
    pub fn add(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    fn text(&self) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        let fields = self.headers.iter();
        let fields: String = fields.map(|(k, v)| format!("{k}: {v}\r\n")).collect();
        format!(
            "{} {}{mark}{} HTTP/1.1\r\n{fields}content-length: {}\r\nconnection: close\r\n\r\n{}",
            self.method,
            self.path,
            self.query,
            self.body.len(),
            self.body
        )
    }
}

/// How a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    V3,
    V1,
}

/// Where the parameters stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Query,
    Form,
    /// Every other one in the body.
    Both,
}

/// Makes calls without any SDK.
#[derive(Clone)]
pub struct Wire {
    pub door: Door,
    pub api: Api,
    pub signature: Signature,
    pub method: &'static str,
    pub place: Place,
}

type Pairs = Vec<(String, String)>;

impl Wire {
    /// The request that makes this call, signed.
    pub fn request(&self, operation: &str, arguments: &Value) -> Raw {
        let params = with_instance(arguments);
        let params = params.as_object().unwrap().iter();
        let params = params.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        self.sign(operation, params.collect())
    }

    /// The request with these parameters, signed.
    pub fn sign(&self, operation: &str, params: Pairs) -> Raw {
        match self.signature {
            Signature::V3 => self.sign_v3(operation, params, &[]),
            Signature::V1 => self.sign_v1(operation, params),
        }
    }

    /// The query and the body.
    fn placed(&self, params: Pairs) -> (String, String) {
        let (mut query, mut form) = (Pairs::new(), Pairs::new());
        for (index, pair) in params.into_iter().enumerate() {
            match (self.place, index % 2) {
                (Place::Query, _) | (Place::Both, 0) => query.push(pair),
                (Place::Form, _) | (Place::Both, _) => form.push(pair),
            }
        }
        (encoded(&query), encoded(&form))
    }

    /// Signed with version 3, more header fields among what is signed.
    pub fn sign_v3(&self, operation: &str, mut params: Pairs, more: &[(&str, &str)]) -> Raw {
        params.sort();
        let (query, body) = self.placed(params);
        let fresh = self.api.request(operation, &[]);
        let payload = sha256(&body);
        let host = self.door.address.to_string();
        let mut headers = vec![
            ("host", host.as_str()),
            ("x-acs-action", operation),
            ("x-acs-content-sha256", &payload),
            ("x-acs-date", &fresh.date),
            ("x-acs-signature-nonce", &fresh.nonce),
            ("x-acs-version", "2020-04-20"),
        ];
        if !body.is_empty() {
            headers.push(("content-type", FORM));
        }
        headers.extend(more);
        headers.sort();
        let canonical: String = headers
            .iter()
            .map(|(k, v)| format!("{k}:{}\n", v.trim()))
            .collect();
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let whole = format!(
            "{}\n/\n{query}\n{canonical}\n{names}\n{payload}",
            self.method
        );
        let text = format!("ACS3-HMAC-SHA256\n{}", sha256(&whole));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.api.secret.as_bytes());
        let authorization = format!(
            "ACS3-HMAC-SHA256 Credential={},SignedHeaders={names},Signature={}",
            self.api.key_id,
            hex::encode(hmac::sign(&key, text.as_bytes()))
        );
        headers.push(("authorization", &authorization));
        self.raw(query, headers, body)
    }

    fn sign_v1(&self, operation: &str, mut params: Pairs) -> Raw {
        let fresh = self.api.request(operation, &[]);
        for (name, value) in [
            ("AccessKeyId", self.api.key_id.as_str()),
            ("Action", operation),
            ("Format", "JSON"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureNonce", &fresh.nonce),
            ("SignatureType", ""),
            ("SignatureVersion", "1.0"),
            ("Timestamp", &fresh.date),
            ("Version", "2020-04-20"),
        ] {
            if !params.iter().any(|(given, _)| given == name) {
                params.push((name.to_owned(), value.to_owned()));
            }
        }
        params.sort();
        let text = format!("{}&%2F&{}", self.method, encode(&encoded(&params)));
        let key = format!("{}&", self.api.secret);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
        let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        params.push(("Signature".to_owned(), signature));
        let (query, body) = self.placed(params);
        let host = self.door.address.to_string();
        let mut headers = vec![("host", host.as_str())];
        if !body.is_empty() {
            headers.push(("content-type", FORM));
        }
        self.raw(query, headers, body)
    }

    fn raw(&self, query: String, headers: Vec<(&str, &str)>, body: String) -> Raw {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Raw {
            method: self.method.to_owned(),
            path: "/".to_owned(),
            query,
            headers: headers.into_iter().map(owned).collect(),
            body,
        }
    }
}

impl Caller for Wire {
    fn calls(&self, calls: &[(&str, Value)]) -> Vec<Value> {
        let calls = calls.iter();
        let outcome = |answer: Answer| {
            let body = answer.json();
            match answer.status {
                200 => json!({"ok": body, "status": 200}),
                status => json!({"error": {
                    "code": body["Code"],
                    "status": status,
                    "message": body["Message"],
                    "request_id": body["RequestId"],
                }}),
            }
        };
        calls
            .map(|(operation, given)| outcome(self.door.send(&self.request(operation, given))))
            .collect()
    }
}

fn encoded(pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter();
    let pairs: Vec<_> = pairs
        .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
        .collect();
    pairs.join("&")
}

/// In hexadecimal.
pub fn sha256(text: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

const FORM: &str = "application/x-www-form-urlencoded";

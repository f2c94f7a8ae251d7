//! The two ways to the admin API: signed requests over the network, and the socket of a broker on
//! this host.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use ureq::http::{Method, Request, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::client::{ClientError, usage};
use crate::admin::action::{self, Action};
use crate::admin::params::Params;
use crate::admin::router::CRL;
use crate::admin::signature::{self, v3};
use crate::secret::Secret;

/// A way to the admin API.
pub(super) enum Transport {
    /// A socket on this host: the kernel proves who calls.
    Local(PathBuf),
    /// HTTP or HTTPS with signed requests.
    Remote(Box<Remote>),
}

/// Where signed requests go, and what signs them.
pub(super) struct Remote {
    agent: ureq::Agent,
    /// Scheme and authority, without a slash at the end.
    endpoint: String,
    /// The `Host` header: the authority.
    host: String,
    key_id: String,
    secret: Secret,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

/// The longest answer: a page of 100 certificates is some 400 KB.
const MAX_ANSWER: u64 = 32 * 1024 * 1024;

/// How long a call may take in all.
const LIMIT: Duration = Duration::from_secs(60);

impl Transport {
    /// Where it leads, for people.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Remote(remote) => remote.endpoint.clone(),
        }
    }

    /// Send one call, with a CRL if there is one.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if there is nothing to send, [`ClientError::Unreachable`] if there is
    /// no answer.
    pub(super) fn send(
        &self,
        action: Action,
        mut params: Params,
        crl: Option<Vec<u8>>,
    ) -> Result<Answer, ClientError> {
        let sent = match (self, crl) {
            (Self::Local(path), crl) => send_local(path, action, params, crl),
            (Self::Remote(remote), None) => remote.send(action, params),
            (Self::Remote(remote), Some(crl)) => params
                .insert("CrlContent".to_owned(), STANDARD.encode(crl))
                .map_err(|error| Failed::Usage(error.to_string()))
                .and_then(|()| remote.send(action, params)),
        };
        sent.map_err(|failed| match failed {
            Failed::Usage(what) => usage(what),
            Failed::Unreachable(what) => self.unreachable(what),
        })
    }

    /// The error that there is no usable answer.
    pub(super) fn unreachable(&self, what: impl Into<String>) -> ClientError {
        let (endpoint, what) = (self.place(), what.into());
        match self {
            Self::Local(_) => ClientError::NoBrokerHere { endpoint, what },
            Self::Remote(_) => ClientError::Unreachable { endpoint, what },
        }
    }
}

enum Failed {
    Usage(String),
    Unreachable(String),
}

impl Remote {
    /// Requests to `endpoint` that this key signs. Nothing is sent.
    ///
    /// # Errors
    /// If the endpoint is none, or the file of its CAs cannot be used.
    pub(super) fn new(
        endpoint: &str,
        key_id: String,
        secret: Secret,
        ca_file: Option<&Path>,
    ) -> Result<Self, ClientError> {
        let (endpoint, host) = parse_endpoint(endpoint)?;
        if endpoint.starts_with("https:") && ca_file.is_none() {
            return Err(usage(
                "an HTTPS endpoint needs --ca-file with the CAs it is trusted by; those of the system are often in /etc/ssl/certs/ca-certificates.crt".to_owned(),
            ));
        }
        Ok(Self {
            agent: agent(ca_file)?,
            endpoint,
            host,
            key_id,
            secret,
        })
    }

    fn send(&self, action: Action, params: Params) -> Result<Answer, Failed> {
        let unreachable = |error: ureq::Error| Failed::Unreachable(error.to_string());
        let request = self.request(action, params)?;
        let mut answer = self.agent.run(request).map_err(unreachable)?;
        let text = answer
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_string()
            .map_err(unreachable)?;
        Ok(Answer {
            status: answer.status().as_u16(),
            text,
        })
    }

    /// Signed with version 3, by the code that the server checks with.
    fn request(&self, action: Action, params: Params) -> Result<Request<Vec<u8>>, Failed> {
        let form = params.canonical();
        // Certificates may make a target longer than is taken.
        let (method, query, body) = match action.is_read() && form.len() <= LONGEST_TARGET {
            true => (Method::GET, params, Vec::new()),
            false => (Method::POST, Params::default(), form.into_bytes()),
        };
        let date = signature::format_date(OffsetDateTime::now_utc());
        let mut nonce = [0; 16];
        rand::fill(&mut nonce)
            .map_err(|_| Failed::Usage("the system's random number generator failed".to_owned()))?;
        let nonce = hex::encode(nonce);
        let payload = signature::sha256_hex(&body);
        let mut headers = vec![
            ("host", self.host.as_str()),
            ("x-acs-action", action.name()),
            ("x-acs-content-sha256", &payload),
            ("x-acs-date", &date),
            ("x-acs-signature-nonce", &nonce),
            ("x-acs-version", action::VERSION),
        ];
        if method == Method::POST {
            headers.insert(0, ("content-type", FORM));
        }
        let text = v3::string_to_sign(method.as_str(), "/", &query, &headers, &payload);
        let signature = signature::Method::V3.sign(&self.secret, &text);
        let authorization = v3::authorization(&self.key_id, &headers, &signature);
        let query = query.canonical();
        let separator = if query.is_empty() { "" } else { "?" };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/{separator}{query}", self.endpoint))
            .header("authorization", authorization);
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        request
            .body(body)
            .map_err(|error| Failed::Usage(format!("the request cannot be made: {error}")))
    }
}

fn send_local(
    path: &Path,
    action: Action,
    mut params: Params,
    crl: Option<Vec<u8>>,
) -> Result<Answer, Failed> {
    params
        .insert("Action".to_owned(), action.name().to_owned())
        .map_err(|error| Failed::Usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::Usage(format!("the call cannot be made: {error}")))?;
    // A form is bounded by the broker as it is from anywhere; a CRL is not.
    let form = params.canonical();
    let (target, content_type, body) = match crl {
        None => ("/".to_owned(), FORM, form.into_bytes()),
        Some(crl) => (format!("/?{form}"), CRL, crl),
    };
    let call = exchange(path, &target, content_type, body);
    let call = async { tokio::time::timeout(LIMIT, call).await };
    match runtime.block_on(call) {
        Ok(answer) => answer.map_err(Failed::Unreachable),
        Err(_) => Err(Failed::Unreachable("it does not answer".to_owned())),
    }
}

async fn exchange(
    path: &Path,
    target: &str,
    content_type: &'static str,
    body: Vec<u8>,
) -> Result<Answer, String> {
    let stream = tokio::net::UnixStream::connect(path)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "only root and the user that the broker runs as may use it; use sudo, or an access key (--key-file)".to_owned()
            }
            _ => error.to_string(),
        })?;
    let cut = |error: hyper::Error| match error.is_incomplete_message() || error.is_closed() {
        // The broker closes at once what comes from another user than its own or root.
        true => {
            "it closed the connection; only root and the user that the broker runs as may use it"
                .to_owned()
        }
        false => error.to_string(),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(cut)?;
    let connection = tokio::spawn(connection);
    let request = Request::post(target)
        .header("host", "localhost")
        .header("content-type", content_type)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(cut)?;
    let status = answer.status().as_u16();
    let limit = usize::try_from(MAX_ANSWER).unwrap_or(usize::MAX);
    let body = Limited::new(answer.into_body(), limit)
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    connection.abort();
    Ok(Answer {
        status,
        text: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    })
}

fn agent(ca_file: Option<&Path>) -> Result<ureq::Agent, ClientError> {
    let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ));
    if let Some(path) = ca_file {
        let unusable = |what: String| usage(format!("{} {what}", path.display()));
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unusable(format!("cannot be read: {error}")))?;
        if certificates.is_empty() {
            return Err(unusable("has no certificate in PEM".to_owned()));
        }
        let roots: Vec<_> = certificates
            .iter()
            .map(|der| Certificate::from_der(der).to_owned())
            .collect();
        tls = tls.root_certs(RootCerts::new_with_certs(&roots));
    }
    Ok(ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_connect(Some(Duration::from_secs(5)))
        .timeout_global(Some(LIMIT))
        .tls_config(tls.build())
        .build()
        .new_agent())
}

/// Scheme with authority, and the authority alone.
fn parse_endpoint(text: &str) -> Result<(String, String), ClientError> {
    let wrong = || {
        usage(format!(
            "the endpoint {text:?} is not of the form http://HOST:PORT or https://HOST:PORT"
        ))
    };
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let uri: Uri = full.parse().map_err(|_| wrong())?;
    let scheme = uri.scheme_str().filter(|it| ["http", "https"].contains(it));
    let plain = uri.path_and_query().is_none_or(|it| it.as_str() == "/");
    match (scheme, uri.authority()) {
        (Some(scheme), Some(authority)) if plain && !authority.as_str().contains('@') => {
            Ok((format!("{scheme}://{authority}"), authority.to_string()))
        }
        _ => Err(wrong()),
    }
}

/// The longest parameters that are sent in the target, in octets.
const LONGEST_TARGET: usize = 4 * 1024;

const FORM: &str = "application/x-www-form-urlencoded";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_a_scheme_and_an_authority() {
        for (text, full, host) in [
            (
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080",
                "127.0.0.1:8080",
            ),
            ("127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://[::1]:8443/", "https://[::1]:8443", "[::1]:8443"),
        ] {
            let parsed = parse_endpoint(text).unwrap();
            assert_eq!(parsed, (full.to_owned(), host.to_owned()));
        }
        for bad in [
            "",
            "ftp://x",
            "http://x/path",
            "http://u:p@x",
            "http://",
            "x y",
        ] {
            assert!(parse_endpoint(bad).is_err(), "{bad}");
        }
    }
}

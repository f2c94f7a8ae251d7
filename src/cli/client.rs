//! The client of the admin API: finds endpoint and key, signs, sends, reads the answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use ureq::http::{Method, Request, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::admin::action::{self, Action};
use crate::admin::errors::Code;
use crate::admin::params::Params;
use crate::admin::signature::{self, v3};
use crate::config::secret::Secret;

/// Where the admin API is, and the key to sign with.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection", after_help = EXIT_CODES)]
pub struct ConnectionArgs {
    /// URL of the admin API [default: `Endpoint` in the key file]
    #[arg(long, global = true, value_name = "URL", env = "PORTCULLIS_ENDPOINT")]
    endpoint: Option<String>,
    /// JSON file with AccessKeyId and AccessKeySecret [default: certs/dev/admin-key.json]
    #[arg(long, global = true, value_name = "FILE", env = "PORTCULLIS_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Instance to administer [default: `MqttInstanceId` in the key file]
    #[arg(long, global = true, value_name = "ID")]
    instance: Option<String>,
    /// PEM file of the CAs that an HTTPS endpoint is trusted by; needed for HTTPS
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Do not ask before something is cut off or deleted
    #[arg(long, short, global = true)]
    yes: bool,
}

/// What scripts can go by.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused by the broker; 2 wrong usage, key file or input; 3 the broker cannot be reached; 4 no such CA, device, session or instance.";

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What was given cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The broker refuses.
    #[error("refused: {code}: {message}{hint} (request id {request_id})")]
    Refused {
        /// The code of the API.
        code: String,
        /// The broker's text.
        message: String,
        /// What to do about it; begins with a space.
        hint: String,
        /// Finds the call in the broker's log.
        request_id: String,
    },
    /// There is no usable answer.
    #[error(
        "the broker at {endpoint} cannot be reached: {what}; is it running, and is the endpoint right (--endpoint, PORTCULLIS_ENDPOINT, or Endpoint in the key file)?"
    )]
    Unreachable {
        /// Where it should be.
        endpoint: String,
        /// What went wrong.
        what: String,
    },
    /// What the command is about does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The operator said no.
    #[error("nothing was changed")]
    Declined,
}

impl ClientError {
    /// The exit code that scripts see; [`EXIT_CODES`] describes them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } => 1,
            Self::Usage(_) | Self::Declined => 2,
            Self::Unreachable { .. } => 3,
            Self::NotFound(_) => 4,
        }
    }

    /// Whether the broker says that what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

/// A way to call the admin API.
pub struct Connection {
    agent: ureq::Agent,
    /// Scheme and authority, without a slash at the end.
    endpoint: String,
    /// The `Host` header: the authority.
    host: String,
    key_id: String,
    secret: Secret,
    instance: Option<String>,
    /// The options to repeat in a command for the same broker; empty, or begins with a space.
    pub(super) options: String,
    /// How results are shown.
    pub(super) output: Output,
    /// Whether to ask before something is cut off.
    pub(super) confirm: Confirm,
}

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Whether to ask before something is cut off or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    /// If there is somebody at the terminal.
    Ask,
    /// No.
    Assume,
}

/// The key file, with the vendor's names.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyFile {
    access_key_id: String,
    access_key_secret: String,
    endpoint: Option<String>,
    mqtt_instance_id: Option<String>,
}

const DEFAULT_KEY_FILE: &str = "certs/dev/admin-key.json";

/// The longest answer: a page of 100 certificates is some 400 KB.
const MAX_ANSWER: u64 = 32 * 1024 * 1024;

impl ConnectionArgs {
    /// Read the key file and make the connection ready. Nothing is sent.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if something is missing or cannot be used.
    pub fn open(&self) -> Result<Connection, ClientError> {
        let path = self
            .key_file
            .as_deref()
            .unwrap_or(Path::new(DEFAULT_KEY_FILE));
        let key = self.read_key(path)?;
        let missing = || {
            usage(format!(
                "{} has no Endpoint; give it there or with --endpoint",
                path.display()
            ))
        };
        let endpoint = self.endpoint.clone().or(key.endpoint).ok_or_else(missing)?;
        let instance = self.instance.clone().or(key.mqtt_instance_id);
        let (endpoint, host) = parse_endpoint(&endpoint)?;
        if endpoint.starts_with("https:") && self.ca_file.is_none() {
            return Err(usage(
                "an HTTPS endpoint needs --ca-file with the CAs it is trusted by; those of the system are often in /etc/ssl/certs/ca-certificates.crt".to_owned(),
            ));
        }
        Ok(Connection {
            agent: self.agent()?,
            endpoint,
            host,
            key_id: key.access_key_id,
            secret: Secret::new(key.access_key_secret),
            instance,
            options: self.options(),
            output: if self.json {
                Output::Json
            } else {
                Output::Text
            },
            confirm: if self.yes {
                Confirm::Assume
            } else {
                Confirm::Ask
            },
        })
    }

    /// The connection options as they were given, for a shell.
    fn options(&self) -> String {
        let path = |path: &PathBuf| path.display().to_string();
        let given = [
            ("--endpoint", self.endpoint.clone()),
            ("--key-file", self.key_file.as_ref().map(path)),
            ("--instance", self.instance.clone()),
            ("--ca-file", self.ca_file.as_ref().map(path)),
        ];
        given
            .into_iter()
            .filter_map(|(name, value)| Some(format!(" {name} {}", quoted(&value?))))
            .collect()
    }

    fn read_key(&self, path: &Path) -> Result<KeyFile, ClientError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let hint = match self.key_file {
                Some(_) => "",
                None => "; name the key file with --key-file or PORTCULLIS_KEY_FILE, or start the broker here once in development mode to make one",
            };
            usage(format!(
                "the key file {} cannot be read: {error}{hint}",
                path.display()
            ))
        })?;
        let text = Secret::new(text);
        // The parser's own message may quote the secret.
        serde_json::from_str(text.reveal()).map_err(|error| {
            usage(format!(
                "the key file {} is not JSON with AccessKeyId and AccessKeySecret (line {}, column {})",
                path.display(),
                error.line(),
                error.column()
            ))
        })
    }

    fn agent(&self) -> Result<ureq::Agent, ClientError> {
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ));
        if let Some(path) = &self.ca_file {
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
            .timeout_global(Some(Duration::from_secs(60)))
            .tls_config(tls.build())
            .build()
            .new_agent())
    }
}

impl Connection {
    /// Call one operation. The instance is added.
    ///
    /// # Errors
    /// If the broker refuses, or cannot be reached.
    pub fn call(&self, action: Action, fields: &[(&str, &str)]) -> Result<Value, ClientError> {
        let mut params = Params::default();
        let instance = match action.instance_parameter() {
            Some(name) => Some((name, self.instance()?)),
            None => None,
        };
        for (name, value) in fields.iter().chain(&instance) {
            params
                .insert((*name).to_owned(), (*value).to_owned())
                .map_err(|error| usage(error.to_string()))?;
        }
        let request = self.request(action, params)?;
        let mut answer = self
            .agent
            .run(request)
            .map_err(|error| self.unreachable(error.to_string()))?;
        let text = answer
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_string()
            .map_err(|error| self.unreachable(error.to_string()))?;
        let body: Value = serde_json::from_str(&text).map_err(|_| {
            self.unreachable(format!(
                "its answer (HTTP status {}) is not the JSON of the admin API",
                answer.status().as_u16()
            ))
        })?;
        // A code on a success is "200", where the vendor has one that is a text.
        let code = body.get("Code").and_then(Value::as_str);
        match code.filter(|code| *code != "200") {
            Some(code) => Err(self.refused(code, &body)),
            None if answer.status().is_success() => Ok(body),
            None => Err(self.unreachable(format!("HTTP status {}", answer.status().as_u16()))),
        }
    }

    /// The instance that is administered.
    ///
    /// # Errors
    /// If none is named.
    pub(super) fn instance(&self) -> Result<&str, ClientError> {
        self.instance.as_deref().ok_or_else(|| {
            usage("name the instance with --instance, or as MqttInstanceId in the key file; `portcullis instance list` shows them".to_owned())
        })
    }

    /// Signed with version 3, by the code that the server checks with.
    fn request(&self, action: Action, params: Params) -> Result<Request<Vec<u8>>, ClientError> {
        let (method, query, body) = match action {
            Action::GetRegisterCode
            | Action::GetCaCertificate
            | Action::ListCaCertificate
            | Action::ListDeviceCertificate
            | Action::ListDeviceCertificateByCaSn
            | Action::GetDeviceCertificate
            | Action::QuerySessionByClientId
            | Action::BatchQuerySessionByClientIds
            | Action::ListSessions
            | Action::ListInstances => (Method::GET, params, Vec::new()),
            Action::RegisterCaCertificate
            | Action::ActiveCaCertificate
            | Action::InactivateCaCertificate
            | Action::DeleteCaCertificate
            | Action::ActiveDeviceCertificate
            | Action::InactivateDeviceCertificate
            | Action::DeleteDeviceCertificate
            | Action::CloseConnection => {
                let form = params.canonical().into_bytes();
                (Method::POST, Params::default(), form)
            }
        };
        let date = signature::format_date(OffsetDateTime::now_utc());
        let mut nonce = [0; 16];
        rand::fill(&mut nonce)
            .map_err(|_| usage("the system's random number generator failed".to_owned()))?;
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
            headers.insert(0, ("content-type", "application/x-www-form-urlencoded"));
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
            .map_err(|error| usage(format!("the request cannot be made: {error}")))
    }

    fn refused(&self, code: &str, body: &Value) -> ClientError {
        let text = |name: &str| printable(body.get(name).and_then(Value::as_str).unwrap_or("?"));
        let message = text("Message");
        let known = Code::ALL.iter().find(|known| known.as_str() == code);
        let hint = match known {
            Some(Code::MqttInstanceNotFound) => {
                return ClientError::NotFound(format!(
                    "the broker at {} has no instance {:?}; name another with --instance",
                    self.endpoint,
                    self.instance.as_deref().unwrap_or_default()
                ));
            }
            Some(Code::FindCaBySnError | Code::FindDeviceBySnError) => {
                return ClientError::NotFound(message);
            }
            Some(Code::AccessKeyNotFound) => {
                " The broker does not know the access key of the key file; give another with --key-file."
            }
            Some(Code::SignatureDoesNotMatch) => {
                return ClientError::Refused {
                    code: code.to_owned(),
                    message: "the signature is not the one the broker expects.".to_owned(),
                    hint: " The AccessKeySecret in the key file is not that of its AccessKeyId."
                        .to_owned(),
                    request_id: text("RequestId"),
                };
            }
            Some(Code::TimeStampExpired) => {
                " The clocks of this host and the broker's differ by more than 15 minutes."
            }
            Some(Code::RegisterCodeUsed | Code::RegisterCodeError) => {
                " Get a new code with `portcullis ca register-code` and sign a new verification certificate."
            }
            Some(Code::MqttOwnerCheckError) => {
                " The access key belongs to another account than the instance."
            }
            _ => "",
        };
        ClientError::Refused {
            code: printable(code),
            message,
            hint: hint.to_owned(),
            request_id: text("RequestId"),
        }
    }

    fn unreachable(&self, what: String) -> ClientError {
        ClientError::Unreachable {
            endpoint: self.endpoint.clone(),
            what,
        }
    }
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

/// The text as a shell takes it.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

pub(super) fn usage(text: String) -> ClientError {
    ClientError::Usage(text)
}

/// Text of the other side, without what would upset a terminal.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

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

    #[test]
    fn options_are_repeated_as_a_shell_takes_them() {
        let arguments = ConnectionArgs {
            endpoint: None,
            key_file: Some("it's here/key.json".into()),
            instance: Some("post-cn-1".to_owned()),
            ca_file: None,
            json: false,
            yes: true,
        };
        assert_eq!(
            arguments.options(),
            r" --key-file 'it'\''s here/key.json' --instance post-cn-1"
        );
    }

    #[test]
    fn broken_key_file_is_named_without_its_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            r#"{"AccessKeyId": "a", "AccessKeySecret": ["hunter2"]}"#,
        )
        .unwrap();
        let arguments = ConnectionArgs {
            endpoint: None,
            key_file: Some(file.path().to_owned()),
            instance: None,
            ca_file: None,
            json: false,
            yes: false,
        };
        let error = arguments.open().err().unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        std::fs::write(
            file.path(),
            r#"{"AccessKeyId": "a", "AccessKeySecret": "s"}"#,
        )
        .unwrap();
        let error = arguments.open().err().unwrap();
        assert!(error.to_string().contains("--endpoint"), "{error}");
    }
}

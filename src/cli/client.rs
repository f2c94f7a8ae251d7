//! The client of the admin API: finds the broker, calls, reads the answer.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::transport::{Remote, Transport};
use crate::admin::action::Action;
use crate::admin::errors::Code;
use crate::admin::params::Params;
use crate::secret::Secret;

/// Where the broker is, and what proves who calls.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "Connection",
    after_help = EXIT_CODES
)]
pub struct ConnectionArgs {
    /// Socket of a broker on this host [env: PORTCULLIS_SOCKET]
    /// [default: data/admin.sock or /var/lib/portcullis/admin.sock, if it is there and nothing
    /// else is said]
    #[arg(long, global = true, value_name = "PATH", conflicts_with_all = ["endpoint", "key_file"])]
    socket: Option<PathBuf>,
    /// URL of the admin API [env: PORTCULLIS_ENDPOINT] [default: `Endpoint` in the key file]
    #[arg(long, global = true, value_name = "URL")]
    endpoint: Option<String>,
    /// JSON file with AccessKeyId and AccessKeySecret [env: PORTCULLIS_KEY_FILE]
    /// [default: certs/dev/admin-key.json]
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Instance to administer [default: `MqttInstanceId` in the key file; over a socket, the only
    /// one there is]
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
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused by the broker; 2 wrong usage, key file or input; 3 the broker cannot be reached; 4 no such CA, CRL, device, key, session or instance; 5 the chain would be refused (explain).";

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
    /// No broker answers on this host.
    #[error(
        "the broker cannot be reached over its socket {endpoint}: {what} (--socket or PORTCULLIS_SOCKET names another one)"
    )]
    NoBrokerHere {
        /// The socket.
        endpoint: String,
        /// What went wrong.
        what: String,
    },
    /// What the command is about does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Administrators would have no way in any more.
    #[error("{0}; nothing was changed; add --force if that is meant")]
    LocksOut(String),
    /// The operator said no.
    #[error("nothing was changed")]
    Declined,
}

impl ClientError {
    /// The exit code that scripts see; [`EXIT_CODES`] describes them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::LocksOut(_) => 1,
            Self::Usage(_) | Self::Declined => 2,
            Self::Unreachable { .. } | Self::NoBrokerHere { .. } => 3,
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
    transport: Transport,
    /// `None`: the only one there is.
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

/// Who proves a caller to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The kernel of this host: an administrator of the host.
    Host,
    /// A signature.
    Key,
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

/// Looked at in this order: the development mode's, and that of an installed broker.
const DEFAULT_SOCKETS: &[&str] = &["data/admin.sock", "/var/lib/portcullis/admin.sock"];

/// What the environment says where no option does.
#[derive(Default)]
struct Surroundings {
    socket: Option<PathBuf>,
    endpoint: Option<String>,
    key_file: Option<PathBuf>,
    default_socket: Option<PathBuf>,
}

impl Surroundings {
    fn look() -> Self {
        let path = |name| std::env::var_os(name).filter(|it| !it.is_empty());
        Self {
            socket: path("PORTCULLIS_SOCKET").map(PathBuf::from),
            endpoint: std::env::var("PORTCULLIS_ENDPOINT")
                .ok()
                .filter(|it| !it.is_empty()),
            key_file: path("PORTCULLIS_KEY_FILE").map(PathBuf::from),
            default_socket: DEFAULT_SOCKETS
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists()),
        }
    }

    /// The socket to use, if it is to be one. What is said goes over what is found, and an option
    /// over the environment.
    fn socket(&self, options: &ConnectionArgs) -> Option<PathBuf> {
        if options.socket.is_some() {
            return options.socket.clone();
        }
        if options.endpoint.is_some() || options.key_file.is_some() {
            return None;
        }
        if self.socket.is_some() {
            return self.socket.clone();
        }
        if self.endpoint.is_some() || self.key_file.is_some() {
            return None;
        }
        self.default_socket.clone()
    }
}

impl ConnectionArgs {
    /// Find the broker and read the key file, if one is needed. Nothing is sent.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if something is missing or cannot be used.
    pub fn open(&self) -> Result<Connection, ClientError> {
        self.open_in(&Surroundings::look())
    }

    fn open_in(&self, around: &Surroundings) -> Result<Connection, ClientError> {
        let (transport, instance) = match around.socket(self) {
            Some(path) => (Transport::Local(path), self.instance.clone()),
            None => {
                let (remote, instance) = self.remote(around)?;
                (Transport::Remote(Box::new(remote)), instance)
            }
        };
        Ok(Connection {
            transport,
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

    fn remote(&self, around: &Surroundings) -> Result<(Remote, Option<String>), ClientError> {
        let path = self.key_file.as_deref().or(around.key_file.as_deref());
        let key = read_key(path)?;
        let path = path.unwrap_or(Path::new(DEFAULT_KEY_FILE));
        let missing = || {
            usage(format!(
                "{} has no Endpoint; give it there or with --endpoint",
                path.display()
            ))
        };
        let endpoint = self
            .endpoint
            .clone()
            .or_else(|| around.endpoint.clone())
            .or(key.endpoint)
            .ok_or_else(missing)?;
        let instance = self.instance.clone().or(key.mqtt_instance_id);
        let secret = Secret::new(key.access_key_secret);
        let ca_file = self.ca_file.as_deref();
        let remote = Remote::new(&endpoint, key.access_key_id, secret, ca_file)?;
        Ok((remote, instance))
    }

    /// The connection options as they were given, for a shell.
    fn options(&self) -> String {
        let path = |path: &PathBuf| path.display().to_string();
        let given = [
            ("--socket", self.socket.as_ref().map(path)),
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
}

fn read_key(given: Option<&Path>) -> Result<KeyFile, ClientError> {
    let path = given.unwrap_or(Path::new(DEFAULT_KEY_FILE));
    let text = std::fs::read_to_string(path).map_err(|error| {
        let hint = match given {
            Some(_) => "",
            None => "; is a broker running here? Name its socket with --socket, or a key file with --key-file",
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

impl Connection {
    /// Who proves this caller to the broker.
    pub(super) fn proof(&self) -> Proof {
        match self.transport {
            Transport::Local(_) => Proof::Host,
            Transport::Remote(_) => Proof::Key,
        }
    }

    /// The instance that calls are about, if it was named. Over a socket it need not be, if there
    /// is but one.
    pub(super) fn named_instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// The instance to name in a call.
    ///
    /// # Errors
    /// If it has to be named and is not.
    fn instance(&self) -> Result<Option<&str>, ClientError> {
        match (&self.instance, self.proof()) {
            (Some(instance), _) => Ok(Some(instance)),
            (None, Proof::Host) => Ok(None),
            (None, Proof::Key) => Err(usage(format!(
                "name the instance with --instance, or as MqttInstanceId in the key file; `portcullis instance list{}` shows them",
                self.options
            ))),
        }
    }

    /// Call one operation. The instance is added where it is known.
    ///
    /// # Errors
    /// If the broker refuses, or cannot be reached.
    pub fn call(&self, action: Action, fields: &[(&str, &str)]) -> Result<Value, ClientError> {
        self.call_with(action, fields, None)
    }

    /// The same with a CRL, which may be large over a socket.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(super) fn call_with(
        &self,
        action: Action,
        fields: &[(&str, &str)],
        crl: Option<Vec<u8>>,
    ) -> Result<Value, ClientError> {
        let mut params = Params::default();
        let instance = match action.instance_parameter() {
            Some(name) => self.instance()?.map(|instance| (name, instance)),
            None => None,
        };
        for (name, value) in fields.iter().copied().chain(instance) {
            params
                .insert(name.to_owned(), value.to_owned())
                .map_err(|error| usage(error.to_string()))?;
        }
        let answer = self.transport.send(action, params, crl)?;
        let body: Value = serde_json::from_str(&answer.text).map_err(|_| {
            self.transport.unreachable(format!(
                "its answer (HTTP status {}) is not the JSON of the admin API",
                answer.status
            ))
        })?;
        // A code on a success is "200", where the vendor has one that is a text.
        let code = body.get("Code").and_then(Value::as_str);
        match code.filter(|code| *code != "200") {
            Some(code) => Err(self.refused(code, &body)),
            None if (200..300).contains(&answer.status) => Ok(body),
            None => Err(self
                .transport
                .unreachable(format!("HTTP status {}", answer.status))),
        }
    }

    fn refused(&self, code: &str, body: &Value) -> ClientError {
        let text = |name: &str| printable(body.get(name).and_then(Value::as_str).unwrap_or("?"));
        let message = text("Message");
        let known = Code::ALL.iter().find(|known| known.as_str() == code);
        let hint: Cow<'static, str> = match known {
            Some(Code::MqttInstanceNotFound) => {
                return ClientError::NotFound(format!(
                    "the broker at {} has no instance {:?}; name another with --instance",
                    self.transport.place(),
                    self.instance.as_deref().unwrap_or_default()
                ));
            }
            Some(Code::ParameterFieldCheckFailed)
                if self.instance.is_none() && message.contains("InstanceId is missing") =>
            {
                return usage(
                    "the broker has several instances; say which with --instance".to_owned(),
                );
            }
            Some(Code::AccessKeyNotFound) if self.proof() == Proof::Host => {
                return ClientError::NotFound(message);
            }
            Some(
                Code::FindCaBySnError
                | Code::FindDeviceBySnError
                | Code::CrlNotFound
                | Code::ScheduleNotFound,
            ) => {
                return ClientError::NotFound(message);
            }
            Some(Code::AccessKeyNotFound) => {
                " The broker does not know the access key of the key file; give another with --key-file.".into()
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
                " The clocks of this host and the broker's differ by more than 15 minutes.".into()
            }
            Some(Code::RegisterCodeUsed | Code::RegisterCodeError) => format!(
                " Get a new code with `portcullis ca register-code{}` and sign a new verification certificate.",
                self.options
            )
            .into(),
            Some(Code::MqttOwnerCheckError) => {
                " The access key belongs to another account than the instance.".into()
            }
            _ => "".into(),
        };
        ClientError::Refused {
            code: printable(code),
            message,
            hint: hint.into_owned(),
            request_id: text("RequestId"),
        }
    }
}

/// The text of a file that was named on the command line.
///
/// # Errors
/// [`ClientError::Usage`] if it cannot be read.
pub(super) fn read_file(path: &Path) -> Result<String, ClientError> {
    std::fs::read_to_string(path)
        .map_err(|error| usage(format!("{} cannot be read: {error}", path.display())))
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
    fn options_are_repeated_as_a_shell_takes_them() {
        let arguments = ConnectionArgs {
            key_file: Some("it's here/key.json".into()),
            instance: Some("post-cn-1".to_owned()),
            yes: true,
            ..ConnectionArgs::default()
        };
        assert_eq!(
            arguments.options(),
            r" --key-file 'it'\''s here/key.json' --instance post-cn-1"
        );
    }

    #[test]
    fn what_is_said_goes_over_what_is_found() {
        let around = |socket: Option<&str>, key_file: Option<&str>| Surroundings {
            socket: socket.map(PathBuf::from),
            key_file: key_file.map(PathBuf::from),
            default_socket: Some("found".into()),
            ..Surroundings::default()
        };
        let nothing = ConnectionArgs::default();
        let named = |path: &str| Some(PathBuf::from(path));
        assert_eq!(around(None, None).socket(&nothing), named("found"));
        assert_eq!(around(None, Some("k")).socket(&nothing), None);
        assert_eq!(around(Some("s"), Some("k")).socket(&nothing), named("s"));
        let key = ConnectionArgs {
            key_file: named("k"),
            ..ConnectionArgs::default()
        };
        assert_eq!(around(Some("s"), None).socket(&key), None);
        let socket = ConnectionArgs {
            socket: named("t"),
            ..ConnectionArgs::default()
        };
        assert_eq!(around(Some("s"), Some("k")).socket(&socket), named("t"));
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
            key_file: Some(file.path().to_owned()),
            ..ConnectionArgs::default()
        };
        let open = || arguments.open_in(&Surroundings::default()).err().unwrap();
        let error = open();
        assert_eq!(error.exit_code(), 2);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        std::fs::write(
            file.path(),
            r#"{"AccessKeyId": "a", "AccessKeySecret": "s"}"#,
        )
        .unwrap();
        let error = open();
        assert!(error.to_string().contains("--endpoint"), "{error}");
    }
}

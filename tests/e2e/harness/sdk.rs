//! The vendor's unmodified SDKs, each as a subprocess with JSON in and out.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use super::api::Api;
use super::broker::INSTANCE;
use super::{Broker, DEADLINE};

/// Which SDK makes the calls, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Python, the current SDK, blocking: `POST` with everything in the query, signature 3.
    Sync,
    /// The same, asynchronous.
    Async,
    /// The same, blocking, told to sign with version 1.
    SyncV1,
    /// Python, the older core: `CommonRequest`, everything in the query.
    CoreGet,
    CorePost,
    /// The same, half of the parameters in the body.
    CoreForm,
    /// Python, the older core: a typed request.
    CoreTyped,
    /// Node, the older core: everything in the query.
    PopGet,
    /// The same, everything in the body.
    PopPost,
    /// Node, the current core: signature 3.
    OpenApi,
}

impl Style {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Sync,
        Self::Async,
        Self::SyncV1,
        Self::CoreGet,
        Self::CorePost,
        Self::CoreForm,
        Self::CoreTyped,
        Self::PopGet,
        Self::PopPost,
        Self::OpenApi,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Sync => "python",
            Self::Async => "python_async",
            Self::SyncV1 => "python_v1",
            Self::CoreGet => "core_get",
            Self::CorePost => "core_post",
            Self::CoreForm => "core_form",
            Self::CoreTyped => "core_typed",
            Self::PopGet => "pop_get",
            Self::PopPost => "pop_post",
            Self::OpenApi => "openapi",
        }
    }

    /// Whether it is the current Python SDK, whose exceptions tell more.
    pub fn is_current_python(self) -> bool {
        matches!(self, Self::Sync | Self::Async | Self::SyncV1)
    }

    /// The driver with the program that runs it.
    fn command(self) -> Command {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let (program, driver) = match self {
            Self::PopGet | Self::PopPost | Self::OpenApi => {
                let installed = tests.join("node/node_modules");
                assert!(installed.exists(), "no Node packages: run tests/run once");
                (PathBuf::from("node"), "node/sdk.js")
            }
            _ => {
                let python = tests.join(".venv/bin/python");
                assert!(python.exists(), "no Python environment: run tests/run once");
                (python, "python/sdk.py")
            }
        };
        let mut command = Command::new(program);
        command.arg(tests.join(driver));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env_remove(name);
        }
        command
    }
}

/// Where the SDK is told which CA it may trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nowhere: it has the CAs that it comes with.
    Default,
    /// In the configuration of the client.
    Config,
    /// In the options of each call.
    Runtime,
}

/// Whatever makes calls: an SDK, or this harness by itself.
///
/// An outcome is `{"ok": BODY, "status": N}` or `{"error": {"code", "status", "message",
/// "request_id", "kind", ...}}`. Calls are about [`INSTANCE`] unless the arguments name another,
/// or `null` for none.
pub trait Caller {
    /// Make these calls, one after the other.
    fn calls(&self, calls: &[(&str, Value)]) -> Vec<Value>;

    /// Make one call.
    fn call(&self, operation: &str, arguments: Value) -> Value {
        self.calls(&[(operation, arguments)]).remove(0)
    }

    /// Make one call that must succeed; gives its body.
    #[track_caller]
    fn ok(&self, operation: &str, arguments: Value) -> Value {
        let answer = self.call(operation, arguments);
        assert!(answer["ok"].is_object(), "{operation}: {answer}");
        assert_eq!(answer["status"], 200, "{operation}: {answer}");
        // Some clients take any other code, whatever the status, for a failure.
        let code = &answer["ok"]["Code"];
        assert!(
            code.is_null() || *code == 200 || *code == "200",
            "{operation}: {answer}"
        );
        answer["ok"].clone()
    }

    /// Make one call that must fail; gives the error.
    #[track_caller]
    fn error(&self, operation: &str, arguments: Value) -> Value {
        let answer = self.call(operation, arguments);
        assert!(answer["error"].is_object(), "{operation}: {answer}");
        answer["error"].clone()
    }
}

/// One client of an SDK. Its process starts with the first call; what is set before counts.
pub struct Sdk {
    pub style: Style,
    pub api: Api,
    /// Host and port, or a URL.
    pub endpoint: String,
    pub trust: Trust,
    /// Attempts that the client's own retry options allow; 0 is none.
    pub retries: u32,
    /// Header fields that the SDK is told to send, and signs.
    pub headers: Map<String, Value>,
    protocol: &'static str,
    ca: PathBuf,
    driver: Mutex<Option<Driver>>,
}

impl Sdk {
    /// With the access key of the broker's owner. Over HTTPS it trusts the broker's CA.
    pub fn new(broker: &Broker, style: Style) -> Self {
        Self {
            style,
            api: broker.api(),
            endpoint: broker.admin.to_string(),
            trust: match broker.scheme {
                "https" => Trust::Config,
                _ => Trust::Default,
            },
            retries: 0,
            headers: Map::new(),
            protocol: broker.scheme,
            ca: broker.cert("server-ca.pem"),
            driver: Mutex::new(None),
        }
    }

    /// Make these calls at once.
    pub fn at_once(&self, calls: &[(&str, Value)]) -> Vec<Value> {
        let calls = calls.iter().map(|(name, given)| asked(name, given));
        match self.ask(&Value::Array(calls.collect())) {
            Value::Array(answers) => answers,
            other => panic!("{other}"),
        }
    }

    fn ask(&self, line: &Value) -> Value {
        let mut driver = self.driver.lock().unwrap();
        driver
            .get_or_insert_with(|| Driver::start(&mut self.style.command(), &self.job()))
            .ask(line)
    }

    fn job(&self) -> Value {
        let ca = |trust| (self.trust == trust).then_some(&self.ca);
        json!({
            "client": self.style.name(),
            "endpoint": self.endpoint,
            "protocol": self.protocol,
            "access_key_id": self.api.key_id,
            "access_key_secret": self.api.secret,
            "ca_in_config": ca(Trust::Config),
            "ca_in_runtime": ca(Trust::Runtime),
            "retries": self.retries,
            "headers": self.headers,
        })
    }
}

impl Caller for Sdk {
    fn calls(&self, calls: &[(&str, Value)]) -> Vec<Value> {
        let ask = |(name, given): &(&str, Value)| self.ask(&asked(name, given));
        calls.iter().map(ask).collect()
    }
}

fn asked(operation: &str, arguments: &Value) -> Value {
    let arguments = match operation {
        "ListInstances" => arguments.clone(),
        "CloseConnection" | "QuerySessionByClientId" | "BatchQuerySessionByClientIds" => {
            let mut all = json!({"InstanceId": INSTANCE});
            for (name, value) in arguments.as_object().unwrap() {
                all[name] = value.clone();
            }
            all
        }
        _ => with_instance(arguments),
    };
    json!({"operation": operation, "arguments": arguments})
}

/// The arguments with the usual instance, if they name none; those that are `null` are left out.
pub fn with_instance(arguments: &Value) -> Value {
    let mut all = json!({"MqttInstanceId": INSTANCE});
    for (name, value) in arguments.as_object().unwrap() {
        all[name] = value.clone();
    }
    all.as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    all
}

/// A driver's process; ended when dropped.
pub(super) struct Driver {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
    complaints: Arc<Mutex<String>>,
}

impl Driver {
    pub(super) fn start(command: &mut Command, job: &Value) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run tests/run once"));
        let (answer, answers) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = answer.send(line);
            }
        });
        let complaints = Arc::new(Mutex::new(String::new()));
        let (heard, mut stderr) = (complaints.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut octets) {
                let text = String::from_utf8_lossy(&octets[..count]);
                heard.lock().unwrap().push_str(&text);
            }
        });
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{job}").unwrap();
        Self {
            child,
            stdin,
            answers,
            complaints,
        }
    }

    pub(super) fn ask(&mut self, line: &Value) -> Value {
        let sent = writeln!(self.stdin, "{line}");
        match self.answers.recv_timeout(2 * DEADLINE) {
            Ok(answer) => serde_json::from_str(&answer).unwrap(),
            Err(error) => {
                let complaints = self.complaints.lock().unwrap();
                panic!("the SDK's process gives no answer: {error}, {sent:?}\n{complaints}")
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

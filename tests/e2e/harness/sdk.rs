//! The vendor's unmodified Python SDK, as a subprocess with JSON in and out.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Broker;
use super::api::Api;
use super::broker::INSTANCE;

/// Whether the SDK's blocking or its asynchronous calls are used.
#[derive(Debug, Clone, Copy)]
pub enum Style {
    Sync,
    Async,
}

/// One process of the SDK for a list of calls.
pub struct Sdk<'a> {
    pub broker: &'a Broker,
    pub style: Style,
    pub api: Api,
}

impl<'a> Sdk<'a> {
    /// With the development access key.
    pub fn new(broker: &'a Broker, style: Style) -> Self {
        Self {
            broker,
            style,
            api: broker.api(),
        }
    }

    /// Make these calls, one after the other: `{"ok": BODY}` or `{"error": {...}}` of each.
    pub fn calls(&self, calls: &[(&str, Value)]) -> Vec<Value> {
        let calls: Vec<_> = calls
            .iter()
            .map(|(operation, arguments)| {
                let mut arguments = arguments.clone();
                if let Some(name) = instance_parameter(operation) {
                    arguments[name] = json!(INSTANCE);
                }
                json!({"operation": operation, "arguments": arguments})
            })
            .collect();
        let input = json!({
            "endpoint": self.broker.admin.to_string(),
            "access_key_id": self.api.key_id,
            "access_key_secret": self.api.secret,
            "style": match self.style { Style::Sync => "sync", Style::Async => "async" },
            "calls": calls,
        });
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let python = tests.join(".venv/bin/python");
        assert!(
            python.exists(),
            "the Python environment is missing: run tests/run once"
        );
        let mut command = Command::new(python);
        command.arg(tests.join("python/sdk.py"));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env_remove(name);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "the SDK's process failed");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Make one call that must succeed; gives its body.
    #[track_caller]
    pub fn ok(&self, operation: &str, arguments: Value) -> Value {
        let answer = self.calls(&[(operation, arguments)]).remove(0);
        assert!(answer["ok"].is_object(), "{operation}: {answer}");
        answer["ok"].clone()
    }

    /// Make one call that must fail; gives `{code, status, message, request_id, kind}`.
    #[track_caller]
    pub fn error(&self, operation: &str, arguments: Value) -> Value {
        let answer = self.calls(&[(operation, arguments)]).remove(0);
        assert!(answer["error"].is_object(), "{operation}: {answer}");
        answer["error"].clone()
    }
}

/// What the operation calls the instance.
fn instance_parameter(operation: &str) -> Option<&'static str> {
    match operation {
        "ListInstances" => None,
        "CloseConnection" | "QuerySessionByClientId" | "BatchQuerySessionByClientIds" => {
            Some("instance_id")
        }
        _ => Some("mqtt_instance_id"),
    }
}

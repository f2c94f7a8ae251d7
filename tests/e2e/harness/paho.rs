//! MQTT clients that are the unmodified paho, in one process.

use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use super::Broker;
use super::clients::Clients;

/// A process of clients, named as the scenario likes.
pub struct Paho(Clients);

impl Paho {
    /// Clients with the certificate of this development device.
    pub fn start(broker: &Broker, device: &str) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let python = tests.join(".venv/bin/python");
        assert!(python.exists(), "no Python environment: run tests/run once");
        let mut command = Command::new(python);
        command.arg(tests.join("python/mqtt.py"));
        Self(Clients::start(&mut command, broker, device))
    }
}

impl Deref for Paho {
    type Target = Clients;
    fn deref(&self) -> &Clients {
        &self.0
    }
}

//! MQTT clients that are the unmodified MQTT.js, in one process.

use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use super::Broker;
use super::clients::Clients;

/// A process of clients, named as the scenario likes.
pub struct MqttJs(Clients);

impl MqttJs {
    /// Clients with the certificate of this development device.
    pub fn start(broker: &Broker, device: &str) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let installed = tests.join("node/node_modules/mqtt");
        assert!(installed.exists(), "no MQTT.js: run tests/run once");
        let mut command = Command::new("node");
        command.arg(tests.join("node/mqtt.js"));
        Self(Clients::start(&mut command, broker, device))
    }
}

impl Deref for MqttJs {
    type Target = Clients;
    fn deref(&self) -> &Clients {
        &self.0
    }
}

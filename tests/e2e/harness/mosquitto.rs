//! The real `mosquitto_pub`, `mosquitto_sub` and `mosquitto_rr`.

use std::process::Command;

use super::Broker;
use super::process::{Finished, Process};

/// The protocol version to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    V311,
    V5,
}

/// Both, for scenarios that hold in either.
pub const BOTH: [Protocol; 2] = [Protocol::V311, Protocol::V5];

impl Protocol {
    fn argument(self) -> &'static str {
        match self {
            Self::V311 => "311",
            Self::V5 => "5",
        }
    }
}

/// A device of the development certificates that uses mosquitto's tools.
pub struct Mosquitto<'a> {
    broker: &'a Broker,
    device: &'a str,
    protocol: Protocol,
}

impl Broker {
    /// mosquitto's tools as this development device, MQTT 3.1.1.
    pub fn mosquitto<'a>(&'a self, device: &'a str) -> Mosquitto<'a> {
        self.mosquitto_in(device, Protocol::V311)
    }

    /// mosquitto's tools as this development device.
    pub fn mosquitto_in<'a>(&'a self, device: &'a str, protocol: Protocol) -> Mosquitto<'a> {
        Mosquitto {
            broker: self,
            device,
            protocol,
        }
    }
}

impl Mosquitto<'_> {
    /// Run `mosquitto_pub` to its end.
    pub fn publish(&self, arguments: &[&str]) -> Finished {
        Process::spawn(self.command("mosquitto_pub").args(arguments)).finish()
    }

    /// Run `mosquitto_pub` to its end and check that it succeeded.
    #[track_caller]
    pub fn publish_ok(&self, arguments: &[&str]) {
        let finished = self.publish(arguments);
        assert_eq!(finished.code, 0, "{finished:?}");
    }

    /// Start `mosquitto_rr`, which prints the answer it gets and ends.
    pub fn request(&self, arguments: &[&str]) -> Process {
        Process::spawn(self.command("mosquitto_rr").args(arguments))
    }

    /// Start `mosquitto_sub` and wait for its SUBACK. Messages are printed as
    /// `message:TOPIC|QOS|RETAIN|PAYLOAD`.
    pub fn subscribe(&self, arguments: &[&str]) -> Subscriber {
        let subscriber = self.start_subscriber(arguments);
        subscriber
            .process
            .wait_stdout("SUBACK", |line| line.contains("SUBACK").then_some(()));
        subscriber
    }

    /// Subscribe, and leave in order once the SUBACK is there. (A signal is no way to say so:
    /// mosquitto_sub handles it in the middle of whatever it does, and may hang.)
    #[track_caller]
    pub fn subscribe_and_leave(&self, arguments: &[&str]) {
        let arguments = [&["-E"], arguments].concat();
        let finished = self.start_subscriber(&arguments).process.finish();
        assert_eq!(finished.code, 0, "{finished:?}");
    }

    /// Start `mosquitto_sub`, whatever becomes of it.
    pub fn start_subscriber(&self, arguments: &[&str]) -> Subscriber {
        let mut command = self.command("mosquitto_sub");
        command
            .args(["-d", "-F", "message:%t|%q|%r|%p"])
            .args(arguments);
        Subscriber {
            process: Process::spawn(&mut command),
        }
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new("stdbuf");
        let file = |ending: &str| self.broker.cert(&format!("{}.{ending}", self.device));
        command
            .args(["-oL", tool])
            .args([
                "-h",
                "localhost",
                "-p",
                &self.broker.mqtt.port().to_string(),
            ])
            .arg("--cafile")
            .arg(self.broker.cert("server-ca.pem"))
            .arg("--cert")
            .arg(file("pem"))
            .arg("--key")
            .arg(file("key"))
            .args(["-V", self.protocol.argument()]);
        command
    }
}

/// A `mosquitto_sub` that has its subscription.
pub struct Subscriber {
    pub process: Process,
}

impl Subscriber {
    /// Wait until `count` messages came; gives all of them as `TOPIC|QOS|RETAIN|PAYLOAD`.
    pub fn wait_messages(&self, count: usize) -> Vec<String> {
        let lines = self
            .process
            .wait_stdout_lines("messages", count, |line| line.starts_with("message:"));
        lines
            .iter()
            .map(|line| line["message:".len()..].to_owned())
            .collect()
    }

    /// Wait for one message with this payload.
    pub fn wait_payload(&self, payload: &str) -> String {
        let wanted = format!("|{payload}");
        self.process.wait_stdout(payload, |line| {
            let message = line.strip_prefix("message:")?;
            message.ends_with(&wanted).then(|| message.to_owned())
        })
    }
}

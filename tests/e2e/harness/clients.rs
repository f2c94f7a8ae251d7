//! MQTT clients of an unmodified library, several in one process of its own.
//!
//! Properties have the names that paho gives them, whatever the library.

use std::cell::RefCell;
use std::process::Command;

use serde_json::{Value, json};

use super::Broker;
use super::sdk::Driver;

/// A process of clients, named as the scenario likes.
pub struct Clients {
    driver: RefCell<Driver>,
}

impl Clients {
    /// Start this driver of a library; its clients have the certificate of this development device.
    pub fn start(command: &mut Command, broker: &Broker, device: &str) -> Self {
        let job = json!({
            "host": "localhost",
            "port": broker.mqtt.port(),
            "ca": broker.cert("server-ca.pem"),
            "cert": broker.cert(&format!("{device}.pem")),
            "key": broker.cert(&format!("{device}.key")),
        });
        Self {
            driver: RefCell::new(Driver::start(command, &job)),
        }
    }

    /// Have a client do something that must work; gives what came of it.
    #[track_caller]
    pub fn ask(&self, client: &str, action: &str, mut given: Value) -> Value {
        given["client"] = client.into();
        given["do"] = action.into();
        let answer = self.driver.borrow_mut().ask(&given);
        assert!(answer["error"].is_null(), "{given}: {answer}");
        answer["ok"].clone()
    }

    /// Connect a client, which must be accepted.
    #[track_caller]
    pub fn connect(&self, client: &str, mut given: Value) -> Value {
        given["id"] = client.into();
        let answer = self.ask(client, "connect", given);
        assert_eq!(answer["code"], 0, "{answer}");
        answer
    }

    /// Subscribe to one filter; gives its reason code.
    #[track_caller]
    pub fn subscribe(&self, client: &str, filter: &str, options: Value) -> Value {
        let given = json!({"filters": [[filter, options]]});
        self.ask(client, "subscribe", given)["codes"][0].clone()
    }

    /// Publish with QoS 1 and wait for the acknowledgement; gives its reason code.
    #[track_caller]
    pub fn publish(&self, client: &str, topic: &str, payload: &str, mut given: Value) -> Value {
        given["topic"] = topic.into();
        given["payload"] = payload.into();
        self.ask(client, "publish", given)["code"].clone()
    }

    /// Wait for so many messages.
    #[track_caller]
    pub fn receive(&self, client: &str, count: usize) -> Vec<Value> {
        let given = json!({"count": count});
        let messages = self.ask(client, "receive", given);
        messages.as_array().unwrap().clone()
    }
}

/// The payloads of these messages.
pub fn payloads(messages: &[Value]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message["payload"].as_str().unwrap())
        .collect()
}

//! What the scenarios stand on: the broker as a process, and clients with deadlines.

pub mod api;
pub mod broker;
pub mod clients;
pub mod configured;
pub mod fleet;
pub mod mosquitto;
pub mod mqtt;
pub mod mqtt_js;
pub mod paho;
pub mod pki;
pub mod process;
pub mod rumqttc;
pub mod sdk;
pub mod tls;
pub mod websocket;
pub mod wire;

use std::time::{Duration, Instant};

pub use broker::Broker;
pub use tls::{End, Version};

/// How long anything may take before the scenario fails. Long, for machines under load; nothing
/// waits for it unless it fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const TICK: Duration = Duration::from_millis(10);

/// Wait until `ready` gives something.
///
/// # Panics
/// If it does not within [`DEADLINE`].
pub fn wait_until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::sleep(TICK);
    }
}

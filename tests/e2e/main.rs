//! End-to-end scenarios: the program as it is shipped, real TLS, real clients.
//!
//! Each scenario starts its own broker on ports that the system picks, so all of them can run
//! at once. `tests/run` installs what they need (mosquitto's clients, the vendor's Python SDK).

// The lint configuration allows these in functions marked `#[test]`; helpers are not marked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod harness;

mod access;
mod audit;
mod chains;
mod cli;
mod control_channel;
mod documents;
mod durability;
mod expiry;
mod floods;
mod gate;
mod host_door;
mod http;
mod in_flight;
mod instances;
mod mqtt_basics;
mod mqtt_sessions;
mod proxies;
mod registering;
mod resumption;
mod sdk;
mod server_names;
mod silence;
mod startup;
mod websocket;

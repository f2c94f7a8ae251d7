//! End-to-end scenarios: the program as it is shipped, real TLS, real clients.
//!
//! Each scenario starts its own broker on ports that the system picks, so all of them can run
//! at once. `tests/run` installs what they need (mosquitto's clients, paho, the vendor's SDKs).

// The lint configuration allows these in functions marked `#[test]`; helpers are not marked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod harness;

mod access;
mod access_rules;
mod algorithms;
mod audit;
mod audit_forward;
mod chains;
mod cli;
mod control_channel;
mod crl;
mod crl_cli;
mod crl_files;
mod crl_large;
mod documents;
mod durability;
mod expiry;
mod explain;
mod floods;
mod gate;
mod generated;
mod host_door;
mod http;
mod impact;
mod in_flight;
mod instances;
mod life_cycle;
mod lockout;
mod many_topics;
mod mqtt_basics;
mod mqtt_conformance;
mod mqtt_conformance_js;
mod mqtt_conformance_rumqttc;
mod mqtt_sessions;
mod ordering;
mod pace;
mod persistence;
mod proxies;
mod registering;
mod replay;
mod requests;
mod resumption;
mod schedules;
mod sdk;
mod sdk_errors;
mod sdk_refusals;
mod second_opinion;
mod server_names;
mod sessions_api;
mod sessions_cli;
mod signatures;
mod silence;
mod soak;
mod startup;
mod sys;
mod sys_figures;
mod tampering;
mod throttling;
mod unfit;
mod websocket;
mod wrong_packets;

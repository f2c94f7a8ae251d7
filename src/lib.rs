//! A TLS MQTT broker, and a rustls client verifier, whose gate is the certificate authority.

pub mod admin;
pub mod app;
pub mod audit;
pub mod ca;
pub mod cli;
pub mod config;
pub mod control;
pub mod mqtt;
pub mod secret;
pub mod store;
pub mod telemetry;
pub mod tls;

mod parallel;

#[cfg(test)]
mod testing;

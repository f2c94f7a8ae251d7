//! The HTTP face: the certificate operations of ApsaraMQ for MQTT, health and metrics.
//!
//! A request comes through [`server`] and [`router`], is proved by [`signature`], and is carried
//! out by [`service`] over [`operations`]. A command from inside the broker ([`command`]) goes
//! the same way from [`service`] on, and so does an administrator on the host ([`local`]).

mod access_keys;
pub mod action;
pub mod command;
pub mod errors;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod local;
pub mod metrics;
pub mod operations;
pub mod params;
pub mod rate_limit;
pub mod router;
pub mod server;
pub mod service;
pub mod signature;
#[cfg(test)]
mod tests;
pub mod types;
mod worded;

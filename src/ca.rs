//! The core: what a CA certificate, a device certificate and their states are, which change is
//! allowed, which path is acceptable. No I/O, no clock, no random source: the time is an argument.

pub(crate) mod by_digest;
pub mod certificate;
pub mod crl;
pub mod error;
pub mod explain;
pub mod id;
pub mod lifecycle;
pub mod names;
pub mod outlook;
pub mod path;
pub mod registry;
pub mod topology;

#[cfg(test)]
mod tests;

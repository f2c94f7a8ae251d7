//! The core: what a CA certificate, a device certificate and their states are, which change is
//! allowed, which path is acceptable. No I/O, no clock, no random source.

pub mod id;
pub mod lifecycle;

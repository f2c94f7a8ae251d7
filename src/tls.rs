//! TLS in front of the broker: the verifier, the acceptor, the choice of the gate by server name,
//! and the peers that are connected.

pub mod acceptor;
pub mod gates;
pub mod hello;
pub mod live;
pub mod peer;
pub mod report;
pub mod server_config;
pub mod verifier;

#[cfg(test)]
mod tests;

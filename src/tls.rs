//! TLS in front of the broker: the verifier, the acceptor, and the peers that are connected.

pub mod acceptor;
pub mod live;
pub mod peer;
pub mod server_config;
pub mod verifier;

#[cfg(test)]
mod tests;

//! The session layer: what MQTT says a server does, over a bus that carries frames between shards.
//!
//! A connection belongs to a session, a session to a shard. [`listener`] accepts, [`websocket`]
//! takes what is in frames out of them, [`connection`] moves octets, [`session`] knows the
//! protocol, [`registry`] knows the sessions, [`shard`] gives them what the [`bus`] delivers,
//! [`hub`] is what a broker consists of, [`sys`] is what it tells operators.

pub mod access;
pub mod broker;
pub mod bus;
pub mod connection;
pub mod control_channel;
pub mod frame;
pub mod hub;
pub mod identity;
pub mod listener;
pub mod metrics;
pub mod persist;
pub mod registry;
pub mod retained;
pub mod session;
mod sessions;
pub mod settings;
pub mod shard;
pub mod shared;
pub mod sys;
pub mod topics;
pub mod websocket;
pub mod wire;

pub use broker::Broker;
pub use settings::Settings;

//! The session layer: what MQTT says a server does, over a bus that carries frames between shards.

pub mod bus;
pub mod control_channel;
pub mod retained;
pub mod shared;
pub mod topics;

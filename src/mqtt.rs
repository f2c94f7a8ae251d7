//! The session layer: what MQTT says a server does, over a bus that carries frames between shards.

pub mod control_channel;

//! How the bus is built.

use std::time::Duration;

use super::BusError;

/// How the bus is built.
#[derive(Debug, Clone)]
pub struct BusSettings {
    /// How many shards there are, 1 to 256. Default: one per core.
    pub shards: usize,
    /// How much may be on the way to one shard, in octets of frames and their overhead. A frame
    /// that is larger goes alone. 64 KiB to 1 GiB; default 2 MiB. The router's log of a shard
    /// takes about 1.3 times as much memory, up to 12 times if all frames are tiny.
    pub window_bytes: usize,
    /// How long a publish waits while a shard does not take what is on the way. Default 10 s.
    pub publish_timeout: Duration,
    /// How often the router is asked for a sign of life. Default 1 s.
    pub heartbeat_interval: Duration,
    /// How long it may owe the sign, or a message to a shard that waits for one, before it is
    /// replaced. Default 5 s.
    pub stuck_after: Duration,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self {
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            window_bytes: 2 << 20,
            publish_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(1),
            stuck_after: Duration::from_secs(5),
        }
    }
}

impl BusSettings {
    /// Refuse what is out of range.
    pub(super) fn check(&self) -> Result<(), BusError> {
        let wrong = |key, value, allowed| {
            Err(BusError::Setting {
                key,
                value,
                allowed,
            })
        };
        let interval_ms = self.heartbeat_interval.as_millis() as usize;
        match self {
            Self { shards, .. } if !(1..=256).contains(shards) => {
                wrong("shards", *shards, "1 to 256 are allowed")
            }
            Self { window_bytes, .. } if !(64 << 10..=1 << 30).contains(window_bytes) => wrong(
                "window_bytes",
                *window_bytes,
                "65536 to 1073741824 are allowed",
            ),
            _ if interval_ms < 10 => wrong(
                "heartbeat_interval",
                interval_ms,
                "at least 10 ms are allowed",
            ),
            _ => Ok(()),
        }
    }
}

//! Connections that are closed before they are served: all are counted, a few are told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::mqtt::metrics::{self, Unserved};

/// What the log has told of them, so that a flood does not fill it.
#[derive(Default)]
pub(super) struct Teller(Mutex<HashMap<Unserved, Told>>);

struct Told {
    at: Instant,
    /// How many there were since.
    untold: u64,
}

impl Teller {
    /// Count a connection, and tell of it if none for the same reason was told lately.
    pub(super) fn tell(&self, why: Unserved, client: SocketAddr, detail: &str) {
        metrics::unserved(why);
        if let Some(untold) = self.is_due(why) {
            tracing::warn!(
                client.addr = %client,
                reason = why.as_str(),
                detail,
                untold,
                "a connection was closed before its handshake"
            );
        }
    }

    /// If it is time to tell: how many were not told.
    fn is_due(&self, why: Unserved) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let Some(told) = all.get_mut(&why) else {
            all.insert(why, Told { at: now, untold: 0 });
            return Some(0);
        };
        if now.duration_since(told.at) < TOLD_EVERY {
            told.untold += 1;
            return None;
        }
        let untold = told.untold;
        *told = Told { at: now, untold: 0 };
        Some(untold)
    }
}

/// How often one is told for each reason.
const TOLD_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_in_a_while_is_told_for_each_reason() {
        let teller = Teller::default();
        assert_eq!(teller.is_due(Unserved::AddressRate), Some(0));
        for _ in 0..5 {
            assert_eq!(teller.is_due(Unserved::AddressRate), None);
        }
        assert_eq!(teller.is_due(Unserved::ProxyHeader), Some(0));
        tokio::time::advance(TOLD_EVERY).await;
        assert_eq!(teller.is_due(Unserved::AddressRate), Some(5));
        assert_eq!(teller.is_due(Unserved::AddressRate), None);
    }
}

//! What is done every second until the process ends.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::control::Inner;

/// The seconds until the process ends, the first at once. One that comes late puts off those after it.
pub(crate) struct Seconds {
    every: Interval,
    closing: CancellationToken,
}

impl Inner {
    pub(crate) fn seconds(&self) -> Seconds {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Seconds {
            every,
            closing: self.closing.clone(),
        }
    }
}

impl Seconds {
    /// Wait for the next; `false` if the process ends.
    pub(crate) async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.every.tick() => true,
            () = self.closing.cancelled() => false,
        }
    }
}

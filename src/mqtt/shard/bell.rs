//! What wakes the connection of a session.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Rung by whoever has something for a connection, which alone listens. A ring that comes before it
/// listens is heard, and many are heard as one.
#[derive(Debug, Default)]
pub(super) struct Bell {
    is_rung: AtomicBool,
    listener: AtomicWaker,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.is_rung.store(true, Ordering::Release);
        self.listener.wake();
    }

    /// Ready if it was rung since this was ready before.
    pub(super) fn poll_rung(&self, context: &Context<'_>) -> Poll<()> {
        // Before the look, so that there is nothing in between.
        self.listener.register(context.waker());
        match self.is_rung.swap(false, Ordering::AcqRel) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_ring_is_lost() {
        const RINGS: u32 = 100_000;
        let bells: Arc<[Bell; 2]> = Arc::default();
        let said = Arc::new(AtomicU32::new(0));
        // Each waits for the other before it rings again: a ring that is lost ends it.
        let players = [0, 1].map(|me| {
            let (bells, said) = (bells.clone(), said.clone());
            tokio::spawn(async move {
                while said.load(Ordering::Acquire) < RINGS {
                    std::future::poll_fn(|context| bells[me].poll_rung(context)).await;
                    said.fetch_add(1, Ordering::AcqRel);
                    bells[1 - me].ring();
                }
            })
        });
        bells[0].ring();
        let limit = std::time::Duration::from_secs(60);
        for player in players {
            tokio::time::timeout(limit, player).await.unwrap().unwrap();
        }
    }
}

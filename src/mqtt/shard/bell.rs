//! What wakes the connection of a session.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::task::coop;

/// Rung by whoever has something for a connection. A ring that comes before it listens is heard, and many
/// are heard as one.
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

    /// Listen: one at a time.
    pub(super) fn listen(&self) -> Listener<'_> {
        Listener(self)
    }
}

/// The one that listens. Without it nothing of its task is kept.
#[derive(Debug)]
pub struct Listener<'a>(&'a Bell);

impl Listener<'_> {
    /// Ready if it was rung since this was ready before.
    pub fn poll_rung(&self, context: &mut Context<'_>) -> Poll<()> {
        // Where it is rung all the time, others have their turn, too.
        let turn = ready!(coop::poll_proceed(context));
        // Before the look, so that there is nothing in between.
        self.0.listener.register(context.waker());
        match self.0.is_rung.swap(false, Ordering::AcqRel) {
            true => {
                turn.made_progress();
                Poll::Ready(())
            }
            false => Poll::Pending,
        }
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.0.listener.take();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::{Wake, Waker};

    use super::*;

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn nothing_is_kept_of_who_listens_no_more() {
        let bell = Bell::default();
        let task = Arc::new(Task);
        let waker = Waker::from(task.clone());
        let listener = bell.listen();
        assert!(
            listener
                .poll_rung(&mut Context::from_waker(&waker))
                .is_pending()
        );
        drop(waker);
        assert_eq!(Arc::strong_count(&task), 2);
        drop(listener);
        assert_eq!(Arc::strong_count(&task), 1);
        bell.ring();
        let waker = Waker::from(task);
        assert!(
            bell.listen()
                .poll_rung(&mut Context::from_waker(&waker))
                .is_ready()
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_ring_is_lost() {
        const RINGS: u32 = 100_000;
        let bells: Arc<[Bell; 2]> = Arc::default();
        let said = Arc::new(AtomicU32::new(0));
        // Each waits for the other before it rings again: a ring that is lost ends it.
        let players = [0, 1].map(|me| {
            let (bells, said) = (bells.clone(), said.clone());
            tokio::spawn(async move {
                let listener = bells[me].listen();
                while said.load(Ordering::Acquire) < RINGS {
                    std::future::poll_fn(|context| listener.poll_rung(context)).await;
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

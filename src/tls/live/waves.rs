//! Peers that have been told to go are woken for it: thousands of them some at a time, so that
//! whoever cuts is answered, and others connect, before all of them have closed their connections.
//! None of them is served meanwhile.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::Entry;

/// Where the connections of the peers run.
#[derive(Debug, Default)]
pub(super) struct Waves {
    runtime: OnceLock<Handle>,
}

impl Waves {
    /// A connection runs here, and so do the others. Whoever cuts may run elsewhere, where a turn
    /// says nothing of how far they are.
    pub(super) fn are_here(&self) {
        if self.runtime.get().is_none()
            && let Ok(here) = Handle::try_current()
        {
            let _ = self.runtime.set(here);
        }
    }

    pub(super) fn wake(&self, told: Vec<Arc<Entry>>) {
        let rest = Rest {
            all: told.len(),
            told,
        };
        if rest.all > FEW
            && let Some(runtime) = self.runtime.get()
        {
            runtime.spawn(rest.wake_by_and_by());
        }
    }
}

/// Those that are still to be woken, which are all if this is dropped.
struct Rest {
    /// The next one last.
    told: Vec<Arc<Entry>>,
    /// How many there were.
    all: usize,
}

impl Rest {
    /// Some with each turn, and as many as keep to the time: with others who want turns, too, a turn
    /// takes as long as they make it.
    async fn wake_by_and_by(mut self) {
        self.told.reverse();
        let began = Instant::now();
        while !self.told.is_empty() {
            let woken = self.all - self.told.len();
            let due = share(self.all, began.elapsed());
            self.wake(due.saturating_sub(woken).max(AT_ONCE));
            tokio::task::yield_now().await;
        }
    }

    fn wake(&mut self, count: usize) {
        let from = self.told.len().saturating_sub(count);
        for entry in self.told.drain(from..).rev() {
            entry.wake();
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.wake(self.all);
    }
}

/// How many of so many have been woken after that time.
fn share(all: usize, elapsed: Duration) -> usize {
    let passed = elapsed.min(IN_ALL).as_millis();
    let due = u128::try_from(all).map(|all| all * passed / IN_ALL.as_millis());
    due.ok()
        .and_then(|due| usize::try_from(due).ok())
        .unwrap_or(all)
}

/// Not worth a second turn.
const FEW: usize = 32;
/// Ending so many takes about as long as a turn of somebody who connects.
const AT_ONCE: usize = 8;
/// After that all have been woken, however many turns others want, so that with an honest client the
/// last one has closed within a second. On two processors that are full, ending ten thousand takes about
/// half of that time away from others. An idle broker is through sooner.
const IN_ALL: Duration = Duration::from_millis(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_grows_with_the_time_and_all_are_woken_at_its_end() {
        assert_eq!(share(10_000, Duration::ZERO), 0);
        assert_eq!(share(10_000, IN_ALL / 4), 2_500);
        assert_eq!(share(10_000, IN_ALL), 10_000);
        assert_eq!(share(10_000, 2 * IN_ALL), 10_000);
        assert_eq!(share(usize::MAX, IN_ALL), usize::MAX);
    }
}

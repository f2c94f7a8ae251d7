//! Ending the connections of a CA that was switched off over a time, instead of all at once.
//!
//! Only those that are connected are spared for a while: from the answer on, nobody gets in. So a
//! crash ends them all, and nothing of this is kept. The pace belongs to one change: whatever is done
//! to the CA after it ends the pace, and a plain inactivation ends the rest at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ca::id::{CaId, InstanceId};
use crate::ca::registry::Effects;
use crate::control::{Inner, OnInactivate};

/// How the connections end that a change denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// Before the change is answered.
    #[default]
    AtOnce,
    /// One after the other, the last when so much time has passed.
    Over(Duration),
}

/// The longest time that connections may take to end.
pub const MOST_TIME: Duration = Duration::from_secs(24 * 3600);

/// The changes whose connections are ending.
#[derive(Debug, Default)]
pub(crate) struct Paces(Mutex<HashMap<(InstanceId, CaId), CancellationToken>>);

impl Paces {
    /// End the pace of an earlier change of this CA, and give a token for a new one.
    fn begin(&self, instance: &InstanceId, ca: CaId) -> CancellationToken {
        let token = CancellationToken::new();
        let before = self.lock().insert((instance.clone(), ca), token.clone());
        if let Some(before) = before {
            before.cancel();
        }
        token
    }

    /// End the pace of an earlier change of this CA.
    pub(crate) fn end(&self, instance: &InstanceId, ca: CaId) {
        if let Some(before) = self.lock().remove(&(instance.clone(), ca)) {
            before.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(InstanceId, CaId), CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// End the connections that this change of `ca` denies, over `time`. Gives how many there are.
    pub(crate) fn end_over(
        self: &Arc<Self>,
        instance: &InstanceId,
        ca: CaId,
        effects: Effects,
        time: Duration,
    ) -> usize {
        let stop = self.paces.begin(instance, ca);
        let Some(at) = self.instances.get(instance) else {
            return 0;
        };
        if at.on_inactivate == OnInactivate::Keep {
            return 0;
        }
        let left = at
            .peers
            .unwelcome_over(&effects.denied, &at.registry, self.now());
        let count = left.len();
        if count > 0 {
            let (inner, instance) = (Arc::clone(self), instance.clone());
            let until = Instant::now() + time.min(MOST_TIME);
            self.tasks.spawn(async move {
                tokio::select! {
                    ended = inner.end_until(&instance, &effects, until) => {
                        tracing::info!(%instance, sessions = ended, "the last connections of a CA that was switched off have ended");
                    }
                    () = stop.cancelled() => {}
                    () = inner.closing.cancelled() => {}
                }
            });
        }
        count
    }

    async fn end_until(&self, instance: &InstanceId, effects: &Effects, until: Instant) -> usize {
        let Some(at) = self.instances.get(instance) else {
            return 0;
        };
        let (mut ended, mut due) = (0, 0.0);
        loop {
            // Asked anew each time: some leave by themselves, and some may be welcome again.
            let left = at
                .peers
                .unwelcome_over(&effects.denied, &at.registry, self.now());
            let time = until.saturating_duration_since(Instant::now());
            if time.is_zero() || left.is_empty() {
                return ended + left.end_first(left.len());
            }
            let share = TURN.as_secs_f64() / time.as_secs_f64();
            due += share.min(1.0) * count(left.len());
            let now = (1..=left.len()).take_while(|number| count(*number) <= due);
            let now = now.count();
            due -= count(now);
            ended += left.end_first(now);
            tokio::time::sleep(TURN.min(time)).await;
        }
    }
}

/// As many as 2^32 are told apart, which is more than there are ports.
fn count(of: usize) -> f64 {
    f64::from(u32::try_from(of).unwrap_or(u32::MAX))
}

/// How often some are ended.
const TURN: Duration = Duration::from_millis(200);

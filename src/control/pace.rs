//! Ending the connections of a CA that was switched off over a time, instead of all at once.
//!
//! Only those that are connected are spared for a while: from the answer on, nobody gets in. So a
//! crash ends them all, and nothing of this is kept. The pace belongs to one change: whatever is done
//! to the CA after it ends the pace, and a plain inactivation ends the rest at once. Other changes
//! spare those who wait for their turn, unless they deny them themselves.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ca::id::{CaId, CaKeyId, InstanceId};
use crate::ca::registry::Effects;
use crate::control::{Inner, OnInactivate};

/// How the connections end that a change denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// All are told before the change is answered.
    #[default]
    AtOnce,
    /// One after the other, the last when so much time has passed.
    Over(Duration),
}

/// The longest time that connections may take to end.
pub const MOST_TIME: Duration = Duration::from_secs(24 * 3600);

/// The connections that a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ended {
    /// Those that were told before it was answered.
    pub(crate) at_once: usize,
    /// Those that end one after the other.
    pub(crate) ending: usize,
    /// In which time.
    pub(crate) over: Duration,
}

impl Ended {
    pub(crate) fn at_once(count: usize) -> Self {
        Self {
            at_once: count,
            ..Self::default()
        }
    }

    /// What the audit log says of it, if there were any.
    pub(crate) fn detail(&self) -> Option<String> {
        let at_once = match self.at_once {
            0 => None,
            count => Some(format!("{count} live connections ended")),
        };
        let ending = match self.ending {
            0 => None,
            count => Some(format!(
                "{count} live connections are ending over {} s",
                self.over.as_secs()
            )),
        };
        let all: Vec<_> = at_once.into_iter().chain(ending).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// The changes whose connections are ending. Each has a task that ends them.
#[derive(Debug, Default)]
pub(crate) struct Paces(Mutex<All>);

type All = HashMap<(InstanceId, CaId), One>;

#[derive(Debug)]
struct One {
    stop: Arc<CancellationToken>,
    /// The authorities whose connections it ends.
    denied: Vec<CaKeyId>,
}

impl Paces {
    /// End the pace of an earlier change of this CA, and give a token for a new one.
    fn begin(
        &self,
        instance: &InstanceId,
        ca: CaId,
        denied: Vec<CaKeyId>,
    ) -> Arc<CancellationToken> {
        let stop = Arc::new(CancellationToken::new());
        let one = One {
            stop: Arc::clone(&stop),
            denied,
        };
        let before = self.lock().insert((instance.clone(), ca), one);
        if let Some(before) = before {
            before.stop.cancel();
        }
        stop
    }

    /// End the pace of an earlier change of this CA.
    pub(crate) fn end(&self, instance: &InstanceId, ca: CaId) {
        if let Some(before) = self.lock().remove(&(instance.clone(), ca)) {
            before.stop.cancel();
        }
    }

    /// Forget this one, unless another took its place.
    fn finish(&self, instance: &InstanceId, ca: CaId, token: &Arc<CancellationToken>) {
        let place = (instance.clone(), ca);
        let mut all = self.lock();
        if all
            .get(&place)
            .is_some_and(|it| Arc::ptr_eq(&it.stop, token))
        {
            all.remove(&place);
        }
    }

    /// The CAs of an instance whose connections are ending.
    pub(crate) fn of(&self, instance: &InstanceId) -> Vec<CaId> {
        let all = self.lock();
        let of_it = all.keys().filter(|(of, _)| of == instance);
        of_it.map(|(_, ca)| *ca).collect()
    }

    /// The authorities of an instance whose connections are ending.
    pub(crate) fn covered(&self, instance: &InstanceId) -> HashSet<CaKeyId> {
        let all = self.lock();
        let of_it = all.iter().filter(|((of, _), _)| of == instance);
        of_it
            .flat_map(|(_, one)| one.denied.iter().copied())
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// End the connections that this change of `ca` denies, over `time`. Those that have no session
    /// yet end at once: it would be a new one.
    pub(crate) fn end_over(
        self: &Arc<Self>,
        instance: &InstanceId,
        ca: CaId,
        effects: Effects,
        time: Duration,
    ) -> Ended {
        let Some(at) = self.instances.get(instance) else {
            return Ended::default();
        };
        if at.on_inactivate == OnInactivate::Keep {
            return Ended::default();
        }
        let stop = self.paces.begin(instance, ca, effects.denied.clone());
        let now = self.now();
        let mut left = at.peers.unwelcome_over(&effects.denied, &at.registry, now);
        let at_once = left.end_nameless(&at.registry, now);
        let ending = left.len();
        if ending == 0 {
            self.paces.finish(instance, ca, &stop);
            return Ended::at_once(at_once);
        }
        let (inner, instance) = (Arc::clone(self), instance.clone());
        let until = Instant::now() + time.min(MOST_TIME);
        self.tasks.spawn(async move {
            tokio::select! {
                ended = inner.end_until(&instance, &effects, until) => {
                    // From here on other changes spare nobody for it; whom they did is ended.
                    inner.paces.finish(&instance, ca, &stop);
                    let ended = ended + inner.end_rest(&instance, &effects);
                    tracing::info!(%instance, sessions = ended, "the last connections of a CA that was switched off have ended");
                }
                () = stop.cancelled() => {}
                () = inner.closing.cancelled() => {}
            }
        });
        Ended {
            at_once,
            ending,
            over: time,
        }
    }

    async fn end_until(&self, instance: &InstanceId, effects: &Effects, until: Instant) -> usize {
        let Some(at) = self.instances.get(instance) else {
            return 0;
        };
        let (mut ended, mut due) = (0, 0.0);
        loop {
            // Asked anew each time: some leave by themselves, and some may be welcome again.
            let (registry, now) = (&at.registry, self.now());
            let left = at.peers.unwelcome_over(&effects.denied, registry, now);
            let time = until.saturating_duration_since(Instant::now());
            if time.is_zero() || left.is_empty() {
                return ended + left.end_first(left.len(), registry, now);
            }
            let share = TURN.as_secs_f64() / time.as_secs_f64();
            due += share.min(1.0) * count(left.len());
            let some = (1..=left.len()).take_while(|number| count(*number) <= due);
            let some = some.count();
            due -= count(some);
            ended += left.end_first(some, registry, now);
            tokio::time::sleep(TURN.min(time)).await;
        }
    }

    fn end_rest(&self, instance: &InstanceId, effects: &Effects) -> usize {
        let Some(at) = self.instances.get(instance) else {
            return 0;
        };
        let now = self.now();
        at.peers.cut_over(&effects.denied, &at.registry, now)
    }
}

/// As many as 2^32 are told apart, which is more than there are ports.
fn count(of: usize) -> f64 {
    f64::from(u32::try_from(of).unwrap_or(u32::MAX))
}

/// How often some are ended.
const TURN: Duration = Duration::from_millis(200);

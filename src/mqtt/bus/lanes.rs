//! What is on the way between shards, and what has been taken.

mod direct;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use metrics::Counter;
use tokio::sync::{Semaphore, mpsc};

use super::directory::{Directory, Plan};
use super::frame::{self, Unsealed};
use super::rumqttd::{Inlet, Links, Outlet};
use super::{BusError, BusSettings, Routed};

/// What the bus, its links and its supervisor share.
pub(super) struct Lanes {
    pub(super) settings: BusSettings,
    pub(super) directory: Directory,
    sources: Vec<Mutex<Source>>,
    pub(super) destinations: Vec<Destination>,
    troubles: mpsc::UnboundedSender<Trouble>,
    pub(super) meters: Meters,
    /// How many routers there have been.
    epoch: AtomicU64,
}

/// One shard as a publisher.
struct Source {
    /// `None` while the router is being replaced.
    outlet: Option<(u64, Outlet)>,
    /// By destination.
    windows: Vec<Window>,
}

/// What one shard has sent to another and that has not taken, in order, without gaps.
struct Window {
    /// The sequence number of the first.
    first: u64,
    messages: VecDeque<Bytes>,
}

/// One shard as a receiver.
pub(super) struct Destination {
    /// How many more octets may be on the way; closed when nobody receives any more.
    pub(super) budget: Semaphore,
    /// By source: the last sequence number taken. Only the link writes it.
    pub(super) taken: Vec<AtomicU64>,
    /// The link waits for messages right now.
    pub(super) waiting: AtomicBool,
    inlets: mpsc::UnboundedSender<(u64, Inlet)>,
}

/// A reason to replace the router of this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) epoch: u64,
    pub(super) cause: Cause,
}

/// What is wrong with a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its thread has ended, or it has dropped a link.
    Gone,
    /// It gave no sign of life for the configured time.
    Silent,
    /// A shard waits for messages that were handed to the router and does not get them.
    Stalled,
    /// It left a message out, or delivered something that is not ours.
    Skipped,
}

/// How far a lane has got, for the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    pub(super) sent: u64,
    pub(super) taken: u64,
}

/// Counters that are touched for every message, looked up once.
pub(super) struct Meters {
    published: Counter,
    unmatched: Counter,
    waits: Counter,
    overloads: Counter,
    direct: Counter,
    pub(super) delivered: Counter,
    pub(super) duplicates: Counter,
}

/// The receiving ends that a link is made of.
pub(super) type Inlets = mpsc::UnboundedReceiver<(u64, Inlet)>;

impl Lanes {
    pub(super) fn new(
        settings: BusSettings,
    ) -> (Self, Vec<Inlets>, mpsc::UnboundedReceiver<Trouble>) {
        let shards = settings.shards;
        let (troubles, troubles_rx) = mpsc::unbounded_channel();
        let (destinations, inlets) = (0..shards)
            .map(|_| {
                let (inlets, inlets_rx) = mpsc::unbounded_channel();
                let destination = Destination {
                    budget: Semaphore::new(settings.window_bytes),
                    taken: (0..shards).map(|_| AtomicU64::new(0)).collect(),
                    waiting: AtomicBool::new(false),
                    inlets,
                };
                (destination, inlets_rx)
            })
            .unzip();
        let lanes = Self {
            directory: Directory::new(shards),
            sources: (0..shards).map(|_| Source::new(shards)).collect(),
            destinations,
            troubles,
            meters: Meters::new(),
            epoch: AtomicU64::new(0),
            settings,
        };
        (lanes, inlets, troubles_rx)
    }

    /// Send a frame to whom the plan names, waiting for room.
    pub(super) async fn send(
        &self,
        from: usize,
        plan: &Plan,
        frame: &Bytes,
    ) -> Result<Routed, BusError> {
        let source = self
            .sources
            .get(from)
            .ok_or(BusError::NoSuchShard { shard: from })?;
        self.meters.published.increment(1);
        if plan.parts.is_empty() {
            self.meters.unmatched.increment(1);
            return Ok(Routed::default());
        }
        let mut admitted = Vec::with_capacity(plan.parts.len());
        for part in &plan.parts {
            let message = frame::encode(from, &part.filters, &part.shared, frame);
            if let Some(permit) = self.admit(part.shard, &message).await? {
                admitted.push((part.shard, message, permit));
            }
        }
        // From here on there is no wait: all shards get the message or, before, none.
        let mut source = lock(source);
        for (shard, message, permit) in admitted {
            source.send(from, shard, message, self);
            // The destination gives it back.
            permit.forget();
        }
        Ok(plan.routed())
    }

    /// What a message takes of the budget of its destination.
    pub(super) fn cost(&self, message_bytes: usize) -> usize {
        (message_bytes + MESSAGE_OVERHEAD).min(self.settings.window_bytes)
    }

    /// Let all that is not taken go through a new router, and everything that follows.
    pub(super) fn install(&self, epoch: u64, links: Links) {
        for (destination, inlet) in self.destinations.iter().zip(links.inlets) {
            // It fails if the link was dropped: then nobody receives.
            let _ = destination.inlets.send((epoch, inlet));
        }
        let mut again = 0;
        for (number, outlet) in links.outlets.into_iter().enumerate() {
            if let Some(source) = self.sources.get(number) {
                let mut source = lock(source);
                source.outlet = Some((epoch, outlet));
                again += source.send_again(number, self);
            }
        }
        self.epoch.store(epoch, Ordering::Release);
        if again > 0 {
            metrics::counter!("portcullis_bus_resent_total").increment(again);
            tracing::info!(messages = again, "sent again what shards had not taken");
        }
    }

    /// How many routers there have been, the present one included.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Hand nothing more to the router that is being replaced.
    pub(super) fn uninstall(&self) {
        for source in &self.sources {
            lock(source).outlet = None;
        }
    }

    /// Forget what has been taken, wake the router again for what it has not looked at, and tell
    /// how far each lane from this source has got, by destination.
    pub(super) fn tend(&self, source: usize) -> Vec<Progress> {
        let Some(state) = self.sources.get(source) else {
            return Vec::new();
        };
        let mut state = lock(state);
        if let Some((epoch, outlet)) = &mut state.outlet
            && outlet.nudge().is_err()
        {
            let epoch = *epoch;
            state.outlet = None;
            self.report(epoch, Cause::Gone);
        }
        state
            .windows
            .iter_mut()
            .zip(&self.destinations)
            .map(|(window, destination)| {
                let taken = destination.taken_from(source);
                window.forget(taken);
                Progress {
                    sent: window.next() - 1,
                    taken,
                }
            })
            .collect()
    }

    /// Whether everything sent has been taken, and every destination waits for more.
    pub(super) fn is_idle(&self) -> bool {
        let taken = self.sources.iter().enumerate().all(|(number, source)| {
            let source = lock(source);
            let windows = source.windows.iter().zip(&self.destinations);
            let mut taken = windows
                .map(|(window, destination)| window.next() - 1 <= destination.taken_from(number));
            taken.all(|taken| taken)
        });
        // Read after: a destination says that it does not wait before it takes anything.
        let waiting = |one: &Destination| one.waiting.load(Ordering::Acquire);
        taken && self.destinations.iter().all(waiting)
    }

    /// Tell the supervisor that a router must go.
    pub(super) fn report(&self, epoch: u64, cause: Cause) {
        // It fails if there is no supervisor any more: then the bus has been dropped.
        let _ = self.troubles.send(Trouble { epoch, cause });
    }

    /// End the router's thread, as a defect in it would.
    pub(super) fn poison(&self) {
        if let Some(source) = self.sources.first()
            && let Some((_, outlet)) = &mut lock(source).outlet
        {
            outlet.poison();
        }
    }

    /// Take the way to the router away from a source, to lose what it sends next.
    #[cfg(test)]
    pub(super) fn take_outlet(&self, source: usize) -> Option<(u64, Outlet)> {
        lock(&self.sources[source]).outlet.take()
    }

    /// Undo [`Lanes::take_outlet`].
    #[cfg(test)]
    pub(super) fn put_outlet(&self, source: usize, outlet: Option<(u64, Outlet)>) {
        lock(&self.sources[source]).outlet = outlet;
    }

    /// Room for a message; `None` if nobody receives there any more.
    async fn admit(
        &self,
        shard: usize,
        message: &Unsealed,
    ) -> Result<Option<tokio::sync::SemaphorePermit<'_>>, BusError> {
        let Some(destination) = self.destinations.get(shard) else {
            return Ok(None);
        };
        let cost = self.cost(message.len()) as u32;
        if let Ok(permit) = destination.budget.try_acquire_many(cost) {
            return Ok(Some(permit));
        }
        if destination.budget.is_closed() {
            return Ok(None);
        }
        self.meters.waits.increment(1);
        let limit = self.settings.publish_timeout;
        match tokio::time::timeout(limit, destination.budget.acquire_many(cost)).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            Ok(Err(_closed)) => Ok(None),
            Err(_elapsed) => {
                self.meters.overloads.increment(1);
                Err(BusError::Overloaded {
                    shard,
                    waited_ms: limit.as_millis(),
                })
            }
        }
    }
}

impl Source {
    fn new(shards: usize) -> Mutex<Self> {
        Mutex::new(Self {
            outlet: None,
            windows: (0..shards).map(|_| Window::new()).collect(),
        })
    }

    fn send(&mut self, number: usize, shard: usize, message: Unsealed, lanes: &Lanes) {
        let (Some(window), Some(destination)) =
            (self.windows.get_mut(shard), lanes.destinations.get(shard))
        else {
            return;
        };
        window.forget(destination.taken_from(number));
        let message = message.seal(window.next());
        window.messages.push_back(message.clone());
        if let Some((epoch, outlet)) = &mut self.outlet
            && outlet.push(shard, message).is_err()
        {
            lanes.report(*epoch, Cause::Gone);
            self.outlet = None;
        }
    }

    /// How many messages were handed to the new router.
    fn send_again(&mut self, number: usize, lanes: &Lanes) -> u64 {
        let Some((epoch, outlet)) = &mut self.outlet else {
            return 0;
        };
        let mut again = 0;
        let mut result = Ok(());
        for (shard, (window, destination)) in
            self.windows.iter_mut().zip(&lanes.destinations).enumerate()
        {
            window.forget(destination.taken_from(number));
            for message in &window.messages {
                result = result.and_then(|()| outlet.push(shard, message.clone()));
                again += 1;
            }
        }
        if result.is_err() {
            lanes.report(*epoch, Cause::Gone);
            self.outlet = None;
        }
        again
    }
}

impl Window {
    fn new() -> Self {
        Self {
            first: 1,
            messages: VecDeque::new(),
        }
    }

    /// The sequence number of the next message.
    fn next(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    fn forget(&mut self, taken: u64) {
        while self.first <= taken && self.messages.pop_front().is_some() {
            self.first += 1;
        }
        if self.messages.is_empty() && self.messages.capacity() > 1_024 {
            self.messages = VecDeque::new();
        }
    }
}

impl Destination {
    pub(super) fn taken_from(&self, source: usize) -> u64 {
        self.taken
            .get(source)
            .map_or(0, |taken| taken.load(Ordering::Acquire))
    }
}

impl Cause {
    /// As a metric label and log field.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::Skipped => "skipped",
        }
    }
}

impl Meters {
    fn new() -> Self {
        Self {
            published: metrics::counter!("portcullis_bus_published_total"),
            unmatched: metrics::counter!("portcullis_bus_unmatched_total"),
            waits: metrics::counter!("portcullis_bus_waits_total"),
            overloads: metrics::counter!("portcullis_bus_overloads_total"),
            direct: metrics::counter!("portcullis_bus_direct_total"),
            delivered: metrics::counter!("portcullis_bus_delivered_total"),
            duplicates: metrics::counter!("portcullis_bus_duplicates_total"),
        }
    }
}

/// A panic cannot leave the windows half changed: nothing in there panics.
fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

/// More than what the router's log counts for a message besides its payload, so that the log is
/// never smaller than the budget.
const MESSAGE_OVERHEAD: usize = 64;

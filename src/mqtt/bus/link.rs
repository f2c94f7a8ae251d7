//! The receiving end of a shard.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Delivery;
use super::frame;
use super::lanes::{Cause, Destination, Inlets, Lanes};
use super::rumqttd::{Inlet, RouterGone};

/// The receiving end of one shard. Whoever holds it drains it quickly, always: into the bounded
/// queues of its sessions. Dropping it tells publishers that nobody receives here any more.
pub struct ShardLink {
    shard: usize,
    lanes: Arc<Lanes>,
    inlets: Inlets,
    inlet: Option<(u64, Inlet)>,
    /// Taken, but not yet given to the caller.
    ready: Vec<Delivery>,
}

impl ShardLink {
    pub(super) fn new(shard: usize, lanes: Arc<Lanes>, inlets: Inlets) -> Self {
        Self {
            shard,
            lanes,
            inlets,
            inlet: None,
            ready: Vec::new(),
        }
    }

    /// Which shard this is the link of.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// The next deliveries, at least one; in the order of publishing for each source shard.
    ///
    /// To ask for more says that all that was given before has been done with: from then on
    /// publishers may give to the same sessions themselves ([`Bus::publish_now`](super::Bus::publish_now)).
    ///
    /// Cancelling it loses nothing. It never ends by itself, also while the router is replaced.
    pub async fn recv(&mut self) -> Vec<Delivery> {
        while self.ready.is_empty() {
            self.fill().await;
        }
        std::mem::take(&mut self.ready)
    }

    /// Wait for the router, then take what it has, up to a batch.
    async fn fill(&mut self) {
        let first = {
            let _waiting = self.lanes.destinations.get(self.shard).map(Waiting::begin);
            tokio::select! {
                biased;
                replacement = self.inlets.recv() => {
                    match replacement {
                        Some(inlet) => self.inlet = Some(inlet),
                        // The bus is gone with its supervisor: there will never be more.
                        None => std::future::pending().await,
                    }
                    return;
                }
                first = next_of(&mut self.inlet) => first,
            }
        };
        let mut released = 0;
        let mut next = Some(first);
        for _ in 0..BATCH {
            let Some(result) = next else { break };
            match result {
                Ok(Some(message)) => released += self.take(message),
                Ok(None) => {}
                Err(RouterGone) => self.give_up(Cause::Gone),
            }
            next = self.inlet.as_mut().and_then(|(_, inlet)| inlet.try_next());
        }
        if let Some(Ok(Some(message))) = next {
            released += self.take(message);
        }
        if let Some(destination) = self.lanes.destinations.get(self.shard) {
            destination.budget.add_permits(released);
        }
    }

    /// Take one message if it is the next of its source. What it gives back to the budget.
    fn take(&mut self, message: Bytes) -> usize {
        let cost = self.lanes.cost(message.len());
        let Some((sequence, delivery)) = frame::decode(message) else {
            self.give_up(Cause::Skipped);
            return 0;
        };
        let taken = self
            .lanes
            .destinations
            .get(self.shard)
            .and_then(|destination| destination.taken.get(delivery.source));
        let Some(taken) = taken else {
            self.give_up(Cause::Skipped);
            return 0;
        };
        let last = taken.load(Ordering::Relaxed);
        if sequence <= last {
            self.lanes.meters.duplicates.increment(1);
            return 0;
        }
        if sequence != last + 1 {
            self.give_up(Cause::Skipped);
            return 0;
        }
        taken.store(sequence, Ordering::Release);
        self.lanes.meters.delivered.increment(1);
        self.ready.push(delivery);
        cost
    }

    /// Take nothing more from this router, and have it replaced.
    fn give_up(&mut self, cause: Cause) {
        if let Some((epoch, _)) = self.inlet.take() {
            self.lanes.report(epoch, cause);
        }
    }
}

impl Drop for ShardLink {
    fn drop(&mut self) {
        if let Some(destination) = self.lanes.destinations.get(self.shard) {
            destination.budget.close();
        }
    }
}

impl std::fmt::Debug for ShardLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardLink")
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

/// While it lives, the supervisor may take silence as the router's fault, and publishers may do
/// without the router if nothing of theirs is on its way.
struct Waiting<'a>(&'a Destination);

impl<'a> Waiting<'a> {
    fn begin(destination: &'a Destination) -> Self {
        destination.waiting.store(true, Ordering::Release);
        Self(destination)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.store(false, Ordering::Release);
    }
}

async fn next_of(inlet: &mut Option<(u64, Inlet)>) -> Result<Option<Bytes>, RouterGone> {
    match inlet {
        Some((_, inlet)) => inlet.next().await,
        None => std::future::pending().await,
    }
}

/// The most messages taken before the caller gets them.
const BATCH: usize = 1_024;

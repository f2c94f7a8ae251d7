//! From one shard to another without the router: what is published is given to the sessions of the
//! destination by the publisher itself.
//!
//! Only where nothing can be overtaken. A lane is clear when everything that was sent on it has been
//! taken, and its destination waits for more. A link says that it does not wait before it takes
//! anything, and says that it waits only when it is asked for more, which is when whoever holds it
//! has done with what it had. So who reads, in this order, that all is taken and that the link
//! waits, knows that all of it has been given to the sessions. Nobody sends on the lane meanwhile,
//! since the source is locked from the look at the lane until the sessions have the message; so a
//! lane that was clear stays so, also if the link has something to do for another source by then.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::TryAcquireError;

use super::{Lanes, Source, lock};
use crate::mqtt::bus::directory::{Crowd, Part, Plan};
use crate::mqtt::bus::{BusError, Routed, frame};

impl Lanes {
    /// Send a frame to whom the plan names, if that can be done now: `give` gives it to the sessions
    /// of a part, and what cannot be given so goes through the router. `None` if some shard would
    /// have to be waited for: then nobody has it.
    pub(in crate::mqtt::bus) fn send_now(
        &self,
        from: usize,
        plan: &Plan,
        frame: &Bytes,
        mut give: impl FnMut(&Part),
    ) -> Result<Option<Routed>, BusError> {
        let source = self
            .sources
            .get(from)
            .ok_or(BusError::NoSuchShard { shard: from })?;
        if plan.parts.is_empty() {
            self.meters.published.increment(1);
            self.meters.unmatched.increment(1);
            return Ok(Some(Routed::default()));
        }
        let mut source = lock(source);
        let is_direct =
            |source: &Source, part: &Part| may_be_given(part) && source.is_clear(from, part, self);
        if plan.parts.iter().all(|part| is_direct(&source, part)) {
            plan.parts.iter().for_each(&mut give);
            self.meters.published.increment(1);
            self.meters.direct.increment(plan.parts.len() as u64);
            return Ok(Some(plan.routed()));
        }
        let (mut direct, mut admitted) = (Vec::new(), Vec::new());
        for part in &plan.parts {
            if is_direct(&source, part) {
                direct.push(part);
                continue;
            }
            let Some(destination) = self.destinations.get(part.shard) else {
                continue;
            };
            let message = frame::encode(from, &part.filters, &part.shared, frame);
            let cost = self.cost(message.len()) as u32;
            match destination.budget.try_acquire_many(cost) {
                Ok(permit) => admitted.push((part.shard, message, permit)),
                Err(TryAcquireError::NoPermits) => return Ok(None),
                // Nobody receives there any more.
                Err(TryAcquireError::Closed) => {}
            }
        }
        // From here on there is no way back: all shards get the message or, before, none.
        for (shard, message, permit) in admitted {
            source.send(from, shard, message, self);
            // The destination gives it back.
            permit.forget();
        }
        self.meters.published.increment(1);
        self.meters.direct.increment(direct.len() as u64);
        direct.into_iter().for_each(give);
        Ok(Some(plan.routed()))
    }
}

impl Source {
    /// Whether all that was sent to the shard of this part has been given to its sessions.
    fn is_clear(&self, number: usize, part: &Part, lanes: &Lanes) -> bool {
        let window = self.windows.get(part.shard);
        window
            .zip(lanes.destinations.get(part.shard))
            .is_some_and(|(window, destination)| {
                window.next() - 1 <= destination.taken_from(number)
                    && destination.waiting.load(Ordering::Acquire)
            })
    }
}

/// Whether this is little enough work for a publisher, which does it while the source is locked.
fn may_be_given(part: &Part) -> bool {
    part.crowd == Crowd::Small
        && part.filters.len() <= MAX_FILTERS
        && part.shared.len() <= MAX_MEMBERS
}

/// Filters of one part that a publisher serves.
const MAX_FILTERS: usize = 8;

/// Members of shared groups that a publisher serves.
const MAX_MEMBERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::bus::{FilterId, SessionKey, ShareId};

    #[test]
    fn a_publisher_serves_few_filters_and_few_members() {
        let part = |filters, members, crowd| Part {
            shard: 0,
            filters: (0..filters).map(FilterId::from_bits).collect(),
            shared: (0..members)
                .map(|number| (SessionKey(number), ShareId::from_bits(number)))
                .collect(),
            crowd,
        };
        assert!(may_be_given(&part(8, 64, Crowd::Small)));
        assert!(!may_be_given(&part(9, 0, Crowd::Small)));
        assert!(!may_be_given(&part(0, 65, Crowd::Small)));
        assert!(!may_be_given(&part(1, 0, Crowd::Large)));
    }
}

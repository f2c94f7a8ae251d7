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
        let may_be_given = is_little(&plan.parts);
        let is_direct = |source: &Source, part: &Part| {
            may_be_given && part.crowd == Crowd::Small && source.is_clear(from, part, self)
        };
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
            let size = frame::size(&part.filters, &part.shared, frame);
            match destination.budget.try_acquire_many(self.cost(size) as u32) {
                Ok(permit) => admitted.push((part, permit)),
                Err(TryAcquireError::NoPermits) => return Ok(None),
                // Nobody receives there any more.
                Err(TryAcquireError::Closed) => {}
            }
        }
        // From here on there is no way back: all shards get the message or, before, none.
        for (part, permit) in admitted {
            let message = frame::encode(from, &part.filters, &part.shared, frame);
            source.send(from, part.shard, message, self);
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

/// Whether this is little enough work for a publisher, which does it while the source is locked, if
/// no filter has a crowd.
fn is_little(parts: &[Part]) -> bool {
    let filters: usize = parts.iter().map(|part| part.filters.len()).sum();
    let members: usize = parts.iter().map(|part| part.shared.len()).sum();
    filters <= MAX_FILTERS && members <= MAX_MEMBERS
}

/// Filters that a publisher serves, of all shards together.
const MAX_FILTERS: usize = 8;

/// Members of shared groups that a publisher serves.
const MAX_MEMBERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::bus::{FilterId, SessionKey, ShareId};

    #[test]
    fn a_publisher_serves_few_filters_and_few_members_of_all_shards_together() {
        let part = |shard, filters, members| Part {
            shard,
            filters: (0..filters).map(FilterId::from_bits).collect(),
            shared: (0..members)
                .map(|number| (SessionKey(number), ShareId::from_bits(number)))
                .collect(),
            crowd: Crowd::Small,
        };
        assert!(is_little(&[part(0, 8, 64)]));
        assert!(is_little(&[part(0, 5, 60), part(1, 3, 4)]));
        assert!(!is_little(&[part(0, 9, 0)]));
        assert!(!is_little(&[part(0, 5, 0), part(1, 4, 0)]));
        assert!(!is_little(&[part(0, 0, 65)]));
        assert!(!is_little(&[part(0, 0, 33), part(1, 0, 32)]));
    }
}

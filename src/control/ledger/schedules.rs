//! Changes that are to be made at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Ca, Ledger};
use crate::ca::id::{CaId, InstanceId, ScheduleId};
use crate::ca::lifecycle::Status;
use crate::store::ScheduleRecord;

/// What is planned.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    all: BTreeMap<ScheduleId, ScheduleRecord>,
    /// Those that could not be made durable. In memory only: after a restart they are due at once.
    resting: BTreeMap<ScheduleId, Rest>,
}

/// How long one is left alone that could not be made.
#[derive(Debug, Clone, Copy)]
struct Rest {
    /// By the clock that cannot be set.
    until: Instant,
    /// How often it has failed.
    failures: u32,
}

impl Ledger {
    pub(crate) fn put_schedule(&mut self, schedule: ScheduleRecord) {
        self.schedules.all.insert(schedule.id, schedule);
    }

    pub(crate) fn schedule(&self, id: ScheduleId) -> Option<&ScheduleRecord> {
        self.schedules.all.get(&id)
    }

    pub(crate) fn remove_schedule(&mut self, id: ScheduleId) {
        self.schedules.all.remove(&id);
        self.schedules.resting.remove(&id);
    }

    pub(crate) fn set_schedules(&mut self, schedules: Vec<ScheduleRecord>) {
        self.schedules.all = schedules.into_iter().map(|it| (it.id, it)).collect();
        let Schedules { all, resting } = &mut self.schedules;
        resting.retain(|id, _| all.contains_key(id));
    }

    /// Try it again later, and later each time.
    pub(crate) fn rest_schedule(&mut self, id: ScheduleId, now: Instant) {
        let Schedules { all, resting } = &mut self.schedules;
        if !all.contains_key(&id) {
            return;
        }
        let rest = resting.entry(id).or_insert(Rest {
            until: now,
            failures: 0,
        });
        let time = FIRST_REST.saturating_mul(1 << rest.failures.min(10));
        rest.until = now + time.min(MOST_REST);
        rest.failures = rest.failures.saturating_add(1);
    }

    /// Those of an instance, with their CAs.
    pub(crate) fn schedules_of(
        &self,
        instance: &InstanceId,
    ) -> impl Iterator<Item = (&Ca, &ScheduleRecord)> {
        self.schedules
            .all
            .values()
            .filter_map(|schedule| Some((self.ca(schedule.ca)?, schedule)))
            .filter(move |(ca, _)| ca.record.instance == *instance)
    }

    /// The first that is due.
    pub(crate) fn next_schedule(&self, now_ms: i64, now: Instant) -> Option<ScheduleRecord> {
        let rests = |id| {
            let rest = self.schedules.resting.get(id);
            rest.is_some_and(|rest| rest.until > now)
        };
        let all = self.schedules.all.values();
        let due = all.filter(|it| it.at_ms <= now_ms && !rests(&it.id));
        due.min_by_key(|it| in_order(it)).cloned()
    }

    /// All of a CA.
    pub(crate) fn schedules_of_ca(&self, ca: CaId) -> Vec<ScheduleId> {
        let of_it = self.schedules.all.values().filter(|it| it.ca == ca);
        of_it.map(|it| it.id).collect()
    }

    /// All planned activations of a CA.
    pub(crate) fn activations_of(&self, ca: CaId) -> Vec<ScheduleId> {
        self.activations(ca).map(|it| it.id).collect()
    }

    /// Its planned activations that are about the state it has now: not those that end an
    /// inactivation that is still to come.
    pub(crate) fn present_activations_of(&self, ca: CaId) -> Vec<ScheduleId> {
        self.present(ca).map(|it| it.id).collect()
    }

    /// The first of them.
    pub(crate) fn first_activation_of(&self, ca: CaId) -> Option<ScheduleRecord> {
        self.present(ca).min_by_key(|it| in_order(it)).cloned()
    }

    /// The activations that end this inactivation.
    pub(crate) fn ends_of(&self, inactivation: ScheduleId) -> Vec<ScheduleId> {
        let all = self.schedules.all.values();
        let ends = all.filter(|it| it.ends == Some(inactivation) && it.id != inactivation);
        ends.map(|it| it.id).collect()
    }

    /// The activations that go when a planned inactivation is made of a CA that was in the state
    /// `was`. It takes the place of all that was planned before it and is about the state that the
    /// CA had. Its own end stays, unless the CA was off for good, or for longer.
    pub(crate) fn overtaken_by(
        &self,
        inactivation: &ScheduleRecord,
        was: Status,
    ) -> Vec<ScheduleId> {
        let is_own_end = |it: &&ScheduleRecord| it.ends == Some(inactivation.id);
        // Whoever planned it for itself could see the inactivation, and wants it on after it.
        let is_later_word = |it: &&ScheduleRecord| {
            it.ends.is_none()
                && it.at_ms > inactivation.at_ms
                && it.created_at_ms > inactivation.created_at_ms
        };
        let own_end = self.activations(inactivation.ca).find(is_own_end);
        let before = || {
            let present = self.present(inactivation.ca);
            present.filter(|it| !is_own_end(it) && !is_later_word(it))
        };
        let first = before().min_by_key(|it| in_order(it));
        let stays = match (was, first, own_end) {
            (Status::Active, _, own_end) => own_end,
            (Status::Inactive, None, _) | (Status::Inactive, Some(_), None) => None,
            (Status::Inactive, Some(first), Some(own_end)) => {
                Some(std::cmp::max_by_key(first, own_end, |it| it.at_ms))
            }
        };
        let concerned = before().chain(own_end);
        concerned
            .map(|it| it.id)
            .filter(|id| Some(*id) != stays.map(|it| it.id))
            .collect()
    }

    fn activations(&self, ca: CaId) -> impl Iterator<Item = &ScheduleRecord> {
        let all = self.schedules.all.values();
        all.filter(move |it| it.ca == ca && it.status == Status::Active)
    }

    fn present(&self, ca: CaId) -> impl Iterator<Item = &ScheduleRecord> {
        self.activations(ca).filter(|it| match it.ends {
            // One that was made by hand, by the id of its end.
            Some(ends) => ends == it.id || !self.schedules.all.contains_key(&ends),
            None => true,
        })
    }
}

/// The order in which plans are made. Of the same moment, an inactivation comes first: what was to
/// switch the CA on then is overtaken by it.
pub(crate) fn in_order(schedule: &ScheduleRecord) -> (i64, bool, i64, ScheduleId) {
    let ScheduleRecord {
        at_ms,
        status,
        created_at_ms,
        id,
        ..
    } = schedule;
    (*at_ms, *status == Status::Active, *created_at_ms, *id)
}

/// How long it is before one is tried again.
const FIRST_REST: Duration = Duration::from_secs(30);
/// The same, if it failed again and again.
const MOST_REST: Duration = Duration::from_secs(480);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_rests_for_longer_and_longer() {
        let (mut ledger, begin) = (Ledger::default(), Instant::now());
        let schedule = ScheduleRecord {
            id: ScheduleId::from_bytes([1; 8]),
            ca: CaId::from_bytes([1; 32]),
            status: Status::Active,
            at_ms: 5,
            force: false,
            principal: "host:root".to_owned(),
            created_at_ms: 1,
            ends: None,
        };
        ledger.put_schedule(schedule.clone());
        let mut now = begin;
        for seconds in [30, 60, 120, 240, 480, 480, 480] {
            let rest = Duration::from_secs(seconds);
            ledger.rest_schedule(schedule.id, now);
            let almost = now + rest - Duration::from_millis(1);
            assert_eq!(ledger.next_schedule(i64::MAX - 1, almost), None);
            now += rest;
            assert_eq!(ledger.next_schedule(5, now).as_ref(), Some(&schedule));
        }
        // Of one that is gone nothing is kept.
        ledger.remove_schedule(schedule.id);
        ledger.rest_schedule(schedule.id, now);
        ledger.put_schedule(schedule.clone());
        assert_eq!(ledger.next_schedule(5, now), Some(schedule));
    }
}

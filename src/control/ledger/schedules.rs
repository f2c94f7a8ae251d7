//! Changes that are to be made at a time.

use super::{Ca, Ledger};
use crate::ca::id::{CaId, InstanceId, ScheduleId};
use crate::ca::lifecycle::Status;
use crate::store::ScheduleRecord;

impl Ledger {
    pub(crate) fn put_schedule(&mut self, schedule: ScheduleRecord) {
        self.schedules.insert(schedule.id, schedule);
    }

    pub(crate) fn remove_schedule(&mut self, id: ScheduleId) {
        self.schedules.remove(&id);
    }

    /// Those of a CA that is deleted.
    pub(crate) fn remove_schedules_of(&mut self, ca: CaId) {
        self.schedules.retain(|_, schedule| schedule.ca != ca);
    }

    pub(crate) fn set_schedules(&mut self, schedules: Vec<ScheduleRecord>) {
        self.schedules = schedules.into_iter().map(|it| (it.id, it)).collect();
    }

    /// Try it again later. In memory only: after a restart it is due at once.
    pub(crate) fn postpone_schedule(&mut self, id: ScheduleId, at_ms: i64) {
        if let Some(schedule) = self.schedules.get_mut(&id) {
            schedule.at_ms = at_ms;
        }
    }

    /// Those of an instance, with their CAs.
    pub(crate) fn schedules_of(
        &self,
        instance: &InstanceId,
    ) -> impl Iterator<Item = (&Ca, &ScheduleRecord)> {
        self.schedules
            .values()
            .filter_map(|schedule| Some((self.ca(schedule.ca)?, schedule)))
            .filter(move |(ca, _)| ca.record.instance == *instance)
    }

    /// The first that is due.
    pub(crate) fn next_schedule(&self, now_ms: i64) -> Option<ScheduleRecord> {
        let due = self.schedules.values().filter(|it| it.at_ms <= now_ms);
        due.min_by_key(|it| (it.at_ms, it.id)).cloned()
    }

    /// The activations that are planned for a CA.
    pub(crate) fn activations_of(&self, ca: CaId) -> Vec<ScheduleId> {
        let of_it = self
            .schedules
            .values()
            .filter(|it| it.ca == ca && it.status == Status::Active);
        of_it.map(|it| it.id).collect()
    }
}

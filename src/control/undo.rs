//! Taking back what the disk may do late.
//!
//! A commit that nobody waits for any more can still be made. One that denies is made again until
//! it is known to be on disk. One that allows was answered as not made: so what was there before is
//! owed to the disk, behind it.

use std::collections::HashMap;

use bytes::Bytes;

use crate::ca::registry::DeviceKey;
use crate::control::Inner;
use crate::control::ledger::{Device, Ledger};
use crate::store::{Change, CrlPolicyRecord, DeviceId, StoreError};

/// Whether [`Inner::undo`] knows what was there before. A list is kept with its CRL, which is not in
/// memory.
pub(crate) fn can_be_undone(changes: &[Change]) -> bool {
    let is_of_a_list = |it: &Change| matches!(it, Change::PutCrl { .. } | Change::DeleteCrl { .. });
    !changes.iter().any(is_of_a_list)
}

/// The certificates of devices that changes remove. Without them, what was there cannot be put back.
pub(crate) type Removed = HashMap<DeviceId, Bytes>;

impl Inner {
    /// What these changes remove and [`undo`](Self::undo) needs. To be asked before they are made.
    ///
    /// # Errors
    /// If the store cannot say it, or not in time.
    pub(crate) async fn removed_by(&self, changes: &[Change]) -> Result<Removed, StoreError> {
        let deleted = changes.iter().filter_map(|change| match change {
            Change::DeleteDevice(device) => Some(device.clone()),
            _ => None,
        });
        let deleted: Vec<_> = deleted.collect();
        let ders = self.certificates(deleted.clone()).await;
        let ders = ders.map_err(|error| StoreError::Unusable {
            what: format!("nothing was deleted, since what goes cannot be read before: {error}"),
        })?;
        let removed = deleted.into_iter().zip(ders);
        Ok(removed
            .filter_map(|(device, der)| Some((device, der?)))
            .collect())
    }

    /// What makes the rows as they are in memory: as they were before the changes.
    pub(crate) fn undo(&self, changes: &[Change], removed: &Removed) -> Vec<Change> {
        let ledger = self.ledger();
        let undone = changes
            .iter()
            .flat_map(|change| undo(&ledger, change, removed));
        let mut undone: Vec<_> = undone.collect();
        // A device and a plan stand under their CA.
        undone.sort_by_key(|change| match change {
            Change::PutCa(_) => 0,
            Change::DeleteCa(_) => 2,
            _ => 1,
        });
        undone
    }
}

fn undo(ledger: &Ledger, change: &Change, removed: &Removed) -> Vec<Change> {
    match change {
        Change::PutCa(record) => vec![match ledger.ca(record.id) {
            Some(ca) => Change::PutCa(ca.record.clone()),
            None => Change::DeleteCa(record.id),
        }],
        Change::DeleteCa(id) => {
            let ca = ledger.ca(*id).map(|ca| Change::PutCa(ca.record.clone()));
            let plans = ledger.schedules_of_ca(*id).into_iter();
            let plans = plans.filter_map(|plan| ledger.schedule(plan));
            let plans = plans.cloned().map(Change::PutSchedule);
            // The devices that go with it are named one by one.
            ca.into_iter().chain(plans).collect()
        }
        Change::PutDevice { record, .. } | Change::UpdateDevice(record) => {
            let id = record.id();
            vec![match device(ledger, &id) {
                Some(device) => Change::UpdateDevice(device.record()),
                None => Change::DeleteDevice(id),
            }]
        }
        Change::DeleteDevice(id) => {
            let before = device(ledger, id).map(|device| device.record());
            let before = before.map(|record| match removed.get(id).cloned() {
                Some(der) => Change::PutDevice { record, der },
                None => Change::UpdateDevice(record),
            });
            before.into_iter().collect()
        }
        Change::PutRegisterCode(record) => vec![match ledger.code(&record.code) {
            Some(code) => Change::PutRegisterCode(code.clone()),
            None => Change::DeleteRegisterCode(record.code.clone()),
        }],
        Change::DeleteRegisterCode(code) => {
            let before = ledger.code(code).cloned();
            before.map(Change::PutRegisterCode).into_iter().collect()
        }
        Change::PutAccessKey(record) => vec![match ledger.key(&record.id) {
            Some(key) => Change::PutAccessKey(key.clone()),
            None => Change::DeleteAccessKey(record.id.clone()),
        }],
        Change::DeleteAccessKey(id) => {
            let before = ledger.key(id).cloned();
            before.map(Change::PutAccessKey).into_iter().collect()
        }
        Change::PutCrlPolicy(record) => vec![Change::PutCrlPolicy(CrlPolicyRecord {
            policy: ledger.crl_policy(&record.instance, record.issuer),
            ..record.clone()
        })],
        Change::PutSchedule(record) => vec![match ledger.schedule(record.id) {
            Some(schedule) => Change::PutSchedule(schedule.clone()),
            None => Change::DeleteSchedule(record.id),
        }],
        Change::DeleteSchedule(id) => {
            let before = ledger.schedule(*id).cloned();
            before.map(Change::PutSchedule).into_iter().collect()
        }
        Change::PutCrl { .. } | Change::DeleteCrl { .. } => Vec::new(),
    }
}

/// The record of a device, under whichever CA it is.
fn device<'a>(ledger: &'a Ledger, id: &DeviceId) -> Option<Device<'a>> {
    let key = DeviceKey {
        issuer: id.issuer,
        serial: id.serial.clone(),
    };
    ledger
        .devices_of(&id.instance)
        .find(|device| device.key() == key)
}

//! Taking back what the disk may do late.
//!
//! A commit that nobody waits for any more can still be made. One that denies is made again until
//! it is known to be on disk. One that allows was answered as not made: so what was there before is
//! owed to the disk, behind it.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bytes::Bytes;

use crate::ca::lifecycle::Status;
use crate::control::Inner;
use crate::control::ledger::Ledger;
use crate::store::{Change, CrlPolicyRecord, DeviceId, DeviceRecord, StoreError};

/// Whether [`Inner::undo`] knows what was there before. A list is kept with its CRL, which is not in
/// memory.
pub(crate) fn can_be_undone(changes: &[Change]) -> bool {
    !changes.iter().any(Change::is_of_a_list)
}

/// The certificates of inactive devices that changes remove: with them, what was there is put back.
/// Active ones are recorded again when they connect.
pub(crate) type Removed = HashMap<DeviceId, Bytes>;

impl Inner {
    /// What these changes remove and [`undo`](Self::undo) needs. To be asked before they are made.
    ///
    /// # Errors
    /// If the store cannot say it, or not in time.
    pub(crate) async fn removed_by(&self, changes: &[Change]) -> Result<Removed, StoreError> {
        let denied = denials_removed_by(&self.ledger(), changes);
        let mut removed = Removed::with_capacity(denied.len());
        if denied.is_empty() {
            return Ok(removed);
        }
        self.store_answers().await?;
        // Others wait for their turn. What has not been read by then can be put back all the same.
        let until = Instant::now() + self.store_limit;
        for some in denied.chunks(READ_AT_ONCE) {
            match self.certificates(some.to_vec()).await {
                Ok(ders) => {
                    let some = some.iter().cloned().zip(ders);
                    removed.extend(some.filter_map(|(device, der)| Some((device, der?))));
                }
                Err(error) if error.is_silence() => return Err(StoreError::NotAsked),
                Err(error) => return Err(error),
            }
            if Instant::now() >= until {
                break;
            }
        }
        Ok(removed)
    }

    /// What makes the rows as they are in memory: as they were before the changes.
    pub(crate) fn undo(&self, changes: &[Change], removed: &Removed) -> Vec<Change> {
        let ledger = self.ledger();
        let before = Before {
            devices: devices_of(&ledger, changes),
            ledger: &ledger,
            removed,
        };
        let undone = changes.iter().flat_map(|change| before.undo(change));
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

/// What there was.
struct Before<'a> {
    ledger: &'a Ledger,
    /// The devices that the changes name.
    devices: HashMap<DeviceId, DeviceRecord>,
    removed: &'a Removed,
}

impl Before<'_> {
    fn undo(&self, change: &Change) -> Vec<Change> {
        match change {
            Change::PutCa(record) => vec![match self.ledger.ca(record.id) {
                Some(ca) => Change::PutCa(ca.record.clone()),
                None => Change::DeleteCa(record.id),
            }],
            Change::DeleteCa(id) => {
                let ca = self.ledger.ca(*id);
                let ca = ca.map(|ca| Change::PutCa(ca.record.clone()));
                let devices = self.ledger.devices_under_ca(*id);
                // Others were moved before, and are moved back.
                let devices = devices.filter(|device| !self.devices.contains_key(&device.id()));
                let devices = devices.flat_map(|device| self.put_back(device.record()));
                let plans = self.ledger.schedules_of_ca(*id).into_iter();
                let plans = plans.filter_map(|plan| self.ledger.schedule(plan));
                let plans = plans.cloned().map(Change::PutSchedule);
                ca.into_iter().chain(devices).chain(plans).collect()
            }
            // One that is on record and was not, because it connected, may stay.
            Change::PutDevice { record, .. } => self.off_again(&record.id()),
            Change::SwitchDevice(record) => self.off_again(&record.id()),
            Change::MoveDevice { device, .. } => {
                let before = self.devices.get(device);
                let back = before.map(|before| Change::MoveDevice {
                    device: device.clone(),
                    to: before.ca,
                });
                let mut undone: Vec<_> = back.into_iter().collect();
                undone.extend(self.off_again(device));
                undone
            }
            Change::DeleteDevice(device) => {
                let before = self.devices.get(device).cloned();
                before.map_or_else(Vec::new, |before| self.put_back(before))
            }
            Change::PutRegisterCode(record) => vec![match self.ledger.code(&record.code) {
                Some(code) => Change::PutRegisterCode(code.clone()),
                None => Change::DeleteRegisterCode(record.code.clone()),
            }],
            Change::DeleteRegisterCode(code) => {
                let before = self.ledger.code(code).cloned();
                before.map(Change::PutRegisterCode).into_iter().collect()
            }
            Change::PutAccessKey(record) => vec![match self.ledger.key(&record.id) {
                Some(key) => Change::PutAccessKey(key.clone()),
                None => Change::DeleteAccessKey(record.id.clone()),
            }],
            Change::DeleteAccessKey(id) => {
                let before = self.ledger.key(id).cloned();
                before.map(Change::PutAccessKey).into_iter().collect()
            }
            Change::PutCrlPolicy(record) => vec![Change::PutCrlPolicy(CrlPolicyRecord {
                policy: self.ledger.crl_policy(&record.instance, record.issuer),
                ..record.clone()
            })],
            Change::PutSchedule(record) => vec![match self.ledger.schedule(record.id) {
                Some(schedule) => Change::PutSchedule(schedule.clone()),
                None => Change::DeleteSchedule(record.id),
            }],
            Change::DeleteSchedule(id) => {
                let before = self.ledger.schedule(*id).cloned();
                before.map(Change::PutSchedule).into_iter().collect()
            }
            Change::PutCrl { .. } | Change::DeleteCrl { .. } => Vec::new(),
        }
    }

    /// What was off stays off. What was on is let in whatever the disk says.
    fn off_again(&self, device: &DeviceId) -> Vec<Change> {
        let before = self.devices.get(device).cloned();
        let off = before.filter(|before| before.status == Status::Inactive);
        off.map(Change::SwitchDevice).into_iter().collect()
    }

    /// What denies is put back, if need be without a certificate.
    fn put_back(&self, record: DeviceRecord) -> Vec<Change> {
        let mut undone = Vec::new();
        if let Some(der) = self.removed.get(&record.id()).cloned() {
            let record = record.clone();
            undone.push(Change::PutDevice { record, der });
        }
        if record.status == Status::Inactive {
            undone.push(Change::SwitchDevice(record));
        }
        undone
    }
}

/// The devices that changes delete, each alone, or, if they are inactive, with their CA.
fn denials_removed_by(ledger: &Ledger, changes: &[Change]) -> Vec<DeviceId> {
    let named: HashSet<_> = changes.iter().filter_map(Change::device).collect();
    let mut removed = Vec::new();
    for change in changes {
        match change {
            Change::DeleteDevice(device) => removed.push(device.clone()),
            Change::DeleteCa(ca) => {
                let devices = ledger.devices_under_ca(*ca);
                let off = devices.filter(|device| device.status() == Status::Inactive);
                let off = off.map(|device| device.id());
                removed.extend(off.filter(|device| !named.contains(device)));
            }
            // Nothing else deletes any.
            _ => {}
        }
    }
    removed
}

/// The devices that changes name, as they are in memory. Those of their instances are looked through,
/// once.
fn devices_of(ledger: &Ledger, changes: &[Change]) -> HashMap<DeviceId, DeviceRecord> {
    let named: HashSet<_> = changes.iter().filter_map(Change::device).collect();
    let instances: HashSet<_> = named.iter().map(|device| &device.instance).collect();
    let devices = instances.into_iter().flat_map(|it| ledger.devices_of(it));
    devices
        .map(|device| (device.id(), device))
        .filter(|(id, _)| named.contains(id))
        .map(|(id, device)| (id, device.record()))
        .collect()
}

/// Certificates that are asked for together.
const READ_AT_ONCE: usize = 1_000;

//! The records in memory, as the listings show them.

mod crls;
mod devices;
pub(crate) mod schedules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use self::crls::Crls;
pub(crate) use self::crls::KeptCrl;
pub(crate) use self::devices::{Device, Devices};
use self::schedules::Schedules;

use crate::ca::certificate::CaCertificate;
use crate::ca::id::{AccessKeyId, CaId, CaKeyId, CertSerial, InstanceId};
use crate::ca::lifecycle::Status;
use crate::ca::registry::DeviceKey;
use crate::store::{AccessKeyRecord, CaRecord, DeviceRecord, RegisterCodeRecord};

/// A registered CA: what the store keeps of it, and the certificate as read.
#[derive(Debug, Clone)]
pub(crate) struct Ca {
    pub(crate) record: CaRecord,
    pub(crate) certificate: Arc<CaCertificate>,
}

/// All records.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    cas: HashMap<CaId, Ca>,
    by_sn: HashMap<CertSerial, CaId>,
    order: BTreeMap<InstanceId, BTreeSet<(i64, CaId)>>,
    by_key: HashMap<CaKeyId, BTreeSet<CaId>>,
    /// How often a CA came or went.
    ca_changes: HashMap<InstanceId, u64>,
    devices: Devices,
    codes: HashMap<String, RegisterCodeRecord>,
    keys: HashMap<AccessKeyId, AccessKeyRecord>,
    crls: Crls,
    schedules: Schedules,
}

impl Ledger {
    pub(crate) fn put_ca(&mut self, ca: Ca) {
        let id = ca.record.id;
        self.remove_ca(id);
        self.note_ca_change(&ca.record.instance);
        self.by_sn.insert(ca.certificate.serial().clone(), id);
        self.by_key
            .entry(ca.certificate.key_id())
            .or_default()
            .insert(id);
        self.order
            .entry(ca.record.instance.clone())
            .or_default()
            .insert((ca.record.registered_at_ms, id));
        self.cas.insert(id, ca);
    }

    pub(crate) fn set_ca_status(&mut self, id: CaId, status: Status) {
        if let Some(ca) = self.cas.get_mut(&id) {
            ca.record.status = status;
        }
    }

    pub(crate) fn remove_ca(&mut self, id: CaId) {
        let Some(ca) = self.cas.remove(&id) else {
            return;
        };
        if self.by_sn.get(ca.certificate.serial()) == Some(&id) {
            self.by_sn.remove(ca.certificate.serial());
        }
        if let Some(ids) = self.by_key.get_mut(&ca.certificate.key_id()) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_key.remove(&ca.certificate.key_id());
            }
        }
        if let Some(order) = self.order.get_mut(&ca.record.instance) {
            order.remove(&(ca.record.registered_at_ms, id));
        }
        self.note_ca_change(&ca.record.instance);
    }

    fn note_ca_change(&mut self, instance: &InstanceId) {
        let changes = self.ca_changes.entry(instance.clone()).or_default();
        *changes = changes.wrapping_add(1);
    }

    /// A number that goes up when a CA of the instance comes or goes.
    pub(crate) fn ca_changes(&self, instance: &InstanceId) -> u64 {
        self.ca_changes.get(instance).copied().unwrap_or_default()
    }

    pub(crate) fn ca(&self, id: CaId) -> Option<&Ca> {
        self.cas.get(&id)
    }

    pub(crate) fn cas(&self) -> impl Iterator<Item = &Ca> {
        self.cas.values()
    }

    /// The CA with this serial number, in any instance.
    pub(crate) fn ca_by_sn(&self, sn: &CertSerial) -> Option<&Ca> {
        self.by_sn.get(sn).and_then(|id| self.cas.get(id))
    }

    pub(crate) fn ca_count(&self, instance: &InstanceId) -> usize {
        self.order.get(instance).map_or(0, BTreeSet::len)
    }

    pub(crate) fn ca_page(
        &self,
        instance: &InstanceId,
        offset: usize,
        size: usize,
    ) -> impl Iterator<Item = &Ca> {
        self.order
            .get(instance)
            .into_iter()
            .flatten()
            .skip(offset)
            .take(size)
            .filter_map(|(_, id)| self.cas.get(id))
    }

    /// Certificates of the same instance, subject and key, this one left out.
    pub(crate) fn siblings(&self, ca: &Ca) -> Vec<CaId> {
        self.by_key
            .get(&ca.certificate.key_id())
            .into_iter()
            .flatten()
            .copied()
            .filter(|id| *id != ca.record.id)
            .filter(|id| {
                self.cas
                    .get(id)
                    .is_some_and(|sibling| sibling.record.instance == ca.record.instance)
            })
            .collect()
    }

    /// A certificate of this authority in this instance.
    pub(crate) fn ca_of(&self, instance: &InstanceId, key: CaKeyId) -> Option<CaId> {
        let ids = self.by_key.get(&key)?;
        let mut here = ids.iter().filter(|id| {
            self.cas
                .get(id)
                .is_some_and(|ca| &ca.record.instance == instance)
        });
        here.next().copied()
    }

    pub(crate) fn put_key(&mut self, key: AccessKeyRecord) {
        self.keys.insert(key.id.clone(), key);
    }

    pub(crate) fn remove_key(&mut self, id: &AccessKeyId) {
        self.keys.remove(id);
    }

    pub(crate) fn key(&self, id: &AccessKeyId) -> Option<&AccessKeyRecord> {
        self.keys.get(id)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &AccessKeyRecord> {
        self.keys.values()
    }

    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Replace all register codes.
    pub(crate) fn set_codes(&mut self, codes: Vec<RegisterCodeRecord>) {
        self.codes = codes
            .into_iter()
            .map(|code| (code.code.clone(), code))
            .collect();
    }

    pub(crate) fn put_code(&mut self, code: RegisterCodeRecord) {
        self.codes.insert(code.code.clone(), code);
    }

    pub(crate) fn remove_code(&mut self, code: &str) {
        self.codes.remove(code);
    }

    pub(crate) fn code(&self, code: &str) -> Option<&RegisterCodeRecord> {
        self.codes.get(code)
    }

    /// The codes that need not be kept any longer: those that have expired, and the oldest
    /// unused ones beyond `most` of an instance.
    pub(crate) fn stale_codes(
        &self,
        instance: &InstanceId,
        now_ms: i64,
        most: usize,
    ) -> Vec<String> {
        let (mut live, mut stale): (Vec<_>, Vec<_>) = self
            .codes
            .values()
            .filter(|code| &code.instance == instance)
            .partition(|code| code.expires_at_ms > now_ms);
        live.retain(|code| !code.used);
        live.sort_by_key(|code| code.expires_at_ms);
        let beyond = live.len().saturating_sub(most);
        stale.extend(live.into_iter().take(beyond));
        stale.into_iter().map(|code| code.code.clone()).collect()
    }
}

/// The key of a device in the gate.
pub(crate) fn device_key(device: &DeviceRecord) -> DeviceKey {
    DeviceKey {
        issuer: device.issuer,
        serial: device.serial.clone(),
    }
}

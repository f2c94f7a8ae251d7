//! The registered CAs and known devices of one instance: the truth for the gate.
//!
//! Reading never waits for a writer. Writers are serialized, and a change toward deny ends with
//! [`Registry::barrier`], after which no step of a handshake that began before it is still
//! running.

mod load;
mod revoked;

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::{DashMap, DashSet, Entry};

use crate::ca::by_digest::ByDigest;
use crate::ca::certificate::{Algorithms, CaCertificate};
use crate::ca::crl::{Revocations, Revoked};
use crate::ca::error::{OffReason, Refusal};
use crate::ca::id::{CaId, CaKeyId, CertSerial};
use crate::ca::lifecycle::Status;
use crate::ca::path::Admitted;
use crate::ca::path::signatures::{REMEMBERED, Signatures};
use crate::ca::topology::{Recomputed, SameKey, Topology, Verdict};
#[cfg(test)]
use crate::testing::schedule;

/// What a CA is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It signs device certificates; registered and switched through the API.
    Device,
    /// It signs certificates of in-broker administrators; named in the configuration.
    Admin,
}

/// A device certificate: unique by who issued it and its serial number there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey {
    /// The authority that signed it.
    pub issuer: CaKeyId,
    /// Its serial number.
    pub serial: CertSerial,
}

/// Why a CA certificate cannot be added to the registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Each handshake may have to try every CA of one subject.
    #[error(
        "{MAX_PER_SUBJECT} CA certificates with this subject are registered, the most there may be"
    )]
    TooManyWithSubject,
    /// An administrator's CA cannot be a device CA, nor the other way round.
    #[error("this authority is already registered for another purpose")]
    OtherPurpose,
}

/// A registered CA as the gate sees it.
#[derive(Debug, Clone)]
pub(crate) struct CaEntry {
    pub(crate) certificate: Arc<CaCertificate>,
    pub(crate) purpose: Purpose,
}

/// What a change did to trust: whom to look for among the connected peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Authorities that are off, have no certificate left, or have other lists of revoked
    /// certificates after the change.
    pub denied: Vec<CaKeyId>,
    /// Device certificates that the change switched off.
    pub devices: Vec<DeviceKey>,
}

/// What is known of a recorded device certificate.
#[derive(Debug, Clone, Copy)]
struct Device {
    status: Status,
    /// When it was last connected, Unix milliseconds; `None` if it was not since the start.
    seen_ms: Option<i64>,
}

/// The registered CAs and known devices of one instance.
#[derive(Debug)]
pub struct Registry {
    signatures: Signatures,
    by_subject: DashMap<Box<[u8]>, Vec<CaEntry>>,
    by_id: DashMap<CaId, CaEntry, ByDigest>,
    verdicts: DashMap<CaKeyId, Verdict, ByDigest>,
    /// Certificates whose own state is inactive: under [`SameKey::AllowActive`] their authority
    /// may be on, but not by them.
    inactive: DashSet<CaId, ByDigest>,
    /// Lists of revoked certificates, by who issues them.
    revocations: DashMap<CaKeyId, Arc<Revocations>, ByDigest>,
    /// Registered certificates that a list has.
    revoked: DashMap<CaId, Revoked, ByDigest>,
    /// When somebody last looked for lists that have expired.
    looked: AtomicI64,
    devices: DashMap<DeviceKey, Device>,
    /// The certificates of administrators' CAs, which are few.
    admins: DashMap<CaId, Arc<CaCertificate>, ByDigest>,
    topology: Mutex<Topology>,
    /// Whoever waits to write keeps new readers out: with the lock of the standard library steps that
    /// follow each other closely kept the barrier waiting.
    steps: parking_lot::RwLock<()>,
}

impl Registry {
    /// An empty registry: it admits nobody.
    ///
    /// `algorithms` are the signatures that certificates may carry.
    pub fn new(same_key: SameKey, algorithms: Algorithms) -> Self {
        Self {
            signatures: Signatures::new(algorithms, REMEMBERED),
            by_subject: DashMap::new(),
            by_id: DashMap::default(),
            verdicts: DashMap::default(),
            inactive: DashSet::default(),
            devices: DashMap::new(),
            revocations: DashMap::default(),
            revoked: DashMap::default(),
            looked: AtomicI64::new(i64::MIN),
            admins: DashMap::default(),
            topology: Mutex::new(Topology::new(same_key, algorithms)),
            steps: parking_lot::RwLock::new(()),
        }
    }

    /// Remember so many signatures on certificates that have held, 100,000 if nothing is said, so
    /// that they are not verified again when a device comes back; each takes up to 100 octets. With 0
    /// all are verified each time. Nothing else is remembered of a path.
    #[must_use]
    pub fn remembering(self, signatures: usize) -> Self {
        let algorithms = self.algorithms();
        Self {
            signatures: Signatures::new(algorithms, signatures),
            ..self
        }
    }

    /// Whether [`insert`](Self::insert) would take the certificate.
    ///
    /// # Errors
    /// As `insert`.
    pub fn can_insert(
        &self,
        certificate: &CaCertificate,
        purpose: Purpose,
    ) -> Result<(), RegistryError> {
        self.check(&self.lock(), certificate, purpose, 0)
    }

    /// `of_its_subject`: how many come with it.
    fn check(
        &self,
        topology: &Topology,
        certificate: &CaCertificate,
        purpose: Purpose,
        of_its_subject: usize,
    ) -> Result<(), RegistryError> {
        if let Some(registered) = self.by_id.get(&certificate.id()) {
            return match registered.purpose == purpose {
                true => Ok(()),
                false => Err(RegistryError::OtherPurpose),
            };
        }
        if topology.with_subject(certificate.subject()) + of_its_subject >= MAX_PER_SUBJECT {
            return Err(RegistryError::TooManyWithSubject);
        }
        let other_purpose =
            self.by_subject
                .get(certificate.subject())
                .is_some_and(|same_subject| {
                    same_subject.iter().any(|entry| {
                        entry.certificate.key_id() == certificate.key_id()
                            && entry.purpose != purpose
                    })
                });
        if other_purpose {
            return Err(RegistryError::OtherPurpose);
        }
        Ok(())
    }

    /// Register a certificate, or set the state of one that is registered.
    ///
    /// # Errors
    /// If there are too many of its subject already, or its authority has another purpose.
    pub fn insert(
        &self,
        certificate: Arc<CaCertificate>,
        purpose: Purpose,
        status: Status,
    ) -> Result<Effects, RegistryError> {
        let mut topology = self.lock();
        self.check(&topology, &certificate, purpose, 0)?;
        let recomputed = topology.insert(Arc::clone(&certificate), status);
        let id = certificate.id();
        // Verdicts first: no reader finds the certificate before it finds its state.
        let effects = self.publish_with(id, status, recomputed);
        self.enter(certificate, purpose);
        Ok(effects)
    }

    /// Let the gate find a certificate, whose state it can find.
    fn enter(&self, certificate: Arc<CaCertificate>, purpose: Purpose) {
        let id = certificate.id();
        if purpose == Purpose::Admin {
            self.admins.insert(id, Arc::clone(&certificate));
        }
        let entry = CaEntry {
            certificate,
            purpose,
        };
        if self.by_id.insert(id, entry.clone()).is_none() {
            self.by_subject
                .entry(entry.certificate.subject().into())
                .or_default()
                .push(entry);
        }
    }

    /// Set the own state of a certificate. Without effect if it is not registered.
    pub fn set_status(&self, id: CaId, status: Status) -> Effects {
        let mut topology = self.lock();
        if topology.status(id).is_none() {
            return Effects::default();
        }
        let recomputed = topology.set_status(id, status);
        self.publish_with(id, status, recomputed)
    }

    /// Forget a certificate. Without effect if it is not registered.
    pub fn remove(&self, id: CaId) -> Effects {
        let mut topology = self.lock();
        if let Some((_, entry)) = self.by_id.remove(&id) {
            let subject = entry.certificate.subject();
            if let Some(mut same_subject) = self.by_subject.get_mut(subject) {
                same_subject.retain(|other| other.certificate.id() != id);
            }
            self.by_subject
                .remove_if(subject, |_, left| left.is_empty());
        }
        let recomputed = topology.remove(id);
        let effects = self.publish(recomputed);
        self.inactive.remove(&id);
        self.revoked.remove(&id);
        self.admins.remove(&id);
        effects
    }

    /// The own state of a certificate, if it is registered.
    pub fn status(&self, id: CaId) -> Option<Status> {
        self.lock().status(id)
    }

    /// Why a registered certificate is off; `None` if it is on or not registered.
    pub fn off_reason(&self, id: CaId) -> Option<OffReason> {
        let key = self.by_id.get(&id)?.certificate.key_id();
        match self.verdict(key) {
            Some(Verdict::Off(culprit)) => Some(culprit.reason_for(id)),
            Some(Verdict::On) | None => None,
        }
    }

    /// The registered authorities below this one, itself included.
    pub fn at_or_below(&self, key: CaKeyId) -> Vec<CaKeyId> {
        self.lock().at_or_below(key)
    }

    /// The registered authorities that signed this certificate, directly or through others,
    /// nearest first.
    pub fn above(&self, id: CaId) -> Vec<CaKeyId> {
        self.lock().above(id)
    }

    /// Number of registered certificates, for any purpose.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no certificate is registered.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Record a device certificate with its state, or change the state of a recorded one. Whether it
    /// was recorded already.
    pub fn set_device(&self, device: DeviceKey, status: Status) -> bool {
        let new = Device {
            status,
            seen_ms: None,
        };
        match self.devices.entry(device) {
            Entry::Occupied(mut known) => {
                known.get_mut().status = status;
                true
            }
            Entry::Vacant(place) => {
                place.insert(new);
                false
            }
        }
    }

    /// Note that a device is or was connected at this moment (Unix milliseconds). Without effect if
    /// it is not recorded.
    pub fn note_device(&self, device: &DeviceKey, at_ms: i64) {
        if let Some(mut known) = self.devices.get_mut(device) {
            known.seen_ms = known.seen_ms.max(Some(at_ms));
        }
    }

    /// When a device was last noted, Unix milliseconds.
    pub fn device_seen(&self, device: &DeviceKey) -> Option<i64> {
        self.devices.get(device).and_then(|known| known.seen_ms)
    }

    /// Forget a device certificate.
    pub fn forget_device(&self, device: &DeviceKey) {
        self.devices.remove(device);
    }

    /// The state of a device certificate, if it is recorded.
    pub fn device_status(&self, device: &DeviceKey) -> Option<Status> {
        self.devices.get(device).map(|known| known.status)
    }

    /// Why somebody who was admitted would not be admitted again now; `None` if they would.
    ///
    /// Looks at states only: the signatures were checked, and `now` (Unix seconds) is compared
    /// with the dates that held for the whole path.
    pub fn objection(&self, admitted: &Admitted, now: i64) -> Option<Refusal> {
        self.objection_by(admitted, now, |key| self.verdict(key))
    }

    /// The same by these verdicts on the authorities of the path.
    pub(crate) fn objection_by(
        &self,
        admitted: &Admitted,
        now: i64,
        verdict: impl Fn(CaKeyId) -> Option<Verdict>,
    ) -> Option<Refusal> {
        for key in admitted.path() {
            if let Some(Verdict::Off(culprit)) = verdict(*key) {
                return Some(match self.entry(admitted.ca()) {
                    // Of another authority of the path than the one it was let in by.
                    Some(ca) if ca.certificate.key_id() != *key => culprit.refusal_alone(),
                    Some(_) | None => culprit.refusal(admitted.ca(), admitted.ca_sn()),
                });
            }
        }
        if verdict(admitted.anchor_key()).is_none() {
            return Some(Refusal::UnknownCa);
        }
        if self.device_status(admitted.device()) == Some(Status::Inactive) {
            return Some(Refusal::DeviceInactive);
        }
        if let Some(refusal) = self.revocation(admitted.issued(), now) {
            return Some(refusal);
        }
        if now > admitted.path_not_after() {
            return Some(Refusal::OutsideValidity(admitted.ends_first().clone()));
        }
        None
    }

    /// Run one step of a handshake, so that [`barrier`](Self::barrier) can wait for it.
    ///
    /// The step must not block: it is the work between two waits for the network.
    pub fn handshake_step<T>(&self, step: impl FnOnce() -> T) -> T {
        let _running = self.steps.read();
        step()
    }

    /// Wait until every handshake step that is running now has ended. Those that begin later
    /// see everything that was changed before this call.
    pub fn barrier(&self) {
        #[cfg(test)]
        schedule::wait_until(|| self.steps.try_write().is_some());
        drop(self.steps.write());
    }

    pub(crate) fn algorithms(&self) -> Algorithms {
        self.signatures.algorithms()
    }

    pub(crate) fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    /// The registered certificates with this subject.
    pub(crate) fn with_subject(&self, subject: &[u8]) -> Vec<CaEntry> {
        self.by_subject
            .get(subject)
            .map(|entries| entries.clone())
            .unwrap_or_default()
    }

    pub(crate) fn entry(&self, id: CaId) -> Option<CaEntry> {
        self.by_id.get(&id).map(|entry| entry.clone())
    }

    pub(crate) fn verdict(&self, key: CaKeyId) -> Option<Verdict> {
        self.verdicts.get(&key).map(|verdict| verdict.clone())
    }

    pub(crate) fn is_inactive(&self, id: CaId) -> bool {
        self.inactive.contains(&id)
    }

    /// [`publish`](Self::publish) in order with the own state of the certificate that changed.
    fn publish_with(&self, id: CaId, status: Status, recomputed: Recomputed) -> Effects {
        match status {
            Status::Inactive => {
                self.inactive.insert(id);
                self.publish(recomputed)
            }
            Status::Active => {
                let effects = self.publish(recomputed);
                self.inactive.remove(&id);
                effects
            }
        }
    }

    /// Deny first, allow last, so that a reader never sees more allowed than before or after.
    fn publish(&self, recomputed: Recomputed) -> Effects {
        let mut effects = Effects::default();
        let mut allowed = Vec::new();
        for (id, revoked) in recomputed.revoked {
            self.revoked.insert(id, revoked);
        }
        for (key, verdict) in recomputed.verdicts {
            #[cfg(test)]
            schedule::point();
            match verdict {
                Some(Verdict::On) => allowed.push(key),
                Some(off @ Verdict::Off(_)) => {
                    self.verdicts.insert(key, off);
                    effects.denied.push(key);
                }
                None => {
                    self.verdicts.remove(&key);
                    effects.denied.push(key);
                }
            }
        }
        for key in allowed {
            self.verdicts.insert(key, Verdict::On);
        }
        // Mostly there is none, and ten thousand would be looked for.
        if !self.revoked.is_empty() {
            for id in recomputed.not_revoked {
                self.revoked.remove(&id);
            }
        }
        effects
    }

    pub(crate) fn admins(&self) -> Vec<Arc<CaCertificate>> {
        self.admins.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, Topology> {
        // A panic in there can only leave verdicts that deny too much: they are published last.
        self.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handshake may have to try the signature of every CA with the issuer's subject, and the
/// path builder tries at most 100 signatures.
pub const MAX_PER_SUBJECT: usize = 32;

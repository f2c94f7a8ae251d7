//! Who is told of changes of trust, once they are in force and the audit log has them.
//!
//! What is told of a change that was asked for comes from what the audit log was given: the two
//! cannot differ. What another hand did in the store is recorded beside, and of the recording of
//! devices that connect only the observers are told. An instance's observer is told of that instance, and of the access keys of the account that owns it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::audit::{Event, Origin};
use crate::ca::crl::CrlPolicy;
use crate::ca::id::{AccountId, InstanceId};
use crate::ca::lifecycle::Status;
use crate::control::ca::word;
use crate::control::ledger::{Ca, Ledger};
use crate::control::pace::Ended;
use crate::control::{Answer, Control, ControlError, Inner, Instance, Record, origin};
use crate::store::DeviceRecord;

/// Is told of changes of trust. `mqtt` implements it.
pub trait Observer: Send + Sync + 'static {
    /// The change is in force. Must not wait: others cannot change anything meanwhile.
    fn changed(&self, change: &TrustChange);
}

/// A change of trust that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustChange {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// What was changed.
    pub subject: Subject,
    /// What became of it.
    pub happened: Happened,
    /// State before: `active` or `inactive`, or the policy if that has changed; `None` if it was not
    /// there.
    pub before: Option<&'static str>,
    /// State after; `None` if it is not there any more.
    pub after: Option<&'static str>,
    /// Whether a restart would know of it.
    pub durability: Durability,
    /// Live connections that were ended for it; `None` if that is not known.
    pub connections_ended: Option<usize>,
    /// The operation's name in the API and in the audit log.
    pub action: &'static str,
    /// Who asked for it, in the words of the audit log.
    pub principal: String,
    /// Through which door, in the words of the audit log; `store` if it was found in the database.
    pub door: &'static str,
    /// From where, if over the network.
    pub address: Option<SocketAddr>,
    /// The name of the call, if there was one.
    pub request_id: Option<String>,
}

/// What a change is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A CA certificate, by serial number.
    Ca {
        /// Its serial number.
        sn: String,
    },
    /// A device certificate.
    Device {
        /// Serial number of the CA it is listed under.
        ca_sn: String,
        /// Its serial number.
        serial: String,
    },
    /// An access key.
    AccessKey {
        /// Public half.
        id: String,
    },
}

/// What became of the subject of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// A CA was registered.
    Registered,
    /// A device was recorded.
    Recorded,
    /// An access key was made.
    Created,
    /// It was switched on.
    Activated,
    /// It was switched off.
    Inactivated,
    /// It was deleted.
    Deleted,
    /// An access key may do something else from now on.
    PolicyChanged,
    /// Something else is demanded of the lists of a CA.
    CrlPolicyChanged,
}

impl Happened {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Recorded => "recorded",
            Self::Created => "created",
            Self::Activated => "activated",
            Self::Inactivated => "inactivated",
            Self::Deleted => "deleted",
            Self::PolicyChanged => "policy_changed",
            Self::CrlPolicyChanged => "crl_policy_changed",
        }
    }
}

/// Whether a restart would know of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is in force in memory, and the disk failed.
    InMemory,
    /// It is on disk.
    OnDisk,
}

impl Subject {
    /// The subject of an audit record.
    fn of(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        match kind {
            "ca" => Some(Self::Ca {
                sn: name.to_owned(),
            }),
            "device" => name.split_once('/').map(|(ca_sn, serial)| Self::Device {
                ca_sn: ca_sn.to_owned(),
                serial: serial.to_owned(),
            }),
            "access_key" => Some(Self::AccessKey {
                id: name.to_owned(),
            }),
            _ => None,
        }
    }

    /// What the states before and after say has happened; `None` if nothing has.
    fn happened(&self, before: Option<&str>, after: Option<&str>) -> Option<Happened> {
        match (before, after) {
            (None, None) => None,
            (None, Some(_)) => Some(match self {
                Self::Ca { .. } => Happened::Registered,
                Self::Device { .. } => Happened::Recorded,
                Self::AccessKey { .. } => Happened::Created,
            }),
            (Some(_), None) => Some(Happened::Deleted),
            (Some(before), Some(after)) if before == after => None,
            (Some(_), Some(after)) if after == word(Status::Inactive) => {
                Some(Happened::Inactivated)
            }
            (Some(_), Some(after)) if after == word(Status::Active) => Some(Happened::Activated),
            (Some(_), Some(after)) if CrlPolicy::find(after).is_some() => {
                Some(Happened::CrlPolicyChanged)
            }
            (Some(_), Some(_)) => None,
        }
    }
}

impl Control {
    /// Say who is told of the changes of an instance. The first word counts.
    pub fn observe(&self, instance: &InstanceId, observer: Arc<dyn Observer>) {
        if let Some(at) = self.0.instances.get(instance) {
            let _ = at.observer.set(observer);
        }
    }
}

impl Inner {
    /// Tell of a change of an instance, if something is different now.
    pub(crate) fn tell(&self, at: &Instance, record: &Record<'_>, result: &Answer<Ended>) {
        if let Some(observer) = at.observer.get()
            && let Some(change) = self.change_of(record, result)
        {
            observer.changed(&change);
        }
    }

    /// Tell of a change of an access key in the instances that it may be used for.
    pub(crate) fn tell_of_key(
        &self,
        account: &AccountId,
        record: &Record<'_>,
        result: &Answer<Ended>,
    ) {
        let Some(change) = self.change_of(record, result) else {
            return;
        };
        let own = self.instances.values();
        for at in own.filter(|at| at.account == *account) {
            if let Some(observer) = at.observer.get() {
                observer.changed(&change);
            }
        }
    }

    fn change_of(&self, record: &Record<'_>, result: &Answer<Ended>) -> Option<TrustChange> {
        let (durability, connections_ended) = match result {
            Ok(ended) => (Durability::OnDisk, Some(ended.at_once)),
            Err(ControlError::NotDurable(_)) => (Durability::InMemory, None),
            Err(ControlError::Unrecorded(_)) => (Durability::OnDisk, None),
            Err(_) => return None,
        };
        let subject = Subject::of(&record.subject)?;
        let happened = match subject.happened(record.before, record.after) {
            // A key's policy is what its records have a note about.
            None if matches!(subject, Subject::AccessKey { .. }) && record.note.is_some() => {
                Happened::PolicyChanged
            }
            happened => happened?,
        };
        let Origin {
            principal,
            request_id,
            ..
        } = origin(record.caller);
        Some(TrustChange {
            at_ms: self.now_ms(),
            subject,
            happened,
            before: record.before,
            after: record.after,
            durability,
            connections_ended,
            action: record.action,
            principal,
            door: record.caller.door.as_str(),
            address: record.caller.address,
            request_id: Some(request_id),
        })
    }

    /// Tell that a device was recorded because it connected.
    pub(crate) fn tell_recorded(&self, at: &Instance, ca_sn: String, device: &DeviceRecord) {
        let subject = Subject::Device {
            ca_sn,
            serial: device.serial.to_string(),
        };
        self.tell_unasked(
            at,
            "RecordDeviceCertificate",
            "system",
            subject,
            None,
            Some(device.status),
        );
    }

    /// Tell what another hand has done to a CA in the store.
    pub(crate) fn tell_found_ca(
        &self,
        at: &Instance,
        ca: &Ca,
        before: Option<Status>,
        after: Option<Status>,
    ) {
        let sn = ca.certificate.serial().to_string();
        self.record_found(Some(at), format!("ca:{sn}"), before, after);
        self.tell_unasked(at, FOUND, "store", Subject::Ca { sn }, before, after);
    }

    /// Record what another hand has done in the store.
    pub(crate) fn record_found(
        &self,
        at: Option<&Instance>,
        subject: String,
        before: Option<Status>,
        after: Option<Status>,
    ) {
        let detail = "another hand changed it in the database".to_owned();
        let mut event = Event::of_itself(FOUND, subject, detail);
        "store".clone_into(&mut event.origin.door);
        event.instance = at.map(|at| at.id.to_string());
        event.before = before.map(|it| word(it).to_owned());
        event.after = after.map(|it| word(it).to_owned());
        self.recorder.owe(self.now_ms(), event);
    }

    /// Tell what another hand has done to a device in the store.
    pub(crate) fn tell_found_device(
        &self,
        at: &Instance,
        ledger: &Ledger,
        device: &DeviceRecord,
        before: Option<Status>,
        after: Option<Status>,
    ) {
        // With a CA its devices go, of which nobody is told.
        let Some(ca) = ledger.ca(device.ca) else {
            return;
        };
        let (ca_sn, serial) = (
            ca.certificate.serial().to_string(),
            device.serial.to_string(),
        );
        self.record_found(Some(at), format!("device:{ca_sn}/{serial}"), before, after);
        let subject = Subject::Device { ca_sn, serial };
        self.tell_unasked(at, FOUND, "store", subject, before, after);
    }

    fn tell_unasked(
        &self,
        at: &Instance,
        action: &'static str,
        door: &'static str,
        subject: Subject,
        before: Option<Status>,
        after: Option<Status>,
    ) {
        let Some(observer) = at.observer.get() else {
            return;
        };
        let (before, after) = (before.map(word), after.map(word));
        let Some(happened) = subject.happened(before, after) else {
            return;
        };
        observer.changed(&TrustChange {
            at_ms: self.now_ms(),
            subject,
            happened,
            before,
            after,
            durability: Durability::OnDisk,
            connections_ended: None,
            action,
            principal: "system".to_owned(),
            door,
            address: None,
            request_id: None,
        });
    }
}

/// What is done by another hand has no operation's name.
const FOUND: &str = "TakeOverFromStore";

//! What a change of trust would cut, found out before it is made.
//!
//! The states come from one moment; connections and devices are walked through after it, some at a
//! time, so that neither handshakes nor changes wait.

mod survey;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::ca::error::OffReason;
use crate::ca::id::CertSerial;
use crate::ca::lifecycle::Status;
use crate::ca::outlook::{Proposal, Shift};
use crate::ca::registry::Purpose;
use crate::ca::topology::SameKey;
use crate::control::ledger::device_key;
use crate::control::lockout::LockedOut;
use crate::control::{Answer, Caller, Control, ControlError, Instance, Need, OnInactivate};

/// A change of a CA or a device that is thought of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intended {
    /// It is switched off.
    Inactivate,
    /// Its record goes.
    Delete,
}

/// What a change of a CA would do.
#[derive(Debug, Clone)]
pub struct CaImpact {
    /// The change.
    pub change: Intended,
    /// The CA.
    pub ca: CaLine,
    /// Whether connections would end or go on.
    pub on_inactivate: OnInactivate,
    /// Connections whose trust would end.
    pub connections: usize,
    /// Connections whose trust has ended, which are ending over a time and would end at once.
    pub ending: usize,
    /// The first of both; `None` if the caller may not see sessions.
    pub clients: Option<Vec<ClientLine>>,
    /// The devices recorded under the CAs that would admit nobody any more.
    pub devices: DeviceTally,
    /// What one inactive certificate means for the others of its key.
    pub same_key_policy: SameKey,
    /// Other certificates of the same subject and key.
    pub same_key: Few<CaLine>,
    /// CAs below it.
    pub below: Few<CaLine>,
    /// CAs above it, nearest first.
    pub above: Few<CaLine>,
    /// Registered CAs over which its devices would get in all the same.
    pub still_admitted_by: Few<Other>,
    /// CAs that admit nobody now and would again.
    pub let_in_again: Few<CaLine>,
    /// Who would lose access to the broker's administration.
    pub locked_out: Option<LockedOut>,
}

/// What a change of a device would do.
#[derive(Debug, Clone)]
pub struct DeviceImpact {
    /// The change.
    pub change: Intended,
    /// Serial number of the CA it is listed under.
    pub ca_sn: CertSerial,
    /// Its serial number.
    pub sn: CertSerial,
    /// Its common name, or empty.
    pub name: String,
    /// Its own state.
    pub status: Status,
    /// Whether connections would end or go on.
    pub on_inactivate: OnInactivate,
    /// Connections whose trust would end.
    pub connections: usize,
    /// The first of them; `None` if the caller may not see sessions.
    pub clients: Option<Vec<ClientLine>>,
    /// When it was last connected.
    pub seen: Seen,
}

/// The first of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Few<T> {
    /// At most [`MOST_LISTED`].
    pub items: Vec<T>,
    /// How many there are.
    pub total: usize,
}

/// A CA certificate that a change concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaLine {
    /// Its serial number.
    pub sn: CertSerial,
    /// Name given at registration; empty for an administrators' CA.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its own state.
    pub status: Status,
    /// Why it admits nobody now.
    pub off: Option<OffReason>,
    /// Why it would admit nobody after the change; `None` also if it is gone then.
    pub off_after: Option<OffReason>,
    /// Which way it would go.
    pub shift: Shift,
    /// Devices recorded under it.
    pub devices: usize,
}

/// A CA that would admit the same devices all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its serial number.
    pub sn: CertSerial,
    /// Name given at registration.
    pub name: String,
    /// How.
    pub way: Way,
}

/// How devices would get in although their CA is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It has the same subject and key.
    SameKey,
    /// It stands above, and a device can send the certificate of its CA itself.
    Above,
    /// Devices of an intermediate that is not registered are connected over both.
    Seen,
}

/// A connected client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLine {
    /// Client id and address; `None` before CONNECT.
    pub called: Option<(String, SocketAddr)>,
    /// Serial number of the registered CA that let it in.
    pub ca_sn: CertSerial,
    /// Serial number of its certificate.
    pub device_sn: CertSerial,
    /// Common name of its certificate, or empty.
    pub name: String,
}

/// When a device was last connected. Kept in memory: what was before the start is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not since the start.
    No,
    /// At this time, Unix milliseconds.
    At(i64),
    /// It is connected.
    Now,
}

/// Recorded devices, by when they were last connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceTally {
    /// All of them.
    pub recorded: usize,
    /// Those that are inactive themselves.
    pub inactive: usize,
    /// Those that are connected.
    pub connected: usize,
    /// Those that are not, and were within a day.
    pub within_day: usize,
    /// Within a week, not within a day.
    pub within_week: usize,
    /// Longer ago, after the start of the broker.
    pub earlier: usize,
    /// Not since the start.
    pub not_seen: usize,
    /// When one of those that are not connected was last connected, Unix milliseconds.
    pub last_seen_ms: Option<i64>,
}

impl Control {
    /// What a change of a CA would do. Nothing is changed.
    ///
    /// # Errors
    /// If there is no such CA, or the caller may not see it.
    pub async fn preview_ca_change(
        &self,
        caller: &Caller,
        instance: &str,
        sn: &str,
        change: Intended,
    ) -> Answer<CaImpact> {
        let at = self.0.authorize(caller, instance, Need::GetCaCertificate)?;
        let ca = self.0.find_ca(at, sn)?;
        let certificate = Arc::clone(&ca.certificate);
        let proposal = match change {
            Intended::Inactivate => Proposal::Status(certificate, Status::Inactive),
            Intended::Delete => Proposal::Removal(certificate),
        };
        let clients = self.clients_for(caller, instance);
        let (inner, id, owned) = (Arc::clone(&self.0), at.id.clone(), caller.clone());
        let impact = at.aside(caller.door, move || {
            let at = inner.instances.get(&id)?;
            let impact = inner.survey(at, &ca, change, &proposal, clients);
            Some(CaImpact {
                locked_out: inner.locked_out(at, &owned, &proposal),
                ..impact
            })
        });
        let impact = impact.await?;
        // Once more: a key that was revoked while the call waited is told nothing.
        self.0.authorize(caller, instance, Need::GetCaCertificate)?;
        impact.ok_or_else(|| ControlError::InstanceNotFound(instance.to_owned()))
    }

    /// What a change of a device would do. Nothing is changed.
    ///
    /// # Errors
    /// If there is no such device, or the caller may not see it.
    pub async fn preview_device_change(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: &str,
        device_sn: &str,
        change: Intended,
    ) -> Answer<DeviceImpact> {
        let at = self
            .0
            .authorize(caller, instance, Need::GetDeviceCertificate)?;
        let (ca, devices) = self.0.find_devices(at, ca_sn, device_sn)?;
        let shown = devices
            .first()
            .ok_or_else(|| ControlError::DeviceNotFound(device_sn.to_owned()))?;
        let mut clients = self.clients_for(caller, instance);
        // To forget a record ends nothing.
        let ended: Vec<_> = match change {
            Intended::Inactivate => devices.iter().map(device_key).collect(),
            Intended::Delete => Vec::new(),
        };
        let peers = Arc::clone(&at.peers);
        // A certificate may be that of a whole fleet.
        let counted = at.aside(caller.door, move || {
            let mut connections = 0;
            for device in &ended {
                peers.visit_device(device, |peer, called| {
                    connections += 1;
                    survey::note(&mut clients, peer, called);
                });
            }
            (connections, clients)
        });
        let (connections, clients) = counted.await?;
        // Once more: a key that was revoked while the call waited is told nothing.
        self.0
            .authorize(caller, instance, Need::GetDeviceCertificate)?;
        Ok(DeviceImpact {
            change,
            ca_sn: ca.certificate.serial().clone(),
            sn: shown.serial.clone(),
            name: shown.name.clone(),
            status: shown.status,
            on_inactivate: at.on_inactivate,
            connections,
            clients,
            seen: at.seen(&device_key(shown)),
        })
    }

    /// Since when devices are noted, Unix milliseconds.
    pub fn began_ms(&self) -> i64 {
        self.0.began_ms
    }

    /// An empty list for the clients, if the caller may see sessions.
    fn clients_for(&self, caller: &Caller, instance: &str) -> Option<Vec<ClientLine>> {
        let may = self.0.authorize(caller, instance, Need::ListSessions);
        may.is_ok().then(Vec::new)
    }
}

impl Instance {
    fn seen(&self, device: &crate::ca::registry::DeviceKey) -> Seen {
        match self.peers.is_connected(device) {
            true => Seen::Now,
            false => match self.registry.device_seen(device) {
                Some(at_ms) => Seen::At(at_ms),
                None => Seen::No,
            },
        }
    }
}

/// Entries of a list.
pub const MOST_LISTED: usize = 100;

/// Clients that are named.
pub const MOST_CLIENTS: usize = 20;

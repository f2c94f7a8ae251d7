//! The operations on device certificates, and how they are recorded.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::ca::certificate::{parse, to_pem, validity};
use crate::ca::id::CertSerial;
use crate::ca::lifecycle::Status;
use crate::ca::registry::Effects;
use crate::control::ca::{shown, word};
use crate::control::change::{Toward, Turn, WHILE_IT_HANGS};
use crate::control::ledger::{Ca, device_key};
use crate::control::{
    Answer, Caller, Changed, Control, ControlError, DeviceView, Inner, Instance, Need, Page,
    PageRequest, Record,
};
use crate::store::{Change, DeviceId, DeviceRecord, StoreError};
use crate::tls::peer::{Purpose, VerifiedPeer};

impl Control {
    /// Note a device that was let in: it is recorded, as active, if it is not known yet.
    ///
    /// Returns at once; the record is written soon after. If too many new devices come at a
    /// time, some are recorded at a later connection.
    pub fn device_admitted(&self, peer: &VerifiedPeer) {
        self.device_seen(peer);
        let known = self.0.instances.get(peer.instance()).is_none_or(|at| {
            at.registry
                .device_status(peer.admitted().device())
                .is_some()
        });
        match peer.purpose() {
            Purpose::Device if !known => {
                if self.0.seen.try_send(peer.clone()).is_err() {
                    metrics::counter!("portcullis_devices_unrecorded_total").increment(1);
                }
            }
            Purpose::Device | Purpose::Admin => {}
        }
    }

    /// Note that a device was connected until now.
    pub fn device_seen(&self, peer: &VerifiedPeer) {
        if let Some(at) = self.0.instances.get(peer.instance()) {
            let device = peer.admitted().device();
            at.registry.note_device(device, self.0.now_ms());
        }
    }

    /// Device certificates of the instance; only those of one CA if `ca_sn` is given.
    ///
    /// # Errors
    /// If the caller may not, or there is no such CA.
    pub async fn list_devices(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: Option<&str>,
        page: PageRequest,
    ) -> Answer<Page<DeviceView>> {
        let need = match ca_sn {
            Some(_) => Need::ListDeviceCertificateByCaSn,
            None => Need::ListDeviceCertificate,
        };
        let at = self.0.authorize(caller, instance, need)?;
        let ca = ca_sn.map(|sn| self.0.find_ca(at, sn)).transpose()?;
        let (devices, total) = {
            let ledger = self.0.ledger();
            let (offset, size) = (page.offset(), page.size);
            let (devices, total): (Vec<DeviceRecord>, usize) = match ca {
                Some(ca) => (
                    ledger
                        .devices_under(&at.id, ca.record.id)
                        .skip(offset)
                        .take(size)
                        .map(|device| device.record())
                        .collect(),
                    ledger.devices_under(&at.id, ca.record.id).count(),
                ),
                None => (
                    ledger
                        .devices_of(&at.id)
                        .skip(offset)
                        .take(size)
                        .map(|device| device.record())
                        .collect(),
                    ledger.device_count(&at.id),
                ),
            };
            let under = |device: DeviceRecord| {
                let ca_sn = ledger.ca(device.ca)?.certificate.serial().clone();
                Some((device, ca_sn))
            };
            let devices: Vec<_> = devices.into_iter().filter_map(under).collect();
            (devices, total)
        };
        let items = self.0.view_devices(devices).await;
        Ok(Page { items, total })
    }

    /// One device certificate.
    ///
    /// # Errors
    /// If there is none, or the caller may not.
    pub async fn get_device(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: &str,
        device_sn: &str,
    ) -> Answer<DeviceView> {
        let at = self
            .0
            .authorize(caller, instance, Need::GetDeviceCertificate)?;
        let (ca, devices) = self.0.find_devices(at, ca_sn, device_sn)?;
        let one = devices.into_iter().next();
        let one = one.map(|device| (device, ca.certificate.serial().clone()));
        let shown_devices = self.0.view_devices(one.into_iter().collect()).await;
        let first = shown_devices.into_iter().next();
        first.ok_or_else(|| ControlError::DeviceNotFound(shown(device_sn)))
    }

    /// Switch a device certificate off or on.
    ///
    /// # Errors
    /// [`ControlError::NotDurable`] if it is denied, but a restart might forget it; otherwise
    /// nothing was changed.
    pub async fn set_device_status(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: &str,
        device_sn: &str,
        status: Status,
    ) -> Answer<Changed> {
        let (action, need, toward) = match status {
            Status::Inactive => (
                "InactivateDeviceCertificate",
                Need::UnregisterDeviceCertificate,
                Toward::Deny,
            ),
            Status::Active => (
                "ActiveDeviceCertificate",
                Need::ActiveDeviceCertificate,
                Toward::Allow,
            ),
        };
        let step = Step {
            action,
            need,
            toward,
            after: Some(status),
        };
        self.change_device(caller, instance, ca_sn, device_sn, step)
            .await
    }

    /// Forget a device certificate; it is recorded again, as active, at its next connection.
    /// Connections that are open go on.
    ///
    /// # Errors
    /// If there is none, the caller may not, or it cannot be made durable.
    pub async fn delete_device(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: &str,
        device_sn: &str,
    ) -> Answer<Changed> {
        // To delete an inactive certificate lets it in again.
        let step = Step {
            action: "DeleteDeviceCertificate",
            need: Need::DeleteDeviceCertificate,
            toward: Toward::Allow,
            after: None,
        };
        self.change_device(caller, instance, ca_sn, device_sn, step)
            .await
    }

    async fn change_device(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: &str,
        device_sn: &str,
        step: Step,
    ) -> Answer<Changed> {
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let (instance, ca_sn, device_sn) =
            (instance.to_owned(), ca_sn.to_owned(), device_sn.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let mut record = Record {
                caller: &caller,
                action: step.action,
                instance: Some(&instance),
                subject: format!("device:{}/{}", shown(&ca_sn), shown(&device_sn)),
                before: None,
                after: step.after.map(word),
                note: None,
            };
            let plan = inner
                .authorize(&caller, &instance, step.need)
                .and_then(|at| {
                    let (ca, mut devices) = inner.find_devices(at, &ca_sn, &device_sn)?;
                    // A serial number may be that of several, below a CA that stands for others. What
                    // allows means the one that the CA itself has issued.
                    let own = ca.certificate.key_id();
                    let is_own = |device: &DeviceRecord| device.issuer == own;
                    if step.toward == Toward::Allow && devices.iter().any(is_own) {
                        devices.retain(is_own);
                    }
                    Ok((at, ca, devices))
                });
            let (at, ca, devices) = inner.or_refused(&record, plan).await?;
            let sn = devices
                .first()
                .map(|device| device.serial.clone())
                .ok_or_else(|| ControlError::DeviceNotFound(shown(&device_sn)))?;
            record.subject = format!("device:{}/{sn}", ca.certificate.serial());
            record.before = devices.first().map(|device| word(device.status));
            let changes = step.changes(&devices);
            let changed = !changes.is_empty();
            let registry = Arc::clone(&at.registry);
            let sessions_ended = inner
                .carry_out(&mut turn, &record, at, step.toward, changes, |inner| {
                    let mut ledger = inner.ledger_mut();
                    let mut effects = Effects::default();
                    for device in devices {
                        match step.after {
                            Some(status) => {
                                registry.set_device(device_key(&device), status);
                                if status == Status::Inactive {
                                    effects.devices.push(device_key(&device));
                                }
                                ledger.put_device(DeviceRecord { status, ..device });
                            }
                            None => {
                                registry.forget_device(&device_key(&device));
                                ledger.remove_device(&device);
                            }
                        }
                    }
                    effects
                })
                .await?;
            Ok(Changed {
                sn,
                changed,
                sessions_ended,
            })
        })
        .await
    }
}

/// What is to happen to a device certificate.
#[derive(Clone, Copy)]
struct Step {
    action: &'static str,
    need: Need,
    toward: Toward,
    /// `None`: its record goes.
    after: Option<Status>,
}

impl Step {
    fn changes(self, devices: &[DeviceRecord]) -> Vec<Change> {
        devices
            .iter()
            .filter(|device| Some(device.status) != self.after)
            .cloned()
            .map(|device| match self.after {
                Some(status) => Change::SwitchDevice(DeviceRecord { status, ..device }),
                None => Change::DeleteDevice(device.id()),
            })
            .collect()
    }
}

impl Inner {
    /// What is shown of these devices, each under the CA of this serial number. Whoever wants to shut
    /// one out finds it also while the store does not answer, then without certificates.
    async fn view_devices(&self, devices: Vec<(DeviceRecord, CertSerial)>) -> Vec<DeviceView> {
        let ids = devices.iter().map(|(device, _)| device.id()).collect();
        let mut ders = self.certificates(ids).await.unwrap_or_else(|error| {
            tracing::error!(%error, "devices are shown without their certificates, which cannot be read");
            Vec::new()
        });
        ders.resize(devices.len(), None);
        let devices = devices.into_iter().zip(ders);
        devices
            .map(|((device, ca_sn), der)| view(device, ca_sn, der.as_deref()))
            .collect()
    }

    /// The certificates of these devices, which the store alone has.
    ///
    /// # Errors
    /// If it cannot read them, or does not answer in time.
    pub(crate) async fn certificates(
        &self,
        devices: Vec<DeviceId>,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        if devices.is_empty() {
            return Ok(Vec::new());
        }
        // Those who come after one who has waited in vain hardly wait, until one is answered.
        if self.lookups_hang.load(Ordering::Acquire) {
            let one = devices.iter().take(1).cloned().collect();
            let read = self.store.device_certificates(one);
            if tokio::time::timeout(WHILE_IT_HANGS, read).await.is_err() {
                return Err(StoreError::Silent(WHILE_IT_HANGS));
            }
        }
        let read = self.store.device_certificates(devices);
        let read = tokio::time::timeout(self.store_limit, read).await;
        self.lookups_hang.store(read.is_err(), Ordering::Release);
        read.unwrap_or(Err(StoreError::Silent(self.store_limit)))
    }

    pub(crate) fn find_devices(
        &self,
        at: &Instance,
        ca_sn: &str,
        device_sn: &str,
    ) -> Answer<(Ca, Vec<DeviceRecord>)> {
        let ca = self.find_ca(at, ca_sn)?;
        let serial: CertSerial = device_sn
            .parse()
            .map_err(|error| ControlError::Parameter(format!("DeviceSn: {error}")))?;
        let mut devices = self.ledger().devices_named(&ca, &serial);
        // The first is shown.
        let own = ca.certificate.key_id();
        devices.sort_by_key(|device| device.issuer != own);
        if devices.is_empty() {
            return Err(ControlError::DeviceNotFound(shown(device_sn)));
        }
        Ok((ca, devices))
    }

    /// Write down the devices that were let in for the first time, those that wait together in
    /// one commit.
    pub(crate) async fn record_devices(self: Arc<Self>, mut seen: mpsc::Receiver<VerifiedPeer>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = seen.recv_many(&mut batch, MOST_AT_ONCE) => if count == 0 { return },
                () = self.closing.cancelled() => return,
            }
            let mut turn = self.turn.lock().await;
            if let Err(StoreError::Conflict { .. }) = self.record_batch(&mut turn, &batch).await {
                // Another hand may have recorded some of them, or taken their CA away.
                let _ = self.record_batch(&mut turn, &batch).await;
            }
            batch.clear();
        }
    }

    async fn record_batch(
        &self,
        turn: &mut Turn,
        batch: &[VerifiedPeer],
    ) -> Result<(), StoreError> {
        let mut records: Vec<DeviceRecord> = Vec::new();
        let mut changes = Vec::new();
        for peer in batch {
            let Some(at) = self.instances.get(peer.instance()) else {
                continue;
            };
            let ledger = self.ledger();
            let known = at
                .registry
                .device_status(peer.admitted().device())
                .is_some()
                || records
                    .iter()
                    .any(|r| &device_key(r) == peer.admitted().device());
            // Its CA may have been deleted since.
            if known
                || ledger.ca(peer.ca()).is_none()
                || ledger.device_count(&at.id) + records.len() >= self.settings.max_devices
            {
                continue;
            }
            let record = DeviceRecord {
                instance: at.id.clone(),
                issuer: peer.issuer(),
                serial: peer.serial().clone(),
                ca: peer.ca(),
                name: peer.common_name().unwrap_or_default().to_owned(),
                status: Status::Active,
                first_seen_ms: self.now_ms(),
            };
            records.push(record.clone());
            let der = Bytes::copy_from_slice(peer.der());
            changes.push(Change::PutDevice { record, der });
        }
        if let Err(error) = self.commit(turn, changes, Toward::Allow).await {
            tracing::error!(%error, devices = records.len(), "new devices could not be recorded");
            return Err(error);
        }
        for record in records {
            if let Some(at) = self.instances.get(&record.instance) {
                at.registry.set_device(device_key(&record), Status::Active);
                let ca = self.ledger().ca(record.ca).cloned();
                let ca_sn = ca.map(|ca| ca.certificate.serial().to_string());
                self.tell_recorded(at, ca_sn.unwrap_or_default(), &record);
                at.registry
                    .note_device(&device_key(&record), record.first_seen_ms);
            }
            self.ledger_mut().put_device(record);
        }
        Ok(())
    }
}

/// What is shown of a device, with this as its certificate if it is one.
fn view(device: DeviceRecord, ca_sn: CertSerial, der: Option<&[u8]>) -> DeviceView {
    let certificate = der.and_then(|der| Some((to_pem(der), validity(&parse(der).ok()?).ok()?)));
    let (pem, (not_before, not_after)) = certificate.unwrap_or_default();
    DeviceView {
        ca_sn,
        name: device.name,
        pem,
        not_before,
        not_after,
        status: device.status,
        first_seen_ms: device.first_seen_ms,
        instance: device.instance,
        serial: device.serial,
    }
}

/// New devices that go into one commit.
const MOST_AT_ONCE: usize = 512;

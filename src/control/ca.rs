//! The operations on CA certificates.

use std::sync::Arc;

use crate::ca::certificate::CaCertificate;
use crate::ca::id::CertSerial;
use crate::ca::lifecycle::Status;
use crate::ca::outlook::Proposal;
use crate::ca::registry::{Effects, Purpose};
use crate::control::change::Toward;
use crate::control::ledger::{Ca, device_key};
use crate::control::lockout::{Lockouts, noted};
use crate::control::schedule::cancelled_text;
use crate::control::{
    Answer, CaRefusal, CaView, Caller, Changed, Control, ControlError, Door, Inner, Instance, Need,
    Page, PageRequest, Record,
};
use crate::store::{CaRecord, Change, DeviceRecord, RegisterCodeRecord};

impl Control {
    /// Register a CA with proof that the caller holds its key: `verification_pem` is a
    /// certificate signed by that key, with the register code as common name.
    ///
    /// # Errors
    /// Everything that can be wrong with the certificates, the code, the number of CAs.
    pub async fn register_ca(
        &self,
        caller: &Caller,
        instance: &str,
        name: &str,
        ca_pem: &str,
        verification_pem: &str,
    ) -> Answer<CertSerial> {
        let verification = Some(verification_pem);
        self.register(
            caller,
            instance,
            name,
            ca_pem,
            verification,
            Lockouts::Refuse,
        )
        .await
    }

    /// Register a CA without proof of possession; only for [`Door::Host`] and [`Door::System`].
    ///
    /// # Errors
    /// As [`register_ca`](Self::register_ca).
    pub async fn register_ca_unproved(
        &self,
        caller: &Caller,
        instance: &str,
        name: &str,
        ca_pem: &str,
    ) -> Answer<CertSerial> {
        self.register(caller, instance, name, ca_pem, None, Lockouts::Refuse)
            .await
    }

    /// Register a CA, with proof of possession or without; `lockouts` says what is done if it
    /// brings the administrators' CA under one that is off.
    ///
    /// # Errors
    /// As [`register_ca`](Self::register_ca) and
    /// [`register_ca_unproved`](Self::register_ca_unproved).
    pub async fn register(
        &self,
        caller: &Caller,
        instance: &str,
        name: &str,
        ca_pem: &str,
        verification_pem: Option<&str>,
        lockouts: Lockouts,
    ) -> Answer<CertSerial> {
        if let (Door::Http | Door::Mqtt, None) = (caller.door, verification_pem) {
            return Err(ControlError::PermissionDenied(
                "registering a CA without proof of possession is for the host's administrator only"
                    .to_owned(),
            ));
        }
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let (instance, name) = (instance.to_owned(), name.to_owned());
        let (ca_pem, verification_pem) = (ca_pem.to_owned(), verification_pem.map(str::to_owned));
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let mut record = Record {
                caller: &caller,
                action: "RegisterCaCertificate",
                instance: Some(&instance),
                subject: String::new(),
                before: None,
                after: Some("active"),
                note: verification_pem
                    .is_none()
                    .then(|| "registered without proof of possession of the key".to_owned()),
            };
            let plan = inner
                .authorize(&caller, &instance, Need::RegisterCa)
                .and_then(|at| {
                    let plan =
                        inner.plan_registration(&caller, at, &name, &ca_pem, verification_pem)?;
                    let proposal = Proposal::Insertion(Arc::clone(&plan.0.certificate));
                    let forced = inner.guard(at, &caller, &proposal, lockouts)?;
                    Ok((at, plan, forced))
                });
            let (at, (ca, code), forced) = inner.or_refused(&record, plan).await?;
            record.note = noted(record.note, forced.as_ref());
            let sn = ca.certificate.serial().clone();
            record.subject = format!("ca:{sn}");
            let mut changes = vec![Change::PutCa(ca.record.clone())];
            changes.extend(code.clone().map(Change::PutRegisterCode));
            let registry = Arc::clone(&at.registry);
            inner
                .carry_out(&mut turn, &record, at, Toward::Allow, changes, |inner| {
                    let mut ledger = inner.ledger_mut();
                    if let Some(code) = code {
                        ledger.put_code(code);
                    }
                    let certificate = Arc::clone(&ca.certificate);
                    ledger.put_ca(ca);
                    registry
                        .insert(certificate, Purpose::Device, Status::Active)
                        .unwrap_or_else(|error| {
                            // Planned under the same turn; if it happens the CA admits nobody.
                            tracing::error!(%error, "a registered CA is not in the gate");
                            Effects::default()
                        })
                })
                .await?;
            Ok(sn)
        })
        .await
    }

    /// One CA.
    ///
    /// # Errors
    /// If there is none, or the caller may not.
    pub async fn get_ca(&self, caller: &Caller, instance: &str, sn: &str) -> Answer<CaView> {
        let at = self.0.authorize(caller, instance, Need::GetCaCertificate)?;
        let ca = self.0.find_ca(at, sn)?;
        Ok(self.0.view_ca(at, &ca))
    }

    /// The CAs of the instance, oldest registration first.
    ///
    /// # Errors
    /// If the caller may not.
    pub async fn list_cas(
        &self,
        caller: &Caller,
        instance: &str,
        page: PageRequest,
    ) -> Answer<Page<CaView>> {
        let at = self
            .0
            .authorize(caller, instance, Need::ListCaCertificate)?;
        let (cas, total) = {
            let ledger = self.0.ledger();
            let cas: Vec<Ca> = ledger
                .ca_page(&at.id, page.offset(), page.size)
                .cloned()
                .collect();
            (cas, ledger.ca_count(&at.id))
        };
        Ok(Page {
            items: cas.iter().map(|ca| self.0.view_ca(at, ca)).collect(),
            total,
        })
    }

    /// Delete a CA with the device certificates recorded under it. Devices that another
    /// certificate of the same authority admits are listed under that one from then on, and
    /// inactive devices under the CA above it, if one is registered; inactive ones that another CA has
    /// issued, which is not registered, under any CA of the instance.
    ///
    /// # Errors
    /// As [`set_ca_status`](Self::set_ca_status).
    pub async fn delete_ca(&self, caller: &Caller, instance: &str, sn: &str) -> Answer<Changed> {
        self.remove_ca(caller, instance, sn, Lockouts::Refuse).await
    }

    /// The same; `lockouts` says what is done if administrators would be locked out.
    ///
    /// # Errors
    /// As [`set_ca_status`](Self::set_ca_status).
    pub async fn remove_ca(
        &self,
        caller: &Caller,
        instance: &str,
        sn: &str,
        lockouts: Lockouts,
    ) -> Answer<Changed> {
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let (instance, sn) = (instance.to_owned(), sn.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let mut record = Record {
                caller: &caller,
                action: "DeleteCaCertificate",
                instance: Some(&instance),
                subject: format!("ca:{}", shown(&sn)),
                before: None,
                after: None,
                note: None,
            };
            let plan = inner
                .authorize(&caller, &instance, Need::DeleteCaCertificate)
                .and_then(|at| {
                    let ca = inner.find_ca(at, &sn)?;
                    let proposal = Proposal::Removal(Arc::clone(&ca.certificate));
                    let forced = inner.guard(at, &caller, &proposal, lockouts)?;
                    Ok((at, ca, forced))
                });
            let (at, ca, forced) = inner.or_refused(&record, plan).await?;
            let sn = ca.certificate.serial().clone();
            record.subject = format!("ca:{sn}");
            record.before = Some(word(ca.record.status));
            let id = ca.record.id;
            record.note = cancelled_text(&inner.ledger().schedules_of_ca(id));
            record.note = noted(record.note, forced.as_ref());
            let devices: Vec<_> = {
                let ledger = inner.ledger();
                let sibling = ledger.siblings(&ca).first().copied();
                // A CA above may admit them still: one that is off is not forgotten then.
                let above = || {
                    let above = at.registry.above(id);
                    above.iter().find_map(|key| ledger.ca_of(&at.id, *key))
                };
                let for_inactive = sibling.or_else(above);
                let mut two = ledger.ca_page(&at.id, 0, 2).map(|ca| ca.record.id);
                let any_other = two.find(|other| *other != id);
                let heir = |device: &DeviceRecord| match device.status {
                    Status::Active => sibling,
                    // A denial goes with the last certificate of the CA that issued the device.
                    Status::Inactive if device.issuer == ca.certificate.key_id() => for_inactive,
                    // Where this one only stood for it, since nobody registered that CA, or another hand
                    // deleted it, any other may lead to the device as well.
                    Status::Inactive => for_inactive
                        .or_else(|| ledger.ca_of(&at.id, device.issuer))
                        .or(any_other),
                };
                let devices = ledger.devices_under(&at.id, id);
                let devices = devices.map(|device| device.record());
                devices.map(|device| (heir(&device), device)).collect()
            };
            let moves = devices.iter().filter_map(|(heir, device)| {
                let (device, to) = (device.id(), (*heir)?);
                Some(Change::MoveDevice { device, to })
            });
            // After the moves, since what is listed under it still goes with it. What is off stays so if it is
            // moved, also if another hand has just taken the other CA away; and if it is not, it goes, also
            // if that it is off is owed to the disk.
            let off = devices
                .iter()
                .filter(|(_, device)| device.status == Status::Inactive);
            let off = off.map(|(heir, device)| match *heir {
                Some(ca) => Change::SwitchDevice(DeviceRecord {
                    ca,
                    ..device.clone()
                }),
                None => Change::DeleteDevice(device.id()),
            });
            let changes = moves.chain([Change::DeleteCa(id)]).chain(off).collect();
            // To delete a certificate that is off may let its siblings, or CAs below it, admit again;
            // one with lists of revoked certificates, a CA below it that is on them.
            let lists = at.registry.revocations(ca.certificate.key_id());
            let toward = match (ca.record.status, at.registry.off_reason(id)) {
                (Status::Active, None) if lists.is_empty() => Toward::Deny,
                (Status::Inactive, _) | (Status::Active, _) => Toward::Allow,
            };
            let registry = Arc::clone(&at.registry);
            let sessions_ended = inner
                .carry_out(&mut turn, &record, at, toward, changes, |inner| {
                    inner.paces.end(&at.id, id);
                    let mut ledger = inner.ledger_mut();
                    let effects = registry.remove(id);
                    ledger.remove_ca(id);
                    for schedule in ledger.schedules_of_ca(id) {
                        ledger.remove_schedule(schedule);
                    }
                    for (heir, device) in devices {
                        ledger.remove_device(&device);
                        match heir {
                            Some(ca) => {
                                ledger.put_device(DeviceRecord { ca, ..device });
                            }
                            None => registry.forget_device(&device_key(&device)),
                        }
                    }
                    effects
                })
                .await?;
            Ok(Changed {
                sn,
                changed: true,
                sessions_ended,
            })
        })
        .await
    }
}

impl Inner {
    pub(crate) fn find_ca(&self, at: &Instance, sn: &str) -> Answer<Ca> {
        let serial: CertSerial = sn
            .parse()
            .map_err(|error| ControlError::Parameter(format!("Sn: {error}")))?;
        self.ledger()
            .ca_by_sn(&serial)
            .filter(|ca| ca.record.instance == at.id)
            .cloned()
            .ok_or_else(|| ControlError::CaNotFound(shown(sn)))
    }

    fn plan_registration(
        &self,
        caller: &Caller,
        at: &Instance,
        name: &str,
        ca_pem: &str,
        verification_pem: Option<String>,
    ) -> Answer<(Ca, Option<RegisterCodeRecord>)> {
        check_name(name)?;
        let now = self.now();
        let certificate = CaCertificate::from_pem(ca_pem).map_err(CaRefusal::Certificate)?;
        if !certificate.is_current(now) {
            return Err(CaRefusal::OutsideValidity.into());
        }
        let code = match &verification_pem {
            Some(pem) => Some(self.check_proof(caller, &at.id, &certificate, pem)?),
            None => None,
        };
        let ledger = self.ledger();
        if ledger.ca_count(&at.id) >= self.settings.max_cas {
            return Err(ControlError::TooManyCas(self.settings.max_cas));
        }
        if ledger.ca_by_sn(certificate.serial()).is_some() {
            return Err(ControlError::SnNotUnique(certificate.serial().clone()));
        }
        at.registry
            .can_insert(&certificate, Purpose::Device)
            .map_err(CaRefusal::Registry)?;
        let record = CaRecord {
            instance: at.id.clone(),
            id: certificate.id(),
            name: name.to_owned(),
            status: Status::Active,
            der: certificate.der().to_vec(),
            verification_pem,
            register_code: code.as_ref().map(|code| code.code.clone()),
            registered_at_ms: self.now_ms(),
        };
        let ca = Ca {
            record,
            certificate: Arc::new(certificate),
        };
        Ok((ca, code))
    }
}

fn check_name(name: &str) -> Answer<()> {
    let characters = name.chars().count();
    if characters == 0 || characters > 64 {
        return Err(ControlError::Parameter(format!(
            "CaName: it must have 1 to 64 characters, this has {characters}"
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(ControlError::Parameter(
            "CaName: it must not contain control characters".to_owned(),
        ));
    }
    Ok(())
}

/// What a caller typed, cut to a length and cleaned for logs and audit records.
pub(crate) fn shown(typed: &str) -> String {
    typed
        .chars()
        .filter(|c| !c.is_control())
        .take(128)
        .collect()
}

pub(crate) fn word(status: Status) -> &'static str {
    match status {
        Status::Inactive => "inactive",
        Status::Active => "active",
    }
}

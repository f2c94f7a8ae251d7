//! Whether those who planned an activation may still do it.

use std::sync::Arc;

use crate::ca::certificate::CaCertificate;
use crate::ca::id::CertSerial;
use crate::ca::lifecycle::Status;
use crate::ca::registry::DeviceKey;
use crate::control::ca::shown;
use crate::control::{Answer, Caller, ControlError, Grant, Inner, Instance, Need, Principal};
use crate::store::ScheduleRecord;

impl Inner {
    /// Whether the caller can be asked for again when an activation is due.
    ///
    /// # Errors
    /// If the caller's certificate ends before, or was signed by an authority of which nothing is
    /// known that could be asked then.
    pub(crate) fn check_planner(&self, at: &Instance, caller: &Caller, at_ms: i64) -> Answer<()> {
        let Principal::Certificate {
            ca_sn,
            issuer,
            not_after,
            ..
        } = &caller.principal
        else {
            return Ok(());
        };
        if at_ms.div_euclid(1000) > *not_after {
            return Err(ControlError::PermissionDenied(
                "the certificate of the caller is not valid any more at that time".to_owned(),
            ));
        }
        let admins = at.registry.admins();
        let direct = |ca: &Arc<CaCertificate>| *ca.serial() == *ca_sn && ca.key_id() == *issuer;
        if !admins.iter().any(direct) {
            return Err(ControlError::PermissionDenied(
                "a planned activation needs a certificate that an administrators' CA signed itself"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether whoever asked for it may still do it. Nobody is asked about a denial.
    pub(super) fn may_still(&self, at: &Instance, schedule: &ScheduleRecord) -> Answer<()> {
        let may = match (schedule.status, schedule.principal.split_once(':')) {
            (Status::Inactive, _) | (Status::Active, Some(("host", _))) => true,
            (Status::Active, Some(("access_key", id))) => id
                .parse()
                .ok()
                .and_then(|id| self.keys.get(&id))
                .is_some_and(|key| {
                    key.status == Status::Active
                        && key.account == at.account
                        && Grant::Key(Arc::clone(&key.grant))
                            .check(Need::ActiveCaCertificate, &at.resource)
                            .is_ok()
                }),
            (Status::Active, Some(("certificate", names))) => is_still_admin(at, names, self.now()),
            (Status::Active, Some(_) | None) => false,
        };
        match may {
            true => Ok(()),
            false => Err(ControlError::PermissionDenied(format!(
                "{}, who asked for it, may not activate the CA any more",
                shown(&schedule.principal)
            ))),
        }
    }
}

/// Whether the certificate `CA/SERIAL` is still let in as an administrator's at `now` (Unix
/// seconds). Its own dates were asked when the change was planned.
fn is_still_admin(at: &Instance, names: &str, now: i64) -> bool {
    let Some((ca, serial)) = names.split_once('/') else {
        return false;
    };
    let (Ok(ca), Ok(serial)) = (ca.parse::<CertSerial>(), serial.parse::<CertSerial>()) else {
        return false;
    };
    at.registry.admins().iter().any(|admins| {
        let lists = at.registry.revocations(admins.key_id());
        let device = DeviceKey {
            issuer: admins.key_id(),
            serial: serial.clone(),
        };
        *admins.serial() == ca
            && admins.is_current(now)
            && at.registry.off_reason(admins.id()).is_none()
            && lists.find(&serial).is_none()
            && lists.admit_nobody(now).is_none()
            && at.registry.device_status(&device) != Some(Status::Inactive)
    })
}

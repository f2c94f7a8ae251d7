//! Changes of CAs that are made at a time.
//!
//! A schedule is on disk before it is answered, and what it does and its removal are one commit: it
//! is carried out once, also after a crash. What was due while the broker was down is done at its
//! start, before anybody is served.
//!
//! Toward deny it is done whatever has become of whoever asked for it. Toward allow it is done only if
//! they still may, and only if nobody has changed the CA by hand since: a denial by hand is not undone
//! by a clock.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ca::id::{CertSerial, InstanceId, RequestId, ScheduleId};
use crate::ca::lifecycle::Status;
use crate::ca::outlook::Proposal;
use crate::ca::registry::{DeviceKey, Effects};
use crate::control::ca::{shown, word};
use crate::control::change::{Toward, Turn};
use crate::control::ledger::Ca;
use crate::control::lockout::{Lockouts, noted};
use crate::control::{
    Answer, Caller, Control, ControlError, Door, Grant, Inner, Instance, Need, Page, PageRequest,
    Principal, Record, origin,
};
use crate::store::{CaRecord, Change, ScheduleRecord};

/// A change that is to be made, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleView {
    /// The instance of the CA.
    pub instance: InstanceId,
    /// Its name.
    pub id: ScheduleId,
    /// Serial number of the CA.
    pub ca_sn: CertSerial,
    /// Name of the CA.
    pub ca_name: String,
    /// The state that it is to have.
    pub status: Status,
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// Who asked for it, in the words of the audit log.
    pub principal: String,
    /// When it was asked for, Unix milliseconds.
    pub created_at_ms: i64,
}

/// How many an instance may have.
pub const MOST_SCHEDULES: usize = 1_000;

/// How far ahead a change may be planned: five years.
pub const MOST_AHEAD: Duration = Duration::from_secs(5 * 366 * 24 * 3600);

/// How long it is before one is tried again that could not be made durable, in milliseconds.
const RETRY_MS: i64 = 30_000;

impl Control {
    /// Have a CA switched off or on at a time (Unix milliseconds). On disk when this returns `Ok`.
    ///
    /// # Errors
    /// If the caller may not change the CA so now, the time is past or too far off, there are too many,
    /// or it cannot be made durable. [`ControlError::LocksOut`] if administrators would be locked out
    /// by it now; `lockouts` also says what is done if they would be then.
    pub async fn schedule_ca(
        &self,
        caller: &Caller,
        instance: &str,
        sn: &str,
        status: Status,
        at_ms: i64,
        lockouts: Lockouts,
    ) -> Answer<ScheduleView> {
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let (instance, sn) = (instance.to_owned(), sn.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let id = new_id()?;
            let mut record = Record {
                caller: &caller,
                action: "ScheduleCaCertificateChange",
                instance: Some(&instance),
                subject: format!("schedule:{id}"),
                before: None,
                after: Some(word(status)),
                note: Some(format!("CA {} at {}", shown(&sn), time_text(at_ms))),
            };
            let plan = inner
                .authorize(&caller, &instance, need(status))
                .and_then(|at| {
                    let ca = inner.find_ca(at, &sn)?;
                    let proposal = Proposal::Status(Arc::clone(&ca.certificate), status);
                    let forced = inner.guard(at, &caller, &proposal, lockouts)?;
                    inner.check_time(at_ms)?;
                    if inner.ledger().schedules_of(&at.id).count() >= MOST_SCHEDULES {
                        return Err(ControlError::Parameter(format!(
                            "The instance has {MOST_SCHEDULES} scheduled changes, the most it may have."
                        )));
                    }
                    Ok((at, ca, forced))
                });
            let (at, ca, forced) = inner.or_refused(&record, plan).await?;
            record.note = noted(record.note, forced.as_ref());
            let schedule = ScheduleRecord {
                id,
                ca: ca.record.id,
                status,
                at_ms,
                force: lockouts == Lockouts::Accept,
                principal: origin(&caller).principal,
                created_at_ms: inner.now_ms(),
            };
            let changes = vec![Change::PutSchedule(schedule.clone())];
            let view = view(&ca, &schedule);
            inner
                .carry_out(&mut turn, &record, at, Toward::Allow, changes, |inner| {
                    inner.ledger_mut().put_schedule(schedule);
                    Effects::default()
                })
                .await?;
            Ok(view)
        })
        .await
    }

    /// The scheduled changes of the instance, the next first.
    ///
    /// # Errors
    /// If the caller may not see its CAs.
    pub async fn list_schedules(
        &self,
        caller: &Caller,
        instance: &str,
        page: PageRequest,
    ) -> Answer<Page<ScheduleView>> {
        let at = self
            .0
            .authorize(caller, instance, Need::ListCaCertificate)?;
        let ledger = self.0.ledger();
        let mut all: Vec<_> = ledger
            .schedules_of(&at.id)
            .map(|(ca, schedule)| view(ca, schedule))
            .collect();
        all.sort_by_key(|schedule| (schedule.at_ms, schedule.id));
        let total = all.len();
        let items = all.into_iter().skip(page.offset()).take(page.size);
        Ok(Page {
            items: items.collect(),
            total,
        })
    }

    /// Cancel a scheduled change.
    ///
    /// # Errors
    /// If there is none, the caller may not make it, or it cannot be made durable.
    pub async fn cancel_schedule(
        &self,
        caller: &Caller,
        instance: &str,
        id: &str,
    ) -> Answer<ScheduleView> {
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let (instance, id) = (instance.to_owned(), id.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let mut record = Record {
                caller: &caller,
                action: "CancelSchedule",
                instance: Some(&instance),
                subject: format!("schedule:{}", shown(&id)),
                before: None,
                after: None,
                note: None,
            };
            // Whoever may not even see CAs learns nothing of what is planned.
            let plan = inner
                .authorize(&caller, &instance, Need::ListCaCertificate)
                .and_then(|at| {
                    let found = inner.find_schedule(at, &id)?;
                    inner.authorize(&caller, &instance, need(found.1.status))?;
                    Ok((at, found))
                });
            let (at, (ca, schedule)) = inner.or_refused(&record, plan).await?;
            let id = schedule.id;
            record.before = Some(word(schedule.status));
            record.note = Some(format!(
                "CA {} at {}",
                ca.certificate.serial(),
                time_text(schedule.at_ms)
            ));
            let changes = vec![Change::DeleteSchedule(id)];
            inner
                .carry_out(&mut turn, &record, at, Toward::Allow, changes, |inner| {
                    inner.ledger_mut().remove_schedule(id);
                    Effects::default()
                })
                .await?;
            Ok(view(&ca, &schedule))
        })
        .await
    }
}

impl Inner {
    fn check_time(&self, at_ms: i64) -> Answer<()> {
        let now = self.now_ms();
        let most = i64::try_from(MOST_AHEAD.as_millis()).unwrap_or(i64::MAX);
        if at_ms <= now {
            return Err(ControlError::Parameter(format!(
                "The time {} is past; to make the change now, make it without a time.",
                time_text(at_ms)
            )));
        }
        if at_ms > now.saturating_add(most) {
            return Err(ControlError::Parameter(format!(
                "The time {} is more than five years off.",
                time_text(at_ms)
            )));
        }
        Ok(())
    }

    fn find_schedule(&self, at: &Instance, id: &str) -> Answer<(Ca, ScheduleRecord)> {
        let ledger = self.ledger();
        let wanted: Option<ScheduleId> = id.parse().ok();
        let found = ledger
            .schedules_of(&at.id)
            .find(|(_, schedule)| Some(schedule.id) == wanted);
        found
            .map(|(ca, schedule)| (ca.clone(), schedule.clone()))
            .ok_or_else(|| ControlError::ScheduleNotFound(shown(id)))
    }

    /// Do what is due, and go on doing so.
    pub(crate) async fn follow_schedules(self: Arc<Self>) {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = self.closing.cancelled() => return,
            }
            self.do_what_is_due().await;
        }
    }

    /// Do all that is due, in the order of the times.
    pub(crate) async fn do_what_is_due(&self) {
        loop {
            let mut turn = self.turn.lock().await;
            let due = self.ledger().next_schedule(self.now_ms());
            let Some(schedule) = due else { return };
            self.run(&mut turn, schedule).await;
        }
    }

    async fn run(&self, turn: &mut Turn, schedule: ScheduleRecord) {
        let id = schedule.id;
        let found = {
            let ledger = self.ledger();
            ledger.ca(schedule.ca).cloned()
        };
        let at = found
            .as_ref()
            .and_then(|ca| self.instances.get(&ca.record.instance));
        let (Some(ca), Some(at)) = (found, at) else {
            // It goes with its CA; this is for a hand on the store.
            self.ledger_mut().remove_schedule(id);
            return;
        };
        let caller = Caller {
            principal: Principal::System,
            account: at.account.clone(),
            grant: Grant::Everything,
            door: Door::System,
            address: None,
            // No call: the schedule's own name stands for it.
            request_id: RequestId::from_random(u128::from(id).to_be_bytes()),
        };
        let status = schedule.status;
        let mut record = Record {
            caller: &caller,
            action: match status {
                Status::Inactive => "InactivateCaCertificate",
                Status::Active => "ActiveCaCertificate",
            },
            instance: Some(at.id.as_str()),
            subject: format!("ca:{}", ca.certificate.serial()),
            before: Some(word(ca.record.status)),
            after: Some(word(status)),
            note: Some(format!(
                "scheduled by {} for {} (schedule {id})",
                schedule.principal,
                time_text(schedule.at_ms)
            )),
        };
        let lockouts = match schedule.force {
            true => Lockouts::Accept,
            false => Lockouts::Refuse,
        };
        let proposal = Proposal::Status(Arc::clone(&ca.certificate), status);
        let plan = self
            .may_still(at, &schedule)
            .and_then(|()| self.guard(at, &caller, &proposal, lockouts));
        let forced = match self.or_refused(&record, plan).await {
            Ok(forced) => forced,
            Err(error) => {
                tracing::error!(schedule = %id, ca.sn = %ca.certificate.serial(), %error, "a scheduled change is not made");
                self.ledger_mut().remove_schedule(id);
                // Toward deny: it must not come back with a restart.
                if let Err(error) = self
                    .commit(turn, vec![Change::DeleteSchedule(id)], Toward::Deny)
                    .await
                {
                    tracing::error!(schedule = %id, %error, "its removal is not durable yet");
                }
                return;
            }
        };
        record.note = noted(record.note, forced.as_ref());
        let toward = match status {
            Status::Inactive => Toward::Deny,
            Status::Active => Toward::Allow,
        };
        let changes = vec![
            Change::PutCa(CaRecord {
                status,
                ..ca.record.clone()
            }),
            Change::DeleteSchedule(id),
        ];
        let (ca_id, registry) = (ca.record.id, Arc::clone(&at.registry));
        let done = self
            .carry_out(turn, &record, at, toward, changes, |inner| {
                inner.paces.end(&at.id, ca_id);
                let mut ledger = inner.ledger_mut();
                ledger.remove_schedule(id);
                ledger.set_ca_status(ca_id, status);
                registry.set_status(ca_id, status)
            })
            .await;
        match done {
            Ok(sessions) => {
                tracing::info!(schedule = %id, ca.sn = %ca.certificate.serial(), state = word(status), sessions, "a scheduled change was made");
            }
            // In force, and owed to the disk with the removal of the schedule.
            Err(ControlError::NotDurable(_)) => {}
            Err(_) => self
                .ledger_mut()
                .postpone_schedule(id, self.now_ms().saturating_add(RETRY_MS)),
        }
    }

    /// Whether whoever asked for it may still do it. Nobody is asked about a denial.
    fn may_still(&self, at: &Instance, schedule: &ScheduleRecord) -> Answer<()> {
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
                            .check(need(schedule.status), &at.resource)
                            .is_ok()
                }),
            (Status::Active, Some(("certificate", names))) => is_still_admin(at, names),
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

/// Whether the certificate `CA/SERIAL` is still let in as an administrator's.
fn is_still_admin(at: &Instance, names: &str) -> bool {
    let Some((ca, serial)) = names.split_once('/') else {
        return false;
    };
    let (Ok(ca), Ok(serial)) = (ca.parse::<CertSerial>(), serial.parse::<CertSerial>()) else {
        return false;
    };
    at.registry.admins().iter().any(|admins| {
        let device = DeviceKey {
            issuer: admins.key_id(),
            serial: serial.clone(),
        };
        *admins.serial() == ca
            && at.registry.off_reason(admins.id()).is_none()
            && at.registry.device_status(&device) != Some(Status::Inactive)
    })
}

fn need(status: Status) -> Need {
    match status {
        Status::Inactive => Need::UnregisterCaCertificate,
        Status::Active => Need::ActiveCaCertificate,
    }
}

fn view(ca: &Ca, schedule: &ScheduleRecord) -> ScheduleView {
    ScheduleView {
        instance: ca.record.instance.clone(),
        id: schedule.id,
        ca_sn: ca.certificate.serial().clone(),
        ca_name: ca.record.name.clone(),
        status: schedule.status,
        at_ms: schedule.at_ms,
        principal: schedule.principal.clone(),
        created_at_ms: schedule.created_at_ms,
    }
}

fn new_id() -> Answer<ScheduleId> {
    let mut octets = [0; 8];
    aws_lc_rs::rand::fill(&mut octets)
        .map_err(|_| ControlError::Internal("the random number generator failed".to_owned()))?;
    Ok(ScheduleId::from_bytes(octets))
}

/// The time in UTC, to the second.
fn time_text(at_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1000))
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{at_ms} ms"))
}

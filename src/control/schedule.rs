//! Changes of CAs that are made at a time.
//!
//! A schedule is on disk before it is answered, and what it does and its removal are one commit: it
//! is carried out once, also after a crash. What was due while the broker was down is done at its
//! start, before anybody is served.
//!
//! Toward deny it is done whatever has become of whoever asked for it. Toward allow it is done only if
//! they still may, and only if nobody has switched the CA off since, by hand or by a plan: a denial is
//! not undone by a clock that knows nothing of it. So an activation says which inactivation it ends.

mod due;
mod planner;

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ca::id::{CertSerial, InstanceId, ScheduleId};
use crate::ca::lifecycle::Status;
use crate::ca::outlook::Proposal;
use crate::ca::registry::Effects;
use crate::control::ca::{shown, word};
use crate::control::change::Toward;
use crate::control::ledger::Ca;
use crate::control::ledger::schedules::in_order;
use crate::control::lockout::{LockedOut, Lockouts, noted};
use crate::control::{
    Answer, Back, Caller, Control, ControlError, Inner, Instance, Need, Page, PageRequest, Record,
    origin,
};
use crate::store::{Change, ScheduleRecord};

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
    /// Of an activation: the planned inactivation that it ends, which may have been made.
    pub ends: Option<ScheduleId>,
}

/// How many an instance may have.
pub const MOST_SCHEDULES: usize = 1_000;

/// How far ahead a change may be planned: five years.
pub const MOST_AHEAD: Duration = Duration::from_secs(5 * 366 * 24 * 3600);

/// A change to plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewSchedule {
    /// The state that the CA is to have.
    pub status: Status,
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// Of an inactivation: whether it ends by itself.
    pub back: Back,
    /// What is done if administrators would be locked out, now and then.
    pub lockouts: Lockouts,
}

/// What was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// The change.
    pub change: ScheduleView,
    /// What ends it.
    pub end: Option<ScheduleView>,
}

impl Control {
    /// Have a CA switched off or on at a time, and on again after it. On disk when this returns
    /// `Ok`.
    ///
    /// # Errors
    /// If the caller may not change the CA so now, the time is past or too far off, there are too many,
    /// or it cannot be made durable. [`ControlError::LocksOut`] if administrators would be locked out
    /// by it now.
    pub async fn schedule_ca(
        &self,
        caller: &Caller,
        instance: &str,
        sn: &str,
        new: NewSchedule,
    ) -> Answer<Scheduled> {
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let (instance, sn) = (instance.to_owned(), sn.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let id = new_id()?;
            let mut note = format!("CA {} at {}", shown(&sn), time_text(new.at_ms));
            if let Back::After(time) = new.back {
                note += &format!(", for {} s", time.as_secs());
            }
            let mut record = Record {
                caller: &caller,
                action: "ScheduleCaCertificateChange",
                instance: Some(&instance),
                subject: format!("schedule:{id}"),
                before: None,
                after: Some(word(new.status)),
                note: Some(note),
            };
            let plan = inner.plan_schedule(&caller, &instance, &sn, new);
            let (at, ca, end_ms, forced) = inner.or_refused(&record, plan).await?;
            record.note = noted(record.note, forced.as_ref());
            let schedule = ScheduleRecord {
                id,
                ca: ca.record.id,
                status: new.status,
                at_ms: new.at_ms,
                force: new.lockouts == Lockouts::Accept,
                principal: origin(&caller).principal,
                created_at_ms: inner.now_ms(),
                ends: None,
            };
            let end = match end_ms {
                None => None,
                Some(at_ms) => Some(ScheduleRecord {
                    id: new_id()?,
                    status: Status::Active,
                    at_ms,
                    force: false,
                    ends: Some(id),
                    ..schedule.clone()
                }),
            };
            let scheduled = Scheduled {
                change: view(&ca, &schedule),
                end: end.as_ref().map(|end| view(&ca, end)),
            };
            let all: Vec<_> = std::iter::once(schedule).chain(end).collect();
            let changes = all.iter().cloned().map(Change::PutSchedule).collect();
            inner
                .carry_out(&mut turn, &record, at, Toward::Allow, changes, |inner| {
                    let mut ledger = inner.ledger_mut();
                    for schedule in all {
                        ledger.put_schedule(schedule);
                    }
                    Effects::default()
                })
                .await?;
            Ok(scheduled)
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
        let mut all: Vec<_> = ledger.schedules_of(&at.id).collect();
        all.sort_by_key(|(_, schedule)| in_order(schedule));
        let total = all.len();
        let items = all.into_iter().skip(page.offset()).take(page.size);
        Ok(Page {
            items: items.map(|(ca, schedule)| view(ca, schedule)).collect(),
            total,
        })
    }

    /// Cancel a scheduled change; an inactivation with what ends it.
    ///
    /// To cancel an activation only denies: it is enough that the caller may switch the CA off. To
    /// cancel an inactivation keeps the CA on, which is for those who may switch it on.
    ///
    /// # Errors
    /// If there is none, the caller may not, or it cannot be made durable.
    /// [`ControlError::NotDurable`] if an activation is cancelled, but a restart might forget that.
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
            let found = inner
                .authorize(&caller, &instance, Need::ListCaCertificate)
                .and_then(|at| Ok((at, inner.find_schedule(at, &id)?)));
            let (at, (ca, schedule)) = inner.or_refused(&record, found).await?;
            let id = schedule.id;
            record.before = Some(word(schedule.status));
            record.note = Some(format!(
                "CA {} at {}",
                ca.certificate.serial(),
                time_text(schedule.at_ms)
            ));
            let activate = inner.authorize(&caller, &instance, Need::ActiveCaCertificate);
            let (may, toward) = match schedule.status {
                Status::Inactive => (activate, Toward::Allow),
                Status::Active => {
                    let deny = inner.authorize(&caller, &instance, Need::UnregisterCaCertificate);
                    (activate.or(deny), Toward::Deny)
                }
            };
            inner.or_refused(&record, may).await?;
            let mut all = inner.ledger().ends_of(id);
            all.push(id);
            let changes = all.iter().copied().map(Change::DeleteSchedule).collect();
            inner
                .carry_out(&mut turn, &record, at, toward, changes, |inner| {
                    let mut ledger = inner.ledger_mut();
                    for id in all {
                        ledger.remove_schedule(id);
                    }
                    Effects::default()
                })
                .await?;
            Ok(view(&ca, &schedule))
        })
        .await
    }
}

impl Inner {
    /// Also gives when the change ends, and who is locked out because that is meant.
    fn plan_schedule(
        &self,
        caller: &Caller,
        instance: &str,
        sn: &str,
        new: NewSchedule,
    ) -> Answer<(&Instance, Ca, Option<i64>, Option<LockedOut>)> {
        let at = self.authorize(caller, instance, need(new.status))?;
        let ca = self.find_ca(at, sn)?;
        let proposal = Proposal::Status(Arc::clone(&ca.certificate), new.status);
        let forced = self.guard(at, caller, &proposal, new.lockouts)?;
        self.check_time(new.at_ms)?;
        let end_ms = match (new.status, new.back) {
            (Status::Active, _) => {
                self.check_planner(at, caller, new.at_ms)?;
                None
            }
            (Status::Inactive, Back::Never) => None,
            (Status::Inactive, Back::After(time)) => {
                self.authorize(caller, instance, Need::ActiveCaCertificate)?;
                let end_ms = self.after_ms(new.at_ms, time)?;
                self.check_planner(at, caller, end_ms)?;
                Some(end_ms)
            }
        };
        self.check_room(at, 1 + usize::from(end_ms.is_some()))?;
        Ok((at, ca, end_ms, forced))
    }

    /// Whether so many more plans may be made.
    pub(crate) fn check_room(&self, at: &Instance, more: usize) -> Answer<()> {
        if self.ledger().schedules_of(&at.id).count() + more > MOST_SCHEDULES {
            return Err(ControlError::Parameter(format!(
                "The instance has {MOST_SCHEDULES} scheduled changes, the most it may have."
            )));
        }
        Ok(())
    }

    /// The moment so long after another one.
    pub(crate) fn after_ms(&self, from_ms: i64, time: Duration) -> Answer<i64> {
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let at_ms = from_ms.saturating_add(time);
        self.check_time(at_ms)?;
        Ok(at_ms)
    }

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
}

fn need(status: Status) -> Need {
    match status {
        Status::Inactive => Need::UnregisterCaCertificate,
        Status::Active => Need::ActiveCaCertificate,
    }
}

pub(crate) fn view(ca: &Ca, schedule: &ScheduleRecord) -> ScheduleView {
    ScheduleView {
        instance: ca.record.instance.clone(),
        id: schedule.id,
        ca_sn: ca.certificate.serial().clone(),
        ca_name: ca.record.name.clone(),
        status: schedule.status,
        at_ms: schedule.at_ms,
        principal: schedule.principal.clone(),
        created_at_ms: schedule.created_at_ms,
        ends: schedule.ends.filter(|ends| *ends != schedule.id),
    }
}

pub(crate) fn new_id() -> Answer<ScheduleId> {
    let mut octets = [0; 8];
    aws_lc_rs::rand::fill(&mut octets)
        .map_err(|_| ControlError::Internal("the random number generator failed".to_owned()))?;
    Ok(ScheduleId::from_bytes(octets))
}

/// The time in UTC, to the second.
pub(crate) fn time_text(at_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1000))
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{at_ms} ms"))
}

/// What the audit log says of plans that go with a change.
pub(crate) fn cancelled_text(schedules: &[ScheduleId]) -> Option<String> {
    let ids: Vec<_> = schedules.iter().map(ToString::to_string).collect();
    (!ids.is_empty()).then(|| format!("cancels schedule {}", ids.join(", ")))
}

//! Switching CAs off and on.

use std::sync::Arc;
use std::time::Duration;

use crate::ca::id::ScheduleId;
use crate::ca::lifecycle::Status;
use crate::ca::outlook::Proposal;
use crate::control::ca::{shown, word};
use crate::control::change::Toward;
use crate::control::ledger::Ca;
use crate::control::lockout::{LockedOut, Lockouts, noted};
use crate::control::pace::{Ended, Pace};
use crate::control::schedule::{ScheduleView, cancelled_text, new_id, time_text, view};
use crate::control::{Answer, Caller, Changed, Control, Inner, Instance, Need, Record, origin};
use crate::store::{CaRecord, Change, ScheduleRecord};

/// How a CA is switched off; to switch it on there is one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manner {
    /// What is done if administrators would be locked out.
    pub lockouts: Lockouts,
    /// How the live connections end.
    pub pace: Pace,
    /// When it is switched on again.
    pub back: Back,
}

/// Whether a CA that is switched off is switched on again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Back {
    /// It stays off, and what would have switched it on is cancelled.
    #[default]
    Never,
    /// After this time, unless it was off for good before, or would be off for longer.
    After(Duration),
}

/// What became of a switched CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switched {
    /// What the change did.
    pub changed: Changed,
    /// Live connections that end over a time.
    pub sessions_ending: usize,
    /// Planned activations that the change cancelled.
    pub cancelled: usize,
    /// What switches it on again, if that was asked for and it is not off for good.
    pub back: Option<ScheduleView>,
}

impl Control {
    /// Switch a CA off or on. When it returns `Ok`, the state is in force on every thread and
    /// on disk.
    ///
    /// # Errors
    /// [`ControlError::NotDurable`](crate::control::ControlError::NotDurable) if the CA is denied,
    /// but a restart might forget it; otherwise nothing was changed.
    /// [`ControlError::LocksOut`](crate::control::ControlError::LocksOut) if administrators would
    /// be locked out.
    pub async fn set_ca_status(
        &self,
        caller: &Caller,
        instance: &str,
        sn: &str,
        status: Status,
    ) -> Answer<Changed> {
        let switched = self.switch_ca(caller, instance, sn, status, Manner::default());
        Ok(switched.await?.changed)
    }

    /// The same in this manner. That a CA is switched on again is one change with that it is
    /// switched off: there is no moment at which it is off and nothing would end it.
    ///
    /// # Errors
    /// As [`set_ca_status`](Self::set_ca_status), and if the caller may not plan the activation.
    pub async fn switch_ca(
        &self,
        caller: &Caller,
        instance: &str,
        sn: &str,
        status: Status,
        manner: Manner,
    ) -> Answer<Switched> {
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let (instance, sn) = (instance.to_owned(), sn.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let (action, toward) = match status {
                Status::Inactive => ("InactivateCaCertificate", Toward::Deny),
                Status::Active => ("ActiveCaCertificate", Toward::Allow),
            };
            let mut record = Record {
                caller: &caller,
                action,
                instance: Some(&instance),
                subject: format!("ca:{}", shown(&sn)),
                before: None,
                after: Some(word(status)),
                note: note([pace_text(manner.pace), back_text(manner.back)]),
            };
            let plan = inner.plan_switch(&caller, &instance, &sn, status, manner);
            let (at, ca, plans, forced) = inner.or_refused(&record, plan).await?;
            let sn = ca.certificate.serial().clone();
            record.subject = format!("ca:{sn}");
            record.before = Some(word(ca.record.status));
            let Plans { undone, new, kept } = plans;
            record.note = note([
                pace_text(manner.pace),
                new.as_ref().map(|new| {
                    let at = time_text(new.at_ms);
                    format!("active again at {at} (schedule {})", new.id)
                }),
                cancelled_text(&undone),
            ]);
            record.note = noted(record.note, forced.as_ref());
            let id = ca.record.id;
            // A denial that is owed to the disk is repeated, so that the answer can say it is durable.
            let changed = ca.record.status != status;
            let mut changes = Vec::new();
            // With a plan also if nothing changes: another hand may have taken the CA away.
            if changed || new.is_some() {
                changes.push(Change::PutCa(CaRecord {
                    status,
                    ..ca.record.clone()
                }));
            }
            changes.extend(undone.iter().copied().map(Change::DeleteSchedule));
            changes.extend(new.clone().map(Change::PutSchedule));
            let back = new.as_ref().or(kept.as_ref()).map(|it| view(&ca, it));
            let registry = Arc::clone(&at.registry);
            let publish = |inner: &Inner| {
                inner.paces.end(&at.id, id);
                let mut ledger = inner.ledger_mut();
                ledger.set_ca_status(id, status);
                for schedule in &undone {
                    ledger.remove_schedule(*schedule);
                    tracing::info!(%schedule, "a planned activation is cancelled: the CA was changed by hand");
                }
                if let Some(new) = new {
                    ledger.put_schedule(new);
                }
                registry.set_status(id, status)
            };
            let end = |inner_ref: &Inner, effects| match (manner.pace, status) {
                (Pace::Over(time), Status::Inactive) => inner.end_over(&at.id, id, effects, time),
                (Pace::AtOnce, _) | (_, Status::Active) => {
                    Ended::at_once(inner_ref.end_denied(at, &effects))
                }
            };
            let ended = inner
                .carry_out_ending(&mut turn, &record, at, toward, changes, publish, end)
                .await?;
            Ok(Switched {
                changed: Changed {
                    sn,
                    changed,
                    sessions_ended: ended.at_once,
                },
                sessions_ending: ended.ending,
                cancelled: undone.len(),
                back,
            })
        })
        .await
    }
}

/// What a switch by hand means for what is planned.
#[derive(Debug, Default)]
struct Plans {
    undone: Vec<ScheduleId>,
    new: Option<ScheduleRecord>,
    /// An activation that stands in place of a new one.
    kept: Option<ScheduleRecord>,
}

impl Inner {
    fn plan_switch(
        &self,
        caller: &Caller,
        instance: &str,
        sn: &str,
        status: Status,
        manner: Manner,
    ) -> Answer<(&Instance, Ca, Plans, Option<LockedOut>)> {
        let need = match status {
            Status::Inactive => Need::UnregisterCaCertificate,
            Status::Active => Need::ActiveCaCertificate,
        };
        let at = self.authorize(caller, instance, need)?;
        let ca = self.find_ca(at, sn)?;
        let proposal = Proposal::Status(Arc::clone(&ca.certificate), status);
        let forced = self.guard(at, caller, &proposal, manner.lockouts)?;
        let id = ca.record.id;
        // What is done by hand is not undone by a clock.
        let plans = match (status, manner.back) {
            (Status::Active, _) => Plans {
                undone: self.ledger().present_activations_of(id),
                ..Plans::default()
            },
            (Status::Inactive, Back::Never) => Plans {
                undone: self.ledger().activations_of(id),
                ..Plans::default()
            },
            (Status::Inactive, Back::After(time)) => self.plan_back(caller, at, &ca, time)?,
        };
        Ok((at, ca, plans, forced))
    }

    /// It is off for good, or until the later of two ends: whoever has it switched off for a time
    /// shortens nobody else's denial.
    fn plan_back(&self, caller: &Caller, at: &Instance, ca: &Ca, time: Duration) -> Answer<Plans> {
        self.authorize(caller, at.id.as_str(), Need::ActiveCaCertificate)?;
        let at_ms = self.after_ms(self.now_ms(), time)?;
        self.check_planner(at, caller, at_ms)?;
        let id = ca.record.id;
        let (undone, first) = {
            let ledger = self.ledger();
            (
                ledger.present_activations_of(id),
                ledger.first_activation_of(id),
            )
        };
        match (ca.record.status, first) {
            (Status::Inactive, None) => return Ok(Plans::default()),
            (Status::Inactive, Some(first)) if first.at_ms >= at_ms => {
                return Ok(Plans {
                    kept: Some(first),
                    ..Plans::default()
                });
            }
            (Status::Inactive, Some(_)) | (Status::Active, _) => {}
        }
        self.check_room(at, 1)?;
        let schedule = new_id()?;
        let new = ScheduleRecord {
            id: schedule,
            ca: id,
            status: Status::Active,
            at_ms,
            force: false,
            principal: origin(caller).principal,
            created_at_ms: self.now_ms(),
            // It ends what is made now.
            ends: Some(schedule),
        };
        Ok(Plans {
            undone,
            new: Some(new),
            kept: None,
        })
    }
}

fn note<const N: usize>(parts: [Option<String>; N]) -> Option<String> {
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn pace_text(pace: Pace) -> Option<String> {
    match pace {
        Pace::AtOnce => None,
        Pace::Over(time) => Some(format!("connections end over {} s", time.as_secs())),
    }
}

fn back_text(back: Back) -> Option<String> {
    match back {
        Back::Never => None,
        Back::After(time) => Some(format!("for {} s", time.as_secs())),
    }
}

//! Making what is due.

use std::sync::Arc;

use tokio::time::Instant;

use super::{cancelled_text, time_text};
use crate::ca::id::{RequestId, ScheduleId};
use crate::ca::lifecycle::Status;
use crate::ca::outlook::Proposal;
use crate::control::ca::word;
use crate::control::change::{Toward, Turn};
use crate::control::lockout::{Lockouts, noted};
use crate::control::{Caller, ControlError, Door, Grant, Inner, Principal, Record};
use crate::store::{CaRecord, Change, ScheduleRecord};

impl Inner {
    /// Do what is due, and go on doing so.
    pub(crate) async fn follow_schedules(self: Arc<Self>) {
        let mut seconds = self.seconds();
        while seconds.next().await {
            self.do_what_is_due().await;
        }
    }

    /// Do all that is due, in the order of the times.
    pub(crate) async fn do_what_is_due(&self) {
        loop {
            let mut turn = self.turn.lock().await;
            let now_ms = self.now_ms();
            // The clock tells no time: then nothing is due. No certificate is valid meanwhile.
            if now_ms == i64::MAX {
                return;
            }
            let due = self.ledger().next_schedule(now_ms, Instant::now());
            let Some(schedule) = due else { return };
            self.run(&mut turn, schedule).await;
        }
    }

    /// Forget a plan that is not made, and its end.
    async fn give_up(&self, turn: &mut Turn, id: ScheduleId) {
        let mut gone = self.ledger().ends_of(id);
        gone.push(id);
        for id in &gone {
            self.ledger_mut().remove_schedule(*id);
        }
        let gone = gone.into_iter().map(Change::DeleteSchedule).collect();
        // Toward deny: it must not come back with a restart.
        if let Err(error) = self.commit(turn, gone, Toward::Deny).await {
            tracing::error!(schedule = %id, %error, "its removal is not durable yet");
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
            // There was no call; the note names the plan.
            request_id: RequestId::from_random(u128::from(id).to_be_bytes()),
        };
        let status = schedule.status;
        let note = format!(
            "scheduled by {} for {} (schedule {id})",
            schedule.principal,
            time_text(schedule.at_ms)
        );
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
            note: Some(note.clone()),
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
                self.give_up(turn, id).await;
                return;
            }
        };
        let (toward, undone) = match status {
            Status::Inactive => {
                let undone = self.ledger().overtaken_by(&schedule, ca.record.status);
                (Toward::Deny, undone)
            }
            Status::Active => (Toward::Allow, Vec::new()),
        };
        if let Some(cancelled) = cancelled_text(&undone) {
            record.note = Some(format!("{note}; {cancelled}"));
        }
        record.note = noted(record.note, forced.as_ref());
        let mut changes = vec![
            Change::PutCa(CaRecord {
                status,
                ..ca.record.clone()
            }),
            Change::DeleteSchedule(id),
        ];
        changes.extend(undone.iter().copied().map(Change::DeleteSchedule));
        let (ca_id, registry) = (ca.record.id, Arc::clone(&at.registry));
        let done = self
            .carry_out(turn, &record, at, toward, changes, |inner| {
                inner.paces.end(&at.id, ca_id);
                let mut ledger = inner.ledger_mut();
                ledger.remove_schedule(id);
                for schedule in &undone {
                    ledger.remove_schedule(*schedule);
                    tracing::warn!(%schedule, "a planned activation is cancelled: a planned inactivation overtook it");
                }
                ledger.set_ca_status(ca_id, status);
                registry.set_status(ca_id, status)
            })
            .await;
        match done {
            Ok(sessions) => {
                tracing::info!(schedule = %id, ca.sn = %ca.certificate.serial(), state = word(status), sessions, "a scheduled change was made");
            }
            // In force, and owed to the disk with the removal of the schedule.
            Err(ControlError::NotDurable(_) | ControlError::Unrecorded(_)) => {}
            Err(_) => self.ledger_mut().rest_schedule(id, Instant::now()),
        }
    }
}

//! How a change is carried out, whatever it changes.

use std::cell::LazyCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::audit::Phase;
use crate::ca::error::Refusal;
use crate::ca::id::AccountId;
use crate::ca::path::Admitted;
use crate::ca::registry::Effects;
use crate::control::owed::{Batch, Kept, Retry, Which, is_list};
use crate::control::pace::Ended;
use crate::control::undo::{Removed, can_be_undone};
use crate::control::{Answer, ControlError, Inner, Instance, OnInactivate, Outcome, Record};
use crate::store::{Change, StoreError};

/// What the holder of the turn knows of the store.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Number of the last commit that this process knows.
    pub(crate) seq: u64,
    /// Denials that are in force in memory and not yet on disk. They go before any other change,
    /// but for lists that the disk does not take.
    pub(crate) owed: Vec<Change>,
    /// When those are tried again.
    pub(crate) lists: Retry,
}

/// Which way a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    /// In memory first; it stands even if the disk fails.
    Deny,
    /// On disk first; nothing is allowed that a restart would forget.
    Allow,
}

impl Inner {
    /// Carry out a planned change of an instance: intent, memory and disk in the order that fails
    /// toward deny, live connections, outcome. Gives the number of connections that were ended.
    ///
    /// # Errors
    /// [`ControlError::NotDurable`] if it is denied in memory only, [`ControlError::Unrecorded`] if
    /// it is in force and on disk, [`ControlError::Unanswered`] and [`ControlError::Internal`] if
    /// nothing was changed.
    pub(crate) async fn carry_out(
        &self,
        turn: &mut Turn,
        record: &Record<'_>,
        instance: &Instance,
        toward: Toward,
        changes: Vec<Change>,
        publish: impl FnOnce(&Self) -> Effects,
    ) -> Answer<usize> {
        let end =
            |inner: &Self, effects: Effects| Ended::at_once(inner.end_denied(instance, &effects));
        self.carry_out_ending(turn, record, instance, toward, changes, publish, end)
            .await
            .map(|ended| ended.at_once)
    }

    /// The same; `end` sees to the live connections. Gives what it gives.
    ///
    /// # Errors
    /// As [`carry_out`](Self::carry_out).
    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of a change, each once"
    )]
    pub(crate) async fn carry_out_ending(
        &self,
        turn: &mut Turn,
        record: &Record<'_>,
        instance: &Instance,
        toward: Toward,
        changes: Vec<Change>,
        publish: impl FnOnce(&Self) -> Effects,
        end: impl FnOnce(&Self, Effects) -> Ended,
    ) -> Answer<Ended> {
        let in_memory = |inner: &Self| {
            let effects = publish(inner);
            if toward == Toward::Deny {
                instance.registry.barrier();
            }
            effects
        };
        let result = self
            .carry_out_steps(turn, record, toward, changes, in_memory, end)
            .await;
        self.tell(instance, record, &result);
        result
    }

    /// Carry out a planned change of the access keys of an account, in the same order.
    ///
    /// # Errors
    /// As [`carry_out`](Self::carry_out).
    pub(crate) async fn carry_out_on_keys(
        &self,
        turn: &mut Turn,
        record: &Record<'_>,
        account: &AccountId,
        toward: Toward,
        changes: Vec<Change>,
        publish: impl FnOnce(&Self),
    ) -> Answer<()> {
        let result = self
            .carry_out_steps(turn, record, toward, changes, publish, |_, ()| {
                Ended::default()
            })
            .await;
        self.tell_of_key(account, record, &result);
        result.map(drop)
    }

    async fn carry_out_steps<E>(
        &self,
        turn: &mut Turn,
        record: &Record<'_>,
        toward: Toward,
        changes: Vec<Change>,
        publish: impl FnOnce(&Self) -> E,
        end: impl FnOnce(&Self, E) -> Ended,
    ) -> Answer<Ended> {
        let note = Outcome {
            code: None,
            detail: record.note.clone(),
        };
        let intent = self.record(record, Phase::Intent, note).await;
        let (result, unrecorded) = match (toward, intent) {
            (Toward::Allow, Err(error)) => (Err(error), None),
            (Toward::Allow, Ok(())) => {
                let kept = self.commit(turn, changes, Toward::Allow).await;
                let done = kept.map(|()| end(self, publish(self)));
                let failed = |error: StoreError| match error {
                    error if error.is_silence() => ControlError::Unanswered(error.to_string()),
                    error => ControlError::Internal(error.to_string()),
                };
                (done.map_err(failed), None)
            }
            (Toward::Deny, intent) => {
                let effects = publish(self);
                let kept = self.commit(turn, changes, Toward::Deny).await;
                let ended = end(self, effects);
                let done = kept.map(|()| ended);
                let failed = |error: StoreError| ControlError::NotDurable(error.to_string());
                (done.map_err(failed), intent.err())
            }
        };
        let (phase, mut outcome) = match &result {
            Ok(ended) => {
                let (code, detail) = (None, ended.detail());
                (Phase::Done, Outcome { code, detail })
            }
            Err(error) => {
                tracing::error!(
                    action = record.action,
                    subject = record.subject,
                    %error,
                    "a change of trust failed"
                );
                (Phase::Failed, Outcome::error(error))
            }
        };
        if let Some(error) = &unrecorded {
            let before = outcome.detail.map_or(String::new(), |it| format!("{it}; "));
            outcome.detail = Some(format!(
                "{before}the intent was not recorded before: {error}"
            ));
        }
        if let Err(error) = self.record(record, phase, outcome).await {
            tracing::error!(
                action = record.action,
                subject = record.subject,
                %error,
                "the outcome of a change is not in the audit log yet"
            );
        }
        match (result, unrecorded) {
            (Ok(_), Some(error)) => Err(ControlError::Unrecorded(error.to_string())),
            (result, _) => result,
        }
    }

    /// The plan of a change; if it came to nothing, the refusal is logged and audited.
    ///
    /// # Errors
    /// What the plan came to.
    pub(crate) async fn or_refused<T>(&self, record: &Record<'_>, plan: Answer<T>) -> Answer<T> {
        if let Err(error) = &plan {
            tracing::info!(
                action = record.action,
                subject = record.subject,
                request.id = %record.caller.request_id,
                reason = error.name(),
                detail = %error,
                "change refused"
            );
            let mut outcome = Outcome::error(error);
            if let Some(note) = &record.note {
                outcome.detail = Some(format!("{note}: {error}"));
            }
            if let Err(error) = self.record(record, Phase::Refused, outcome).await {
                tracing::error!(%error, "a refused change could not be audited");
            }
        }
        plan
    }

    /// Make the changes durable, and what is owed before them. Lists that are owed and that the
    /// disk does not take hold up nothing else.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for changes toward allow, if another hand changed the store since
    /// they were planned; what it did is known then, and they can be planned anew. Those that delete
    /// inactive devices are not asked for if the store does not answer who asks what goes.
    pub(crate) async fn commit(
        &self,
        turn: &mut Turn,
        changes: Vec<Change>,
        toward: Toward,
    ) -> Result<(), StoreError> {
        let removed = match toward {
            Toward::Allow => self.removed_by(&changes).await?,
            // Nothing of it is ever taken back.
            Toward::Deny => Removed::new(),
        };
        let batch = turn.batch(&changes, Which::for_changes(&changes));
        self.commit_batch(turn, batch, changes, toward, &removed)
            .await
    }

    async fn commit_batch(
        &self,
        turn: &mut Turn,
        batch: Batch,
        changes: Vec<Change>,
        toward: Toward,
        removed: &Removed,
    ) -> Result<(), StoreError> {
        let Batch { all, later } = batch;
        if all.is_empty() {
            return Ok(());
        }
        // What could not be taken back is waited for.
        let waits = match toward == Toward::Allow && !can_be_undone(&changes) {
            true => Waits::ForEver,
            false => Waits::AWhile,
        };
        match self.keep(turn.seq, all.clone(), waits).await {
            Ok(kept) => {
                turn.seq = kept.seq;
                self.paid(turn, &changes, kept, later)
            }
            Err(StoreError::Conflict { expected, head }) => {
                // A hand on the database file. A denial goes over whatever it did. What would
                // allow something was planned without knowing of it, and is not done.
                let (over, own, later) = match toward {
                    Toward::Deny => (all, changes, later),
                    Toward::Allow => (turn.owed.clone(), Vec::new(), Vec::new()),
                };
                let mut result = Ok(());
                if !over.is_empty() {
                    result = match self.keep(head, over, Waits::AWhile).await {
                        Ok(kept) => self.paid(turn, &own, kept, later),
                        Err(error) => return Err(self.unpaid(turn, own, toward, removed, error)),
                    };
                }
                // The store does not know of what is owed still: to take it over now would forget
                // that. `seq` is left alone if this fails, so that the follower tries again.
                if turn.owed.is_empty() {
                    match tokio::time::timeout(self.store_limit, self.read_store()).await {
                        Ok(Ok((snapshot, crls))) => self.take_over(turn, snapshot, crls),
                        Ok(Err(error)) => tracing::error!(%error, "the store cannot be read"),
                        Err(_) => tracing::error!("the store does not answer"),
                    }
                }
                match toward {
                    Toward::Deny => result,
                    Toward::Allow => Err(StoreError::Conflict { expected, head }),
                }
            }
            Err(error) => Err(self.unpaid(turn, changes, toward, removed, error)),
        }
    }

    /// Commit, and not wait for ever: what is asked of the store is done in the order in which it was
    /// asked. A store that is known to hang is asked nothing until it answers again: others wait for
    /// their turn.
    pub(crate) async fn commit_in_time(
        &self,
        seq: u64,
        changes: Vec<Change>,
        waits: Waits,
    ) -> Result<u64, StoreError> {
        self.store_answers().await?;
        let commit = self.store.commit(seq, changes);
        if waits == Waits::ForEver {
            return commit.await;
        }
        let committed = tokio::time::timeout(self.store_limit, commit).await;
        self.store_hangs
            .store(committed.is_err(), Ordering::Release);
        committed.unwrap_or(Err(StoreError::Silent(self.store_limit)))
    }

    /// Whether a store that is known to hang answers again.
    ///
    /// # Errors
    /// [`StoreError::NotAsked`] if it does not.
    pub(crate) async fn store_answers(&self) -> Result<(), StoreError> {
        if self.store_hangs.load(Ordering::Acquire) {
            // Answered behind what was asked before: a disk that is slow is none that hangs.
            let head = tokio::time::timeout(WHILE_IT_HANGS, self.store.head());
            if head.await.is_err() {
                return Err(StoreError::NotAsked);
            }
            self.store_hangs.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// What was to be kept is on disk, but for what is left. Lists that are take full effect.
    ///
    /// # Errors
    /// If one of these changes is left, or something at all if there are none.
    fn paid(
        &self,
        turn: &mut Turn,
        changes: &[Change],
        kept: Kept,
        later: Vec<Change>,
    ) -> Result<(), StoreError> {
        let held = turn.came_to(changes, &kept, later);
        self.durable.store(turn.owed.is_empty(), Ordering::Release);
        if let Some(held) = held {
            self.settle_crls(&held);
        }
        kept.result_for(changes)
    }

    fn unpaid(
        &self,
        turn: &mut Turn,
        changes: Vec<Change>,
        toward: Toward,
        removed: &Removed,
        error: StoreError,
    ) -> StoreError {
        match (toward, &error) {
            (Toward::Deny, _) => turn.owe(changes),
            // It may still be made.
            (Toward::Allow, StoreError::Silent(_)) => turn.owe(self.undo(&changes, removed)),
            (Toward::Allow, _) => {}
        }
        if turn.owed.iter().any(is_list) {
            turn.lists.failed();
        }
        self.durable.store(turn.owed.is_empty(), Ordering::Release);
        error
    }

    /// Make durable what is owed, lists only when it is time for them. Whether nothing is owed
    /// any more.
    pub(crate) async fn pay(&self, turn: &mut Turn) -> bool {
        let batch = turn.batch(&[], Which::Due);
        let nothing = Removed::new();
        let paid = self.commit_batch(turn, batch, Vec::new(), Toward::Deny, &nothing);
        // What it came to is in what is owed.
        let _ = paid.await;
        turn.owed.is_empty()
    }

    /// End the live connections that the effects of a change deny. Those over a CA whose
    /// connections end over a time, and whom nothing else denies, are left to that.
    pub(crate) fn end_denied(&self, instance: &Instance, effects: &Effects) -> usize {
        match instance.on_inactivate {
            OnInactivate::Cut => {
                let (peers, registry, now) = (&instance.peers, &instance.registry, self.now());
                // Worked out if it is needed only: with many CAs it takes a while.
                let paced =
                    LazyCell::new(|| registry.verdicts_if_active(&self.paces.of(&instance.id)));
                let covered = LazyCell::new(|| self.paces.covered(&instance.id));
                let is_left = |admitted: &Admitted| {
                    let mut path = admitted.path().iter();
                    path.any(|key| covered.contains(key))
                        || covered.contains(&admitted.anchor_key())
                };
                let objection = |admitted: &Admitted| match registry.objection(admitted, now)? {
                    // Only whom a pace ends is left to it.
                    Refusal::CaInactive { .. } | Refusal::Revoked { .. } if is_left(admitted) => {
                        registry.objection_if(&paced, admitted, now)
                    }
                    other => Some(other),
                };
                let of_devices: usize = effects
                    .devices
                    .iter()
                    .map(|device| peers.cut_device_by(device, objection))
                    .sum();
                peers.cut_over_by(&effects.denied, objection) + of_devices
            }
            OnInactivate::Keep => 0,
        }
    }

    /// Try again and again to record what is owed, until the process ends.
    pub(crate) async fn record_what_is_owed(self: Arc<Self>) {
        let mut seconds = self.seconds();
        while seconds.next().await {
            self.recorder.pay(self.now_ms()).await;
        }
    }

    /// Try again and again to make durable what is owed, until it is or the process ends.
    pub(crate) async fn pay_what_is_owed(self: Arc<Self>) {
        let mut seconds = self.seconds();
        while seconds.next().await {
            if self.durable.load(Ordering::Acquire) {
                continue;
            }
            let mut turn = self.turn.lock().await;
            if self.pay(&mut turn).await {
                tracing::warn!("denials that were in memory only are durable now");
            }
        }
    }
}

/// How long a commit is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    AWhile,
    ForEver,
}

/// How long an answer is waited for while the store hangs.
pub(crate) const WHILE_IT_HANGS: Duration = Duration::from_millis(100);

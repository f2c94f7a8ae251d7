//! Records in the audit log, and what becomes of them while it cannot be written.
//!
//! A change never waits for the log longer than a limit: a disk that hangs must not keep a denial
//! from being made. What a change has to say of its outcome is owed then, and written when the log
//! can be written again.

mod refusals;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::refusals::Refusals;
use crate::audit::{AuditError, AuditLog, Event, Phase};
use crate::control::{Answer, ControlError, Inner, Outcome, Record, origin};

/// The audit log as the parts of `control` use it.
pub(crate) struct Recorder {
    log: Arc<AuditLog>,
    owed: Arc<Mutex<Owed>>,
    refusals: Refusals,
    /// How long a change waits for a record.
    limit: Duration,
    /// Records that were given up waiting for and have no answer yet.
    late: Arc<AtomicUsize>,
}

/// Records that must be written and are not yet.
#[derive(Default)]
struct Owed {
    records: VecDeque<(i64, Event)>,
    /// How many there was no room for.
    lost: u64,
    /// The last attempt to write one failed.
    failing: bool,
}

/// Why a record is not in the log.
#[derive(Debug, thiserror::Error)]
enum Unrecorded {
    #[error("{0}")]
    Failed(#[from] AuditError),
    #[error("the audit log has not answered for {0:?}; its disk hangs, or is very slow")]
    Late(Duration),
    #[error("the task that writes it panicked")]
    Panicked,
}

/// Whether a record is owed if it cannot be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfItFails {
    /// The change is not made, or is refused.
    Forget,
    /// The change was made.
    Owe,
}

impl Recorder {
    pub(crate) fn new(log: AuditLog, limit: Duration) -> Self {
        Self {
            log: Arc::new(log),
            owed: Arc::default(),
            refusals: Refusals::new(),
            limit,
            late: Arc::default(),
        }
    }

    /// Whether the log has every record it must have, as far as is known.
    pub(crate) fn is_up_to_date(&self) -> bool {
        !lock(&self.owed).failing && self.late.load(Ordering::Acquire) == 0
    }

    #[cfg(test)]
    pub(crate) fn log(&self) -> &AuditLog {
        &self.log
    }

    /// Wait until it is written, with no limit: for the start.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) async fn write_at_last(&self, at_ms: i64, event: Event) -> Result<(), AuditError> {
        self.log.record(at_ms, event).await
    }

    /// Write it without waiting: soon, in the order in which this is called.
    pub(crate) fn owe(&self, at_ms: i64, event: Event) {
        lock(&self.owed).push(at_ms, event);
    }

    async fn write(&self, at_ms: i64, event: Event, fails: IfItFails) -> Result<(), Unrecorded> {
        let (log, owed) = (Arc::clone(&self.log), Arc::clone(&self.owed));
        // In a task of its own, so that what is late is known to have failed when it has.
        let mut writing = tokio::spawn(async move {
            let kept = (fails == IfItFails::Owe).then(|| event.clone());
            let written = log.record(at_ms, event).await;
            if let (Err(_), Some(event)) = (&written, kept) {
                let mut owed = lock(&owed);
                owed.push(at_ms, event);
                owed.failing = true;
            }
            written
        });
        // While one has no answer, the next would have none: others wait for their turn.
        let limit = match self.late.load(Ordering::Acquire) {
            0 => self.limit,
            _ => self.limit.min(WHILE_IT_HANGS),
        };
        match tokio::time::timeout(limit, &mut writing).await {
            Ok(Ok(written)) => Ok(written?),
            Ok(Err(_)) => Err(Unrecorded::Panicked),
            Err(_) => {
                self.late.fetch_add(1, Ordering::AcqRel);
                let late = Arc::clone(&self.late);
                tokio::spawn(async move {
                    // Whatever the answer is.
                    let _ = writing.await;
                    late.fetch_sub(1, Ordering::AcqRel);
                });
                Err(Unrecorded::Late(limit))
            }
        }
    }

    /// The last attempt to write what is owed; what cannot be written is in the log of the program.
    pub(crate) async fn close(&self, now_ms: i64) {
        if tokio::time::timeout(self.limit, self.pay(now_ms))
            .await
            .is_err()
        {
            tracing::error!("the audit log does not answer");
        }
        for (_, event) in std::mem::take(&mut lock(&self.owed).records) {
            let record = serde_json::to_string(&event).unwrap_or_default();
            tracing::error!(
                record,
                "a record could not be written to the audit log before the end"
            );
        }
    }

    /// Try to write what is owed.
    pub(crate) async fn pay(&self, now_ms: i64) {
        for event in self.refusals.summaries() {
            self.owe(now_ms, event);
        }
        loop {
            let next = lock(&self.owed).next(now_ms);
            let Some((what, at_ms, event)) = next else {
                break;
            };
            // Once it was handed to the log it is not tried again before there is an answer.
            let written = self.log.record(at_ms, event).await;
            let mut owed = lock(&self.owed);
            match written {
                Ok(()) => owed.written(what),
                Err(_) => {
                    // The log has said why, in its own words.
                    owed.failing = true;
                    break;
                }
            }
        }
        let owed = lock(&self.owed);
        let unrecorded = owed.records.len() + self.late.load(Ordering::Acquire);
        metrics::gauge!("portcullis_audit_unrecorded").set(unrecorded as f64);
    }
}

impl Owed {
    fn push(&mut self, at_ms: i64, event: Event) {
        if self.records.len() < MAX_OWED {
            self.records.push_back((at_ms, event));
        } else {
            tracing::error!(
                action = event.action,
                subject = event.subject,
                "too many records wait for the audit log; this one is only counted"
            );
            self.lost += 1;
        }
    }

    /// The oldest; last of all, how many there was no room for.
    fn next(&self, now_ms: i64) -> Option<(Next, i64, Event)> {
        if let Some((at_ms, event)) = self.records.front() {
            return Some((Next::Record, *at_ms, event.clone()));
        }
        let lost = self.lost;
        (lost > 0).then(|| {
            let what = format!("{lost} records could not be kept until they could be written");
            let event = Event::of_itself("LoseAuditRecords", String::new(), what);
            (Next::Lost(lost), now_ms, event)
        })
    }

    /// What [`next`](Self::next) gave is in the log.
    fn written(&mut self, what: Next) {
        match what {
            Next::Record => drop(self.records.pop_front()),
            Next::Lost(count) => self.lost = self.lost.saturating_sub(count),
        }
        if self.records.is_empty() && self.lost == 0 && std::mem::take(&mut self.failing) {
            tracing::warn!(
                "the audit log can be written again, and has every record that was owed"
            );
        }
    }
}

/// What is written next of what is owed.
#[derive(Debug, Clone, Copy)]
enum Next {
    Record,
    /// How many were lost.
    Lost(u64),
}

impl Inner {
    /// Write one phase of a change. What was done is owed if this fails.
    ///
    /// # Errors
    /// [`ControlError::Internal`] if it is not in the log now.
    pub(crate) async fn record(
        &self,
        record: &Record<'_>,
        phase: Phase,
        outcome: Outcome,
    ) -> Answer<()> {
        let fails = match phase {
            Phase::Intent | Phase::Refused | Phase::Closed => IfItFails::Forget,
            Phase::Done | Phase::Failed => IfItFails::Owe,
        };
        let event = event(record, phase, outcome);
        if phase == Phase::Refused && !self.recorder.refusals.admit(&event) {
            return Ok(());
        }
        let written = self.recorder.write(self.now_ms(), event, fails).await;
        written.map_err(|error| ControlError::Internal(error.to_string()))
    }
}

fn event(record: &Record<'_>, phase: Phase, outcome: Outcome) -> Event {
    Event {
        phase,
        origin: origin(record.caller),
        action: record.action.to_owned(),
        instance: record
            .instance
            .map(|instance| instance.chars().take(64).collect()),
        subject: record.subject.clone(),
        before: record.before.map(str::to_owned),
        after: record.after.map(str::to_owned),
        code: outcome.code,
        detail: outcome.detail,
    }
}

fn lock(owed: &Mutex<Owed>) -> MutexGuard<'_, Owed> {
    owed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many records may wait: some hundred octets each.
const MAX_OWED: usize = 4096;

/// How long a record is waited for while the log hangs.
const WHILE_IT_HANGS: Duration = Duration::from_millis(500);

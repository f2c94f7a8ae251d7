//! Writing what has changed: every now and then, and at the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;

use super::changed::Changed;
use super::{On, record};
use crate::mqtt::hub::Hub;
use crate::mqtt::session::Session;
use crate::mqtt::session::kept::Calendar;
use crate::mqtt::shard::Cell;
use crate::mqtt::topics::TopicName;
use crate::store::StoreError;
use crate::store::sessions::record::Write;

/// Sessions that are looked at before others get their turn.
const AT_A_TIME: usize = 1_024;

/// What could not be written before the end: at most so many, since what was given to the disk and
/// not confirmed may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missed {
    /// Sessions of which something is not on disk.
    pub sessions: usize,
    /// Messages that wait in them.
    pub messages: usize,
}

/// Write what has changed, again and again.
pub(in crate::mqtt) async fn keep_writing(hub: Arc<Hub>) {
    let Some(on) = hub.keeper.get() else { return };
    loop {
        tokio::time::sleep(on.every).await;
        // What could not be written is logged by the store, and is part of the next round.
        let _ = round(&hub).await;
    }
}

/// Write what has changed. When this returns, it is on disk.
///
/// # Errors
/// If it could not be written.
pub(in crate::mqtt) async fn round(hub: &Hub) -> Result<(), StoreError> {
    let Some(on) = hub.keeper.get() else {
        return Ok(());
    };
    let _turn = on.turn.lock().await;
    let began = Instant::now();
    let failures = on.store.failures();
    let failed = on.made_up_for.swap(failures, Ordering::AcqRel) != failures;
    let calendar = on.calendar(hub.now());
    let was_set = on.clock_was_set(calendar);
    let round = Round {
        hub,
        on,
        calendar,
        failures,
        anew: failed || was_set,
    };
    let written = round.write().await;
    if written.is_ok() {
        *on.unconfirmed() = Missed::default();
    }
    metrics::histogram!("portcullis_persistence_round_seconds").record(began.elapsed());
    written
}

struct Round<'a> {
    hub: &'a Hub,
    on: &'a On,
    calendar: Calendar,
    /// Those that the store had when it began.
    failures: u64,
    /// Write everything, also what has not changed: something was not written, or the times on
    /// disk are those of a clock that was wrong or is.
    anew: bool,
}

impl Round<'_> {
    async fn write(&self) -> Result<(), StoreError> {
        if self.anew {
            walk(self.hub, |cell| cell.session().outdate()).await;
            *self.on.unconfirmed() = Missed::default();
        }
        self.write_sessions().await;
        self.write_retained().await?;
        self.on.store.write(Write::Time(self.calendar.unix_ms));
        self.confirmed().await
    }

    /// Wait until all that the round has written so far is on disk. It goes there in many
    /// transactions, and a flush answers for the last of them.
    async fn confirmed(&self) -> Result<(), StoreError> {
        self.on.store.flush().await?;
        match self.on.store.failures() == self.failures {
            true => Ok(()),
            false => Err(StoreError::Unusable {
                what: "the disk did not take all of it".to_owned(),
            }),
        }
    }

    async fn write_sessions(&self) {
        let mut after = None;
        loop {
            let cells = self.hub.registry.after(after.as_ref(), AT_A_TIME);
            for cell in &cells {
                if self.write_session(cell) {
                    self.on.store.room().await;
                }
            }
            match cells.last() {
                Some(last) if cells.len() == AT_A_TIME => after = Some(last.client_id.clone()),
                _ => return,
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether there was something to write.
    fn write_session(&self, cell: &Cell) -> bool {
        let mut session = cell.session();
        let Some(write) = session.write(|| record::holder(cell), self.calendar) else {
            return false;
        };
        // While it is locked: whoever has it forgotten after this comes after this.
        self.on.store.write(write);
        let mut unconfirmed = self.on.unconfirmed();
        unconfirmed.sessions += 1;
        unconfirmed.messages += session.waiting();
        true
    }

    async fn write_retained(&self) -> Result<(), StoreError> {
        let changed = self.on.retained().take();
        match changed {
            Changed::These { topics, .. } if !self.anew => {
                for topic in topics {
                    self.write_topic(topic).await;
                }
                Ok(())
            }
            Changed::These { .. } | Changed::Any => {
                let written = self.write_all_retained().await;
                if written.is_err() {
                    *self.on.retained() = Changed::Any;
                }
                written
            }
        }
    }

    async fn write_topic(&self, topic: ByteString) {
        let Ok(name) = TopicName::parse(topic.clone(), &self.hub.limits.topics) else {
            return;
        };
        self.on.store.write(match self.hub.retained.get(&name) {
            Some(frame) => {
                let message = record::retained(topic, &frame, self.calendar);
                Write::Retained(Box::new(message), 0)
            }
            None => Write::NotRetained(topic),
        });
        self.on.store.room().await;
    }

    /// What is on disk is removed only when all of it is there anew: by what marks it as old, and
    /// by the time of [`Write::Time`], which can be that of another clock.
    async fn write_all_retained(&self) -> Result<(), StoreError> {
        let mark = self.on.next_mark(self.calendar);
        for frame in self.hub.retained.all() {
            if !frame.topic().starts_with('$') {
                let message = record::retained(frame.topic_slice(), &frame, self.calendar);
                self.on
                    .store
                    .write(Write::Retained(Box::new(message), mark));
                self.on.store.room().await;
            }
        }
        self.confirmed().await?;
        self.on.store.write(Write::RetainedOnly(mark));
        Ok(())
    }
}

/// Write everything, for at most so long, after the connections have ended. What is still under
/// way in the broker is waited for before. Nothing is written any more after this.
pub(in crate::mqtt) async fn finish(hub: &Hub, limit: Duration) -> Missed {
    let Some(on) = hub.keeper.get() else {
        return Missed::default();
    };
    let writing = async {
        settle(hub).await;
        let failed = round(hub).await.is_err();
        // A disk that was full for a moment, or what came meanwhile.
        if failed || count(hub, |session| !session.is_written()).await != Missed::default() {
            round(hub).await?;
        }
        on.store.close().await;
        Ok::<_, StoreError>(())
    };
    let outcome = tokio::time::timeout(limit, writing).await;
    on.store.abandon();
    let unwritten = |session: &Session| session.is_connected() || !session.is_written();
    let mut missed = count(hub, unwritten).await;
    // Nothing, if the last round was confirmed.
    let unconfirmed = *on.unconfirmed();
    missed.sessions += unconfirmed.sessions;
    missed.messages += unconfirmed.messages;
    match outcome {
        Ok(Ok(())) if missed == Missed::default() => {
            tracing::info!(
                sessions = hub.registry.len(),
                "sessions and retained messages are written"
            );
        }
        Ok(Ok(())) => tracing::error!(
            sessions = missed.sessions,
            messages = missed.messages,
            "sessions that were still in use are not written, or not with their last messages, which are lost"
        ),
        Ok(Err(error)) => tracing::error!(
            %error,
            sessions = missed.sessions,
            messages = missed.messages,
            "sessions and retained messages could not be written and are lost"
        ),
        Err(_) => tracing::error!(
            limit_s = limit.as_secs(),
            sessions = missed.sessions,
            messages = missed.messages,
            "sessions and retained messages could not be written in time and are lost"
        ),
    }
    missed
}

/// Wait for what is on its way: wills that are being published, frames between shards.
async fn settle(hub: &Hub) {
    hub.tasks.close();
    let settled = async {
        loop {
            hub.tasks.wait().await;
            if hub.bus_is_idle() && hub.tasks.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(SETTLE, settled).await.is_err() {
        tracing::warn!("messages were still on their way when sessions were written");
    }
}

async fn count(hub: &Hub, missed: impl Fn(&Session) -> bool) -> Missed {
    let mut counted = Missed::default();
    walk(hub, |cell| {
        let session = cell.session();
        if missed(&session) {
            counted.sessions += 1;
            counted.messages += session.waiting();
        }
    })
    .await;
    counted
}

/// Look at all sessions.
async fn walk(hub: &Hub, mut visit: impl FnMut(&Cell)) {
    let mut after = None;
    loop {
        let cells = hub.registry.after(after.as_ref(), AT_A_TIME);
        cells.iter().for_each(|cell| visit(cell));
        match cells.last() {
            Some(last) if cells.len() == AT_A_TIME => after = Some(last.client_id.clone()),
            _ => return,
        }
        tokio::task::yield_now().await;
    }
}

/// How long what is on its way may take at the end.
const SETTLE: Duration = Duration::from_secs(5);

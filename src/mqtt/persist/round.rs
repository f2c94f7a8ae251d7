//! Writing what has changed: every now and then, and at the end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::changed::Changed;
use super::{On, record};
use crate::mqtt::hub::Hub;
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
    let anew = on.made_up_for.swap(failures, Ordering::AcqRel) != failures;
    let calendar = on.calendar(hub.now());
    write_sessions(hub, on, anew, calendar).await;
    write_retained(hub, on, anew, calendar).await;
    on.store.write(Write::Time(calendar.unix_ms));
    let written = on.store.flush().await;
    if written.is_ok() {
        *on.unconfirmed() = Missed::default();
    }
    metrics::histogram!("portcullis_persistence_round_seconds").record(began.elapsed());
    written
}

async fn write_sessions(hub: &Hub, on: &On, anew: bool, calendar: Calendar) {
    let mut after = None;
    loop {
        let cells = hub.registry.after(after.as_ref(), AT_A_TIME);
        for cell in &cells {
            if anew {
                cell.session().outdate();
            }
            if write_session(cell, on, calendar) {
                on.store.room().await;
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
fn write_session(cell: &Cell, on: &On, calendar: Calendar) -> bool {
    let mut session = cell.session();
    let Some(write) = session.write(|| record::holder(cell), calendar) else {
        return false;
    };
    // While it is locked: whoever has it forgotten after this comes after this.
    on.store.write(write);
    let mut unconfirmed = on.unconfirmed();
    unconfirmed.sessions += 1;
    unconfirmed.messages += session.waiting();
    true
}

async fn write_retained(hub: &Hub, on: &On, anew: bool, calendar: Calendar) {
    let changed = {
        let mut changed = on.retained.lock().unwrap_or_else(PoisonError::into_inner);
        changed.take()
    };
    match changed {
        Changed::These { topics, .. } if !anew => {
            for topic in topics {
                let Ok(name) = TopicName::parse(topic.clone(), &hub.limits.topics) else {
                    continue;
                };
                on.store.write(match hub.retained.get(&name) {
                    Some(frame) => {
                        let message = record::retained(topic, &frame, calendar);
                        Write::Retained(Box::new(message), 0)
                    }
                    None => Write::NotRetained(topic),
                });
                on.store.room().await;
            }
        }
        Changed::These { .. } | Changed::Any => {
            // A mark that nothing on disk has: whatever is without it at the end is no more.
            let mark = calendar.unix_ms.max(1);
            for frame in hub.retained.all() {
                if !frame.topic().starts_with('$') {
                    let message = record::retained(frame.topic_slice(), &frame, calendar);
                    on.store.write(Write::Retained(Box::new(message), mark));
                    on.store.room().await;
                }
            }
            on.store.write(Write::RetainedOnly(mark));
        }
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
        if round(hub).await.is_err() {
            // A disk that was full for a moment.
            round(hub).await?;
        }
        on.store.close().await;
        Ok::<_, StoreError>(())
    };
    let outcome = tokio::time::timeout(limit, writing).await;
    on.store.abandon();
    let missed = match &outcome {
        Ok(Ok(())) => still_connected(hub),
        Ok(Err(_)) | Err(_) => {
            let unwritten = count(hub, |cell| {
                let session = cell.session();
                session.is_connected() || !session.is_written()
            });
            let unconfirmed = on.unconfirmed();
            Missed {
                sessions: unwritten.sessions + unconfirmed.sessions,
                messages: unwritten.messages + unconfirmed.messages,
            }
        }
    };
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
            "sessions of clients that were still connected are not written and are lost"
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

fn still_connected(hub: &Hub) -> Missed {
    count(hub, |cell| cell.session().is_connected())
}

fn count(hub: &Hub, missed: impl Fn(&Cell) -> bool) -> Missed {
    let mut counted = Missed::default();
    let mut after = None;
    loop {
        let cells = hub.registry.after(after.as_ref(), AT_A_TIME);
        for cell in cells.iter().filter(|cell| missed(cell)) {
            counted.sessions += 1;
            counted.messages += cell.session().waiting();
        }
        match cells.last() {
            Some(last) if cells.len() == AT_A_TIME => after = Some(last.client_id.clone()),
            _ => return counted,
        }
    }
}

/// How long what is on its way may take at the end.
const SETTLE: Duration = Duration::from_secs(5);

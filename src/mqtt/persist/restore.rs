//! Reading everything back, before the first client comes.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{On, record};
use crate::mqtt::hub::Hub;
use crate::mqtt::identity::{Client, Owner};
use crate::mqtt::metrics::{self, Drop, Outcome};
use crate::mqtt::registry::RestoreError;
use crate::mqtt::session::Session;
use crate::mqtt::session::kept::{self, Calendar, Unfit};
use crate::mqtt::topics::{Subscription, TopicName};
use crate::mqtt::wire::Will;
use crate::mqtt::wire::packets::Options;
use crate::store::StoreError;
use crate::store::sessions::record::{
    InFlightRecord, MessageRecord, RetainedRecord, Row, SessionRecord, SubscriptionRecord,
    WillRecord, Write,
};

/// What came back, and what did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Sessions that are there again.
    pub sessions: usize,
    /// Messages that wait in them.
    pub messages: usize,
    /// Retained messages that are there again.
    pub retained: usize,
    /// Sessions that expired meanwhile.
    pub expired: usize,
    /// Sessions that the limits do not allow any more.
    pub over_limit: usize,
    /// Sessions whose client was an administrator and is none now, or the other way round.
    pub owner_changed: usize,
    /// Sessions and retained messages that make no sense.
    pub unreadable: usize,
    /// Messages that were dropped: expired, or more than the limits allow.
    pub dropped: usize,
}

/// A session that is coming back.
struct Returning {
    session: Session,
    owner: Owner,
    client: Client,
    subscriptions: Vec<(Subscription, Options, Option<u32>)>,
}

/// A will whose session has expired.
type LastWord = (u64, (TopicName, Will));

struct Restorer<'a> {
    hub: &'a Arc<Hub>,
    on: &'a On,
    calendar: Calendar,
    returning: HashMap<u64, Returning>,
    /// Sessions that expired, of which a will may follow.
    expired: HashMap<u64, i64>,
    last_words: Vec<LastWord>,
    /// Sessions that do not come back. They are forgotten when all has been read: a start that fails
    /// before takes no will along.
    given_up: Vec<u64>,
    restored: Restored,
}

/// Read what is kept into a broker that has no sessions yet.
///
/// # Errors
/// If the file fails while it is read; then no session is there.
pub(in crate::mqtt) async fn restore(hub: &Arc<Hub>) -> Result<Restored, StoreError> {
    let Some(on) = hub.keeper.get() else {
        return Ok(Restored::default());
    };
    let mut restorer = Restorer {
        hub,
        on,
        calendar: on.calendar(hub.now()),
        returning: HashMap::new(),
        expired: HashMap::new(),
        last_words: Vec::new(),
        given_up: Vec::new(),
        restored: Restored::default(),
    };
    let (to, mut rows) = mpsc::channel(READ_AHEAD);
    let take = async {
        while let Some(batch) = rows.recv().await {
            for row in batch {
                restorer.take(row);
            }
            tokio::task::yield_now().await;
        }
    };
    let (read, ()) = tokio::join!(on.store.load(to), take);
    read?;
    Ok(restorer.finish())
}

impl Restorer<'_> {
    fn take(&mut self, row: Row) {
        match row {
            // A clock that was set back does not make the time that passed undone.
            Row::Time(at_ms) => self.calendar.unix_ms = self.calendar.unix_ms.max(at_ms),
            Row::Session(record) => self.session(record),
            Row::Will(session, record) => self.will(session, record),
            Row::Subscription(session, record) => self.subscription(session, &record),
            Row::Received(session, packet_id) => self.with(session, |returning, _| {
                returning.session.restore_received(packet_id)
            }),
            Row::InFlight(session, record) => self.in_flight(session, record),
            Row::Queued(session, number, record) => self.queued(session, number, record),
            Row::Retained(record) => self.retained(&record),
            Row::Unreadable {
                session,
                table,
                what,
            } => {
                tracing::warn!(table, session, what, "a row of what is kept makes no sense");
                match session {
                    // Without a part it is not what its client knows; a message is lost.
                    Some(session) if table == "queued" => self.lost_message(session),
                    Some(session) => self.give_up(session, Outcome::Unreadable),
                    None => self.restored.unreadable += 1,
                }
            }
        }
    }

    fn session(&mut self, record: SessionRecord) {
        let hub = self.hub;
        let key = record.key;
        if record.client_id.is_empty() || record.client_id.len() > hub.limits.max_client_id {
            return self.give_up(key, Outcome::OverLimit);
        }
        let Some(owner) = record::owner(&record.holder, &hub.settings.policy) else {
            return self.give_up(key, Outcome::OwnerChanged);
        };
        match hub.registry.restored(&record, &owner, self.calendar) {
            Ok(session) => {
                let returning = Returning {
                    session,
                    owner,
                    client: record::client(record.holder),
                    subscriptions: Vec::new(),
                };
                self.returning.insert(key, returning);
            }
            Err(unfit) => {
                if let (Unfit::Expired, Some(at)) = (unfit, record.expires_at_ms) {
                    self.expired.insert(key, at);
                }
                self.give_up(key, outcome(unfit));
            }
        }
    }

    fn will(&mut self, session: u64, mut record: WillRecord) {
        if let Some(&ended_at) = self.expired.get(&session) {
            // It was due at the end of the session at the latest (3.1.3.2.2).
            record.due_at_ms = record.due_at_ms.min(ended_at);
            match kept::will(record, &self.hub.limits.topics, self.calendar) {
                Ok(last_word) => self.last_words.push(last_word),
                Err(unfit) => self.count_dropped(unfit),
            }
            return;
        }
        let limits = self.hub.limits.topics;
        self.with(session, |returning, calendar| {
            let (due_at, will) = kept::will(record, &limits, calendar)?;
            returning.session.restore_will(due_at, will);
            Ok(())
        });
    }

    fn subscription(&mut self, session: u64, record: &SubscriptionRecord) {
        let limits = Arc::clone(&self.hub.limits);
        self.with(session, |returning, _| {
            if returning.subscriptions.len() >= limits.max_subscriptions {
                return Err(Unfit::OverLimit("there are too many subscriptions"));
            }
            let subscription = kept::subscription(record, &limits.topics)?;
            returning.subscriptions.push(subscription);
            Ok(())
        });
    }

    fn in_flight(&mut self, session: u64, record: InFlightRecord) {
        self.with(session, |returning, calendar| {
            returning.session.restore_in_flight(record, calendar)
        });
    }

    fn queued(&mut self, session: u64, number: u64, record: MessageRecord) {
        let Some(returning) = self.returning.get_mut(&session) else {
            return;
        };
        match returning
            .session
            .restore_queued(number, record, self.calendar)
        {
            Ok(taken) => {
                metrics::dropped_from_queue(&taken.dropped);
                self.restored.dropped += taken.dropped.total();
            }
            Err(unfit) => self.count_dropped(unfit),
        }
    }

    fn retained(&mut self, record: &RetainedRecord) {
        let hub = self.hub;
        let (topic, frame) = match record::restored(record, &hub.limits.topics, self.calendar) {
            Ok(restored) => restored,
            Err(unfit) => {
                self.not_retained(record);
                return self.count_dropped(unfit);
            }
        };
        hub.registry.publisher_was(record.publisher);
        match hub.keep_retained(&topic, &frame) {
            Ok(()) => self.restored.retained += 1,
            Err(_) => {
                self.not_retained(record);
                self.restored.dropped += 1;
            }
        }
    }

    fn not_retained(&self, record: &RetainedRecord) {
        self.on
            .store
            .write(Write::NotRetained(record.topic.clone()));
    }

    /// Do something with a session that is coming back; without it the session is not what it was.
    fn with(
        &mut self,
        session: u64,
        act: impl FnOnce(&mut Returning, Calendar) -> Result<(), Unfit>,
    ) {
        let Some(returning) = self.returning.get_mut(&session) else {
            return;
        };
        if let Err(unfit) = act(returning, self.calendar) {
            tracing::warn!(
                client_id = %returning.session.client_id().escape_debug(),
                reason = %unfit,
                "a session is not restored"
            );
            self.give_up(session, outcome(unfit));
        }
    }

    fn lost_message(&mut self, session: u64) {
        if let Some(returning) = self.returning.get_mut(&session) {
            returning.session.outdate();
            metrics::dropped(Drop::Unreadable, 1);
            self.restored.dropped += 1;
        }
    }

    fn count_dropped(&mut self, unfit: Unfit) {
        let why = match unfit {
            Unfit::Unreadable(_) => Drop::Unreadable,
            Unfit::OverLimit(_) => Drop::OverLimit,
            Unfit::Expired => Drop::Expired,
        };
        metrics::dropped(why, 1);
        self.restored.dropped += 1;
    }

    /// The session does not come back. Its client is told so when it connects.
    fn give_up(&mut self, session: u64, why: Outcome) {
        self.returning.remove(&session);
        self.given_up.push(session);
        metrics::restored(why);
        match why {
            Outcome::Restored => {}
            Outcome::Expired => self.restored.expired += 1,
            Outcome::OverLimit => self.restored.over_limit += 1,
            Outcome::OwnerChanged => self.restored.owner_changed += 1,
            Outcome::Unreadable => self.restored.unreadable += 1,
        }
    }

    /// Let the sessions in, in the order of their numbers, and publish what is overdue.
    fn finish(mut self) -> Restored {
        let mut returning: Vec<(u64, Returning)> = self.returning.drain().collect();
        returning.sort_unstable_by_key(|(key, _)| *key);
        for (key, mut one) in returning {
            if let Err(unfit) = one.session.restore_ends() {
                self.give_up(key, outcome(unfit));
                continue;
            }
            let waiting = one.session.waiting();
            let registry = &self.hub.registry;
            match registry.restore(one.session, one.owner, one.client, one.subscriptions) {
                Ok(()) => {
                    metrics::restored(Outcome::Restored);
                    self.restored.sessions += 1;
                    self.restored.messages += waiting;
                }
                Err(RestoreError::Full) => self.give_up(key, Outcome::OverLimit),
                Err(RestoreError::Bus(error)) => {
                    tracing::error!(%error, "the bus did not take a subscription");
                    self.give_up(key, Outcome::Unreadable);
                }
            }
        }
        for session in self.given_up {
            // Not waited for: if a crash comes before, it is given up again.
            std::mem::drop(self.on.store.forget(session));
        }
        self.on.was_read(self.calendar);
        // After the sessions, which may be waiting for them.
        self.last_words.sort_unstable_by_key(|(due_at, _)| *due_at);
        for (_, (topic, will)) in self.last_words {
            self.hub.publish_will(0, 0, topic, &will);
        }
        self.restored
    }
}

fn outcome(unfit: Unfit) -> Outcome {
    match unfit {
        Unfit::Unreadable(_) => Outcome::Unreadable,
        Unfit::OverLimit(_) => Outcome::OverLimit,
        Unfit::Expired => Outcome::Expired,
    }
}

/// Batches that are read while others are being taken.
const READ_AHEAD: usize = 4;

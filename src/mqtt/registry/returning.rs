//! Sessions that come back from disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Registry, lock};
use crate::mqtt::bus::BusError;
use crate::mqtt::identity::{Client, Owner};
use crate::mqtt::metrics;
use crate::mqtt::session::Session;
use crate::mqtt::session::kept::{Calendar, Unfit};
use crate::mqtt::shared::Presence;
use crate::mqtt::topics::Subscription;
use crate::mqtt::wire::packets::Options;
use crate::store::sessions::record::SessionRecord;

/// Why a session that was on disk is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There are too many sessions.
    #[error("there are too many sessions")]
    Full,
    /// The bus does not take a subscription.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl Registry {
    /// A session that comes back from disk, as yet without what belongs to it.
    ///
    /// # Errors
    /// [`Unfit::Expired`].
    pub fn restored(
        &self,
        record: &SessionRecord,
        owner: &Owner,
        calendar: Calendar,
    ) -> Result<Session, Unfit> {
        self.publisher_was(record.key);
        Session::restored(
            record,
            owner.is_administrator(),
            self.limits.clone(),
            self.overflow,
            self.budget.clone(),
            calendar,
        )
    }

    /// There was a session with this number once, and messages of it can still be about.
    pub fn publisher_was(&self, key: u64) {
        let next = key.saturating_add(1);
        self.next_key.fetch_max(next, Ordering::Relaxed);
    }

    /// Take in a session that is complete again.
    ///
    /// # Errors
    /// [`RestoreError`]; then it is not there.
    pub fn restore(
        &self,
        session: Session,
        owner: Owner,
        client: Client,
        subscriptions: Vec<(Subscription, Options, Option<u32>)>,
    ) -> Result<(), RestoreError> {
        let mut map = self.map();
        let shard = self.shard_of(session.client_id());
        let Some(shard) = shard.filter(|_| map.len() < self.limits.max_sessions) else {
            return Err(RestoreError::Full);
        };
        let cell = shard.cell(session, owner, client);
        for (subscription, options, id) in subscriptions {
            match shard.subscribe(&cell, &subscription, Presence::Away) {
                Ok(place) => {
                    let mut session = cell.session();
                    let subscriptions = session.subscriptions_mut();
                    subscriptions.insert(subscription, place, options, id);
                }
                Err(error) => {
                    self.forget(&cell);
                    return Err(error.into());
                }
            }
        }
        if let Some(at) = cell.session().deadline() {
            lock(&self.timers).insert((at, cell.key), Arc::downgrade(&cell));
        }
        map.insert(cell.client_id.clone(), cell);
        metrics::session_began();
        Ok(())
    }
}

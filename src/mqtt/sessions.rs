//! What the sessions of a broker are to the rest of the program: listed, asked after, closed.

use std::sync::{Arc, Weak};

use super::hub::Hub;
use super::shard::Cell;
use crate::ca::id::CertSerial;
use crate::control::sessions::{Closed, Later, Presence, SessionView, Sessions, Wanted};
use crate::control::{Page, PageRequest};

/// The sessions of a broker, as long as it is there.
#[derive(Clone)]
pub(super) struct BrokerSessions {
    hub: Weak<Hub>,
    longest_client_id: usize,
}

impl BrokerSessions {
    pub(super) fn of(hub: &Arc<Hub>) -> Self {
        Self {
            // The hub's hooks lead to whoever gets this: together they would never be freed.
            hub: Arc::downgrade(hub),
            longest_client_id: hub.limits.max_client_id,
        }
    }
}

impl Sessions for BrokerSessions {
    fn longest_client_id(&self) -> usize {
        self.longest_client_id
    }

    fn close<'a>(&'a self, client_id: &'a str) -> Later<'a, Closed> {
        Box::pin(async move {
            match self.hub.upgrade() {
                Some(hub) => hub.registry.close(client_id).await,
                None => Closed::NotConnected,
            }
        })
    }

    fn is_online(&self, client_id: &str) -> bool {
        let cell = self
            .hub
            .upgrade()
            .and_then(|hub| hub.registry.get(client_id));
        cell.is_some_and(|cell| presence(&cell) == Presence::Online)
    }

    fn get(&self, client_id: &str) -> Option<SessionView> {
        let cell = self.hub.upgrade()?.registry.get(client_id)?;
        Some(view(&cell))
    }

    fn list(&self, wanted: Wanted, page: PageRequest) -> Later<'_, Page<SessionView>> {
        Box::pin(async move {
            match self.hub.upgrade() {
                Some(hub) => list(&hub, &wanted, page).await,
                None => Page {
                    items: Vec::new(),
                    total: 0,
                },
            }
        })
    }

    fn count(&self) -> usize {
        self.hub.upgrade().map_or(0, |hub| hub.registry.len())
    }
}

/// Sessions that are looked at before others get their turn.
const AT_A_TIME: usize = 1_024;

/// Nothing is sorted: the sessions are walked in order, up to the end of the page, or all of them
/// if only some are wanted, since the answer says how many there are. With 200,000 sessions that
/// is some 25 ms at most; the lock that CONNECT needs is held for [`AT_A_TIME`] of them, less than
/// 0.1 ms. One walk at a time: listings, however many are asked for, take one core at most.
async fn list(hub: &Hub, wanted: &Wanted, page: PageRequest) -> Page<SessionView> {
    let all = wanted.ca_sn.is_none() && wanted.presence.is_none();
    let (first, end) = (page.offset(), page.offset().saturating_add(page.size));
    let mut items = Vec::new();
    let mut found = 0;
    if all && first >= hub.registry.len() {
        let total = hub.registry.len();
        return Page { items, total };
    }
    let _turn = hub.listing.acquire().await;
    let mut after = None;
    loop {
        let cells = hub.registry.after(after.as_ref(), AT_A_TIME);
        for cell in cells.iter().filter(|cell| all || is_wanted(cell, wanted)) {
            if (first..end).contains(&found) {
                items.push(view(cell));
            }
            found += 1;
        }
        match cells.last() {
            Some(last) if cells.len() == AT_A_TIME && !(all && found >= end) => {
                after = Some(last.client_id.clone());
            }
            _ => break,
        }
        tokio::task::yield_now().await;
    }
    let total = if all { hub.registry.len() } else { found };
    Page { items, total }
}

fn is_wanted(cell: &Cell, wanted: &Wanted) -> bool {
    let of_ca = |sn: &CertSerial| *sn == cell.client().ca_sn;
    wanted.ca_sn.as_ref().is_none_or(of_ca)
        && wanted.presence.is_none_or(|such| such == presence(cell))
}

fn presence(cell: &Cell) -> Presence {
    match cell.session().is_connected() {
        true => Presence::Online,
        false => Presence::Away,
    }
}

fn view(cell: &Cell) -> SessionView {
    // The session first: it is locked when its client changes, so the two belong together.
    let session = cell.session();
    let client = cell.client();
    let connected = session.is_connected();
    SessionView {
        client_id: cell.client_id.to_string(),
        presence: match connected {
            true => Presence::Online,
            false => Presence::Away,
        },
        ca_sn: client.ca_sn.clone(),
        device_sn: client.serial.clone(),
        common_name: client.common_name.clone().unwrap_or_default(),
        address: client.address,
        connected_since_ms: connected.then_some(client.since_ms),
        subscriptions: session.subscriptions().len(),
        queued: session.waiting(),
    }
}

//! Changes of trust, as `control` tells them.

use std::sync::{Arc, Weak};

use serde::Serialize;
use time::OffsetDateTime;

use super::Sys;
use super::events::{About, Event, Stream, cut, text};
use super::outbox::Lane;
use crate::control::observe::{Durability, Happened, Observer, Subject, TrustChange};
use crate::mqtt::hub::Hub;

/// Tells the administrators of a broker, as long as it is there.
pub(in crate::mqtt) struct BrokerObserver {
    hub: Weak<Hub>,
}

impl BrokerObserver {
    pub(in crate::mqtt) fn of(hub: &Arc<Hub>) -> Self {
        Self {
            // The hub's hooks lead to whoever gets this: together they would never be freed.
            hub: Arc::downgrade(hub),
        }
    }
}

impl Observer for BrokerObserver {
    fn changed(&self, change: &TrustChange) {
        if let Some(hub) = self.hub.upgrade() {
            hub.sys.changed(change);
        }
    }
}

/// What an event of a change says besides what all say.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Change {
    #[serde(flatten)]
    subject: Named,
    before: Option<&'static str>,
    after: Option<&'static str>,
    durable: bool,
    connections_ended: Option<usize>,
    action: &'static str,
    principal: String,
    door: &'static str,
    address: Option<String>,
    request_id: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Named {
    Ca { ca_sn: String },
    Device { ca_sn: String, device_sn: String },
    AccessKey { access_key_id: String },
}

impl Sys {
    fn changed(&self, change: &TrustChange) {
        let stream = match change.subject {
            Subject::Ca { .. } => Stream::Ca,
            Subject::Device { .. } => Stream::Device,
            Subject::AccessKey { .. } => Stream::AccessKey,
        };
        // Devices are recorded because they connect: so many that they could fill the queue.
        let lane = match change.happened {
            Happened::Recorded => Lane::Clients,
            Happened::Registered
            | Happened::Created
            | Happened::Activated
            | Happened::Inactivated
            | Happened::Deleted
            | Happened::PolicyChanged
            | Happened::CrlPolicyChanged => Lane::Operators,
        };
        self.tell(lane, stream, || event(&self.instance, change));
    }
}

fn event(instance: &str, change: &TrustChange) -> Event {
    let about = Change {
        subject: match &change.subject {
            Subject::Ca { sn } => Named::Ca { ca_sn: cut(sn) },
            Subject::Device { ca_sn, serial } => Named::Device {
                ca_sn: cut(ca_sn),
                device_sn: cut(serial),
            },
            Subject::AccessKey { id } => Named::AccessKey {
                access_key_id: cut(id),
            },
        },
        before: change.before,
        after: change.after,
        durable: change.durability == Durability::OnDisk,
        connections_ended: change.connections_ended,
        action: change.action,
        principal: cut(&change.principal),
        door: change.door,
        address: change.address.map(|address| address.to_string()),
        request_id: change.request_id.clone(),
    };
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(change.at_ms) * 1_000_000);
    Event {
        time: text(time.unwrap_or(OffsetDateTime::UNIX_EPOCH)),
        ..Event::new(change.happened.as_str(), instance, About::Change(about))
    }
}

//! What the client of a connection may do, and what becomes of what it may not.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use crate::mqtt::access::{Denial, Permission, Publishing};
use crate::mqtt::identity::Peer;
use crate::mqtt::metrics;
use crate::mqtt::shard::Cell;
use crate::mqtt::topics::{Subscription, TopicFilter, TopicName};

impl<S, P> Connection<'_, S, P>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Peer,
{
    /// What becomes of a message for this topic; `action` is what a denial counts as.
    pub(super) fn publishing(&mut self, action: &'static str, topic: &TopicName) -> Publishing {
        let verdict = match &self.rights {
            Some(rights) => rights.publish(topic),
            None => Publishing::Denied(Denial::Default),
        };
        if let Publishing::Denied(denial) = verdict {
            self.denied(action, topic.as_str(), denial);
        }
        verdict
    }

    /// Whether this filter may be subscribed to; `action` is what a denial counts as.
    pub(super) fn subscribing(&mut self, action: &'static str, filter: &TopicFilter) -> Permission {
        let verdict = match &self.rights {
            Some(rights) => rights.subscribe(filter),
            None => Permission::Denied(Denial::Default),
        };
        if let Permission::Denied(denial) = verdict {
            self.denied(action, filter.as_str(), denial);
        }
        verdict
    }

    fn denied(&mut self, action: &'static str, topic: &str, denial: Denial) {
        metrics::denied(action);
        if self.denials_told == MAX_DENIALS_TOLD {
            return;
        }
        self.denials_told += 1;
        let topic: String = topic.chars().take(MAX_TOPIC_TOLD).collect();
        let _in_span = self.span.enter();
        tracing::info!(
            action,
            topic = %topic.escape_debug(),
            rule = %denial,
            "the client may not do that; ten of these are told for each connection"
        );
    }

    /// Hold a session that was there before against what its client may do now: the certificate
    /// can have been renewed with other names, the rules can be others since a restart. What it
    /// is subscribed to and may not read ends, and so do messages that wait.
    ///
    /// Before anything is sent. Others get their turn in between.
    pub(super) async fn hold_to_rights(&mut self, cell: &Arc<Cell>) {
        let Some(rights) = self.rights.clone() else {
            return;
        };
        if cell.is_held_to(&rights) {
            return;
        }
        let subscriptions: Vec<Subscription> = {
            let session = cell.session();
            let all = session.subscriptions().iter();
            all.map(|(subscription, _)| subscription.clone()).collect()
        };
        for (index, subscription) in subscriptions.iter().enumerate() {
            if index % AT_A_TIME == AT_A_TIME - 1 && is_cut_after_a_pause(self.peer).await {
                return;
            }
            let verdict = self.subscribing("resume", subscription.filter());
            if let Permission::Denied(_) = verdict {
                self.end_subscription(cell, subscription);
            }
        }
        // The session gets nothing more now that its client may not read.
        let mut unchecked = cell.session().waiting();
        while unchecked > 0 {
            let may_read = |topic: &str| rights.read(topic) == Permission::Granted;
            let (left, dropped) = cell.session().sift(unchecked, AT_A_TIME, may_read);
            metrics::dropped(metrics::Drop::NotAuthorized, dropped);
            unchecked = left;
            if is_cut_after_a_pause(self.peer).await {
                return;
            }
        }
        cell.hold_to(rights);
    }
}

/// Give others their turn, and look for a cut.
async fn is_cut_after_a_pause(peer: &impl Peer) -> bool {
    tokio::task::yield_now().await;
    peer.cut().is_some()
}

/// Denials that are logged for one connection; all are counted.
const MAX_DENIALS_TOLD: u8 = 10;

/// Characters of a topic that are logged.
const MAX_TOPIC_TOLD: usize = 200;

/// Subscriptions or messages that are looked at before others get their turn.
const AT_A_TIME: usize = 256;

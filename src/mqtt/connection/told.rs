//! What operators are told of a connection.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use super::admission::Admitted;
use super::end::End;
use crate::mqtt::identity::Peer;
use crate::mqtt::metrics::Ending;
use crate::mqtt::session::outbound::Sent;
use crate::mqtt::shard::Cell;
use crate::mqtt::sys::{Departed, Refused, Terms, Who};
use crate::mqtt::wire::Version;

impl<S, P> Connection<'_, S, P>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Peer,
{
    pub(super) fn tell_connected(&self, terms: &Terms<'_>) {
        self.hub.sys.connected(&self.who(), terms);
    }

    /// What came is against the rules of what carries it. That somebody has gone is not told here.
    pub(super) fn tell_unreadable(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidData {
            let _in_span = self.span.enter();
            tracing::info!(%error, "what came cannot be read");
        }
    }

    /// To be told before the session is let go: what comes next of this client comes after it.
    pub(super) fn tell_disconnected(
        &self,
        cell: &Arc<Cell>,
        admitted: &Admitted,
        end: &End,
        words: Option<&str>,
    ) {
        let departed = Departed {
            client_id: &cell.client_id,
            version: self.decoder.version().unwrap_or(Version::V311),
            ending: end.ending,
            code: end.farewell.map(|(code, _)| code).or(self.left_with),
            detail: words,
            lasted: admitted.since.elapsed(),
        };
        self.hub.sys.disconnected(&self.who(), &departed);
    }

    /// The connection ends before CONNECT was accepted. Who goes away by itself, or because the
    /// broker stops, was not refused.
    pub(super) fn tell_refused(&mut self, ending: Ending) {
        let refused = self.refusal.take().unwrap_or_else(|| Refused {
            client_id: None,
            ending,
            code: None,
            detail: self.cut_words(ending).map(Cow::Owned),
        });
        match ending {
            Ending::ConnectionLost | Ending::Shutdown => {}
            _ => self.hub.sys.connect_refused(&self.who(), &refused),
        }
    }

    pub(super) fn count_sent(&self, sent: &Sent) {
        let tally = &self.hub.sys.tally;
        let packets = sent.messages + sent.others;
        if packets > 0 {
            tally.packets_sent.add(packets);
        }
        if sent.messages > 0 {
            tally.messages_sent.add(sent.messages);
            tally.payload_sent.add(sent.payload);
        }
    }

    /// Put what has come into the figures: before anything is answered, and once for many packets,
    /// since all connections count in the same places.
    pub(super) fn count_came(&mut self) {
        let came = std::mem::take(&mut self.came);
        let tally = &self.hub.sys.tally;
        if came.packets > 0 {
            tally.packets_received.add(came.packets);
        }
        if came.messages > 0 {
            self.hub.counters.received.increment(came.messages as u64);
            tally.messages_received.add(came.messages);
            tally.payload_received.add(came.payload);
        }
    }

    fn who(&self) -> Who<'_> {
        Who {
            peer: self.peer.verified(),
            remote: self.remote,
            connection: self.number,
        }
    }
}

//! What a client is told whose trust has ended.

use std::borrow::Cow;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use super::end::End;
use crate::mqtt::identity::Peer;
use crate::mqtt::metrics::Ending;
use crate::mqtt::sys::Refused;
use crate::mqtt::wire::encode::{ConnAck, Outgoing};
use crate::mqtt::wire::reason;

impl<S, P> Connection<'_, S, P>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Peer,
{
    /// Which certificate and which rule ended the connection, if a cut did.
    pub(super) fn cut_words(&self, ending: Ending) -> Option<String> {
        match ending {
            Ending::Cut => self.peer.cut_words(),
            _ => None,
        }
    }

    /// What is said about the end of a connection.
    pub(super) fn words(&self, end: &End) -> Option<Cow<'static, str>> {
        match self.cut_words(end.ending) {
            Some(words) => Some(Cow::Owned(words)),
            None => end.farewell.map(|(_, words)| Cow::Borrowed(words)),
        }
    }

    /// Answer a CONNECT that was read, but not accepted before the cut. A client that has not sent
    /// one cannot be told anything (3.2).
    pub(super) fn refuse_cut(&mut self, ending: Ending) {
        let (Ending::Cut, Some(version)) = (ending, self.decoder.version()) else {
            return;
        };
        let words = self.cut_words(ending).unwrap_or_default();
        self.refusal = Some(Refused {
            client_id: None,
            ending,
            code: Some(reason::NOT_AUTHORIZED),
            detail: Some(words.clone().into()),
        });
        self.hub.sys.tally.packets_sent.add(1);
        let packet = ConnAck::refusal(reason::NOT_AUTHORIZED, words);
        Outgoing::ConnAck(Box::new(packet)).encode(version, u32::MAX, &mut self.output);
    }
}

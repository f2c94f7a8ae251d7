//! CONNECT: who may have which session, on which terms.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::Connection;
use crate::mqtt::access::Publishing;
use crate::mqtt::identity::{Client, Owner, Peer, choose_client_id, may_use};
use crate::mqtt::metrics::Ending;
use crate::mqtt::registry::AttachError;
use crate::mqtt::shard::Cell;
use crate::mqtt::sys::{Refused, Terms};
use crate::mqtt::topics::TopicName;
use crate::mqtt::wire::encode::{ConnAck, Outgoing};
use crate::mqtt::wire::{Connect, Incoming, Version, Will, WireError, reason};

/// A client that has its session; CONNACK is in the session's queue.
pub(super) struct Admitted {
    pub(super) cell: Arc<Cell>,
    /// Since when.
    pub(super) since: Instant,
    /// After how long a silence the connection ends.
    pub(super) keep_alive: Option<Duration>,
    pub(super) max_packet: u32,
}

/// The reason code and the words of a refusal.
type Refusal = (u8, &'static str);

impl<S, P> Connection<'_, S, P>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Peer,
{
    /// Wait for CONNECT and answer it. On a refusal the answer is in the output.
    pub(super) async fn admit(&mut self) -> Result<Admitted, Ending> {
        let mut connect = match self.read_connect().await {
            Ok(connect) => connect,
            Err(ending) => return Err(ending),
        };
        // A peer can have been told and not yet been woken for it.
        if self.peer.cut().is_some() {
            return Err(Ending::Cut);
        }
        match self.decide(&mut connect).await {
            Ok(admitted) => Ok(admitted),
            Err((code, words)) => {
                tracing::info!(
                    client_id = %connect.client_id.escape_debug(),
                    detail = words,
                    "CONNECT refused"
                );
                let client_id = Some(connect.client_id.to_string());
                self.refuse(connect.version, client_id, code, words);
                Err(Ending::Refused)
            }
        }
    }

    async fn read_connect(&mut self) -> Result<Box<Connect>, Ending> {
        loop {
            match self.decoder.next(&mut self.input) {
                Ok(Some(packet)) => {
                    self.hub.sys.tally.packets_received.add(1);
                    return match packet {
                        Incoming::Connect(connect) => Ok(connect),
                        _ => Err(Ending::ProtocolError),
                    };
                }
                Ok(None) => {}
                Err(error) => return Err(self.refuse_connect(error)),
            }
            self.input.reserve(self.chunk);
            let read = self.stream.read_buf(&mut self.input).await;
            if !self.has_read(read) {
                return Err(Ending::ConnectionLost);
            }
        }
    }

    /// What is no CONNECT is not answered; what is one, but not a good one, is, if its version
    /// has an answer for it.
    fn refuse_connect(&mut self, error: WireError) -> Ending {
        let version = match (self.decoder.version(), error) {
            (_, WireError::Version(level)) if level < 5 => Version::V311,
            (_, WireError::Version(_)) => Version::V5,
            (Some(Version::V311), WireError::ClientId) => Version::V311,
            (Some(Version::V5), _) => Version::V5,
            _ => {
                tracing::info!(%error, "what came is no CONNECT");
                return Ending::ProtocolError;
            }
        };
        tracing::info!(%error, "CONNECT refused");
        self.refuse(version, None, error.reason(), "CONNECT is not valid");
        Ending::Refused
    }

    fn refuse(
        &mut self,
        version: Version,
        client_id: Option<String>,
        code: u8,
        words: &'static str,
    ) {
        self.refusal = Some(Refused {
            client_id,
            ending: Ending::Refused,
            code: Some(code),
            detail: Some(words.into()),
        });
        self.hub.sys.tally.packets_sent.add(1);
        let packet = ConnAck::refusal(code, words);
        Outgoing::ConnAck(Box::new(packet)).encode(version, u32::MAX, &mut self.output);
    }

    async fn decide(&mut self, connect: &mut Connect) -> Result<Admitted, Refusal> {
        let (hub, peer) = (self.hub, self.peer.verified());
        let policy = &hub.settings.policy;
        if connect.wants_auth {
            let words = "there is no authentication besides the certificate";
            return Err((reason::BAD_AUTH_METHOD, words));
        }
        let assigned = self.name(connect)?;
        if !may_use(peer, &connect.client_id, policy) {
            let words = "the certificate does not allow this client id";
            return Err((reason::NOT_AUTHORIZED, words));
        }
        let owner = Owner::of(peer, policy);
        let administrator = owner.is_administrator();
        let rights = hub.access.rights(peer, &connect.client_id, administrator);
        self.rights = Some(Arc::new(rights));
        let will = match connect.will.take() {
            None => None,
            Some(will) => Some(self.check_will(will)?),
        };
        let client = Client::of(peer, self.remote, SystemTime::now());
        let expiry = connect.session_expiry.min(hub.limits.max_session_expiry);
        let attached = hub
            .registry
            .attach(connect, &owner, &client, will, expiry)
            .await
            .map_err(|error| match error {
                AttachError::NotOwner => (
                    reason::NOT_AUTHORIZED,
                    "the client id belongs to a session of another certificate",
                ),
                AttachError::Busy => (reason::SERVER_BUSY, "the session is in use"),
                AttachError::Full => (reason::QUOTA_EXCEEDED, "there are too many sessions"),
            })?;
        let cell = attached.cell;
        if let Some((topic, will)) = attached.will {
            hub.publish_will(cell.shard, cell.key.0, topic, &will);
        }
        self.peer.is_called(&cell.client_id, self.remote);
        tracing::Span::current().record("mqtt.client_id", &*cell.client_id);
        tracing::info!(
            session_present = attached.present,
            clean_start = connect.clean_start,
            keep_alive_s = connect.keep_alive,
            "client connected"
        );
        let keep_alive = match (connect.keep_alive, hub.limits.max_keep_alive) {
            (wanted, None) => wanted,
            (0, Some(most)) => most,
            (wanted, Some(most)) => wanted.min(most),
        };
        self.tell_connected(&Terms {
            client_id: &cell.client_id,
            version: connect.version,
            clean_start: connect.clean_start,
            session_present: attached.present,
            keep_alive,
            session_expiry: expiry,
        });
        let answer = ConnAck {
            session_present: attached.present,
            reason: reason::SUCCESS,
            session_expiry: (expiry != connect.session_expiry).then_some(expiry),
            receive_maximum: (hub.limits.receive_maximum != u16::MAX)
                .then_some(hub.limits.receive_maximum.max(1)),
            max_packet: u32::try_from(hub.limits.max_packet).ok(),
            assigned_client_id: assigned,
            alias_maximum: Some(hub.limits.max_aliases),
            server_keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
            reason_string: None,
        };
        // Before anything the session sends, whatever has been queued meanwhile.
        hub.sys.tally.packets_sent.add(1);
        Outgoing::ConnAck(Box::new(answer)).encode(
            connect.version,
            connect.max_packet,
            &mut self.output,
        );
        self.decoder.set_max_packet(hub.limits.max_packet);
        Ok(Admitted {
            cell,
            since: Instant::now(),
            keep_alive: (keep_alive > 0)
                .then(|| Duration::from_millis(u64::from(keep_alive) * 1_500)),
            max_packet: connect.max_packet,
        })
    }

    /// Check the client id or choose one; the chosen one is given back.
    fn name(&self, connect: &mut Connect) -> Result<Option<ByteString>, Refusal> {
        if connect.client_id.is_empty() {
            let policy = self.hub.settings.policy.client_id;
            connect.client_id = choose_client_id(self.peer.verified(), policy);
            return Ok(Some(connect.client_id.clone()));
        }
        if connect.client_id.len() > self.hub.limits.max_client_id
            || connect.client_id.chars().any(char::is_control)
        {
            let words = "the client id is too long or has control characters";
            return Err((reason::CLIENT_ID_NOT_VALID, words));
        }
        Ok(None)
    }

    fn check_will(&mut self, will: Will) -> Result<(TopicName, Will), Refusal> {
        let topic = ByteString::from(&*will.topic);
        let topic = TopicName::parse(topic, &self.hub.limits.topics)
            .map_err(|_| (reason::TOPIC_INVALID, "the topic of the will is not valid"))?;
        if will.declared_text && std::str::from_utf8(&will.payload).is_err() {
            let words = "the will is declared to be text and is not UTF-8";
            return Err((reason::PAYLOAD_FORMAT, words));
        }
        match self.publishing("will", &topic) {
            Publishing::Message => Ok((topic, will)),
            Publishing::Command | Publishing::Denied(_) => Err((
                reason::NOT_AUTHORIZED,
                "the will may not be published there",
            )),
        }
    }
}

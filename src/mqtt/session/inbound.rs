//! What a client sends: publishing with QoS 0, 1 and 2, topic aliases, subscribing.

use std::collections::HashMap;
use std::num::NonZeroU16;

use super::{Departure, Fault, Session, Step, ToPublish, ToSubscribe};
use crate::mqtt::topics::{Subscription, TopicError, TopicName};
use crate::mqtt::wire::encode::Outgoing;
use crate::mqtt::wire::{
    Ack, AckKind, Disconnect, Incoming, Publish, QoS, Subscribe, Version, reason,
};

/// The state of what a client publishes.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The QoS 2 messages that have not been released, and how far they are (4.3.3).
    received: HashMap<NonZeroU16, Received>,
    /// How many of them began or were repeated on this connection.
    open: usize,
    aliases: HashMap<u16, TopicName>,
}

#[derive(Debug, Clone, Copy)]
struct Received {
    stage: Stage,
    on_this_connection: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The bus does not have it yet.
    Publishing,
    /// The bus has it.
    Published,
}

impl Inbound {
    pub(super) fn connect(&mut self) {
        self.aliases.clear();
        self.open = 0;
        for received in self.received.values_mut() {
            received.on_this_connection = false;
        }
    }

    /// Those that the bus has.
    pub(super) fn published(&self) -> impl Iterator<Item = NonZeroU16> {
        let received = self.received.iter();
        received
            .filter(|(_, received)| received.stage == Stage::Published)
            .map(|(id, _)| *id)
    }

    /// One that the bus has, of an earlier connection.
    pub(super) fn restore(&mut self, id: NonZeroU16) {
        let received = Received {
            stage: Stage::Published,
            on_this_connection: false,
        };
        self.received.insert(id, received);
    }

    fn forget(&mut self, id: NonZeroU16) -> bool {
        let found = self.received.remove(&id);
        if found.is_some_and(|received| received.on_this_connection) {
            self.open -= 1;
        }
        found.is_some()
    }
}

impl Session {
    /// Take a packet of the client.
    ///
    /// # Errors
    /// [`Fault`] if the connection has to end because of it.
    pub fn on_packet(&mut self, packet: Incoming, now: u64) -> Result<Step, Fault> {
        match packet {
            Incoming::Publish(packet) => self.on_publish(packet, now),
            Incoming::Ack(ack) => {
                self.on_ack(ack);
                Ok(Step::Nothing)
            }
            Incoming::Subscribe(packet) => self.on_subscribe(packet),
            Incoming::Unsubscribe(id, filters) => Ok(self.on_unsubscribe(id, filters)),
            Incoming::Ping => {
                self.send(Outgoing::Pong);
                Ok(Step::Nothing)
            }
            Incoming::Disconnect(packet) => self.on_disconnect(packet),
            Incoming::Connect(_) => Err(Fault::protocol("a second CONNECT")),
        }
    }

    /// The bus has the message (a reason code below 0x80), or it was refused: acknowledge it.
    pub fn published(&mut self, id: Option<NonZeroU16>, qos: QoS, code: u8) {
        let Some(id) = id else {
            return;
        };
        let kind = match qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => AckKind::PubAck,
            QoS::ExactlyOnce => {
                if code >= reason::UNSPECIFIED {
                    self.inbound.forget(id);
                } else if let Some(received) = self.inbound.received.get_mut(&id) {
                    received.stage = Stage::Published;
                }
                AckKind::PubRec
            }
        };
        self.send(Outgoing::Ack(kind, id, code));
    }

    /// The bus could not take the message: it is not acknowledged, and the client will send it
    /// again after the connection that has to end now.
    pub fn not_published(&mut self, id: Option<NonZeroU16>, qos: QoS) {
        if let (Some(id), QoS::ExactlyOnce) = (id, qos) {
            self.inbound.forget(id);
        }
    }

    fn on_publish(&mut self, mut packet: Box<Publish>, now: u64) -> Result<Step, Fault> {
        let topic = self.resolve(&mut packet)?;
        if let Some(response) = &packet.response_topic
            && TopicName::parse(response.clone(), &self.limits.topics).is_err()
        {
            return Err(Fault::protocol("the response topic is no topic name"));
        }
        if let (QoS::ExactlyOnce, Some(id)) = (packet.qos, packet.id)
            && self.is_repeated(id)?
        {
            return Ok(Step::Nothing);
        }
        if packet.declared_text && std::str::from_utf8(&packet.payload).is_err() {
            if packet.qos == QoS::AtMostOnce {
                return Err(Fault::new(
                    reason::PAYLOAD_FORMAT,
                    "the payload is declared to be text and is not UTF-8",
                ));
            }
            self.published(packet.id, packet.qos, reason::PAYLOAD_FORMAT);
            return Ok(Step::Nothing);
        }
        let expires_at = packet
            .expiry
            .map(|seconds| now.saturating_add(u64::from(seconds) * 1_000).max(1));
        Ok(Step::Publish(ToPublish {
            id: packet.id,
            topic,
            expires_at,
            packet,
        }))
    }

    /// The topic, from its text or its alias (3.3.2.3.4).
    fn resolve(&mut self, packet: &mut Publish) -> Result<TopicName, Fault> {
        const INVALID: Fault = Fault::new(
            reason::ALIAS_INVALID,
            "the topic alias is 0, too high or unknown",
        );
        if let Some(alias) = packet.alias
            && (alias == 0 || alias > self.limits.max_aliases)
        {
            return Err(INVALID);
        }
        if packet.topic.is_empty() {
            let alias = packet.alias.ok_or(INVALID)?;
            return self.inbound.aliases.get(&alias).cloned().ok_or(INVALID);
        }
        // The text is a slice of the packet: copied, so that an alias does not keep the payload.
        let text = match packet.alias {
            Some(_) => bytestring::ByteString::from(&*packet.topic),
            None => std::mem::take(&mut packet.topic),
        };
        let topic = TopicName::parse(text, &self.limits.topics)
            .map_err(|_| Fault::new(reason::TOPIC_INVALID, "the topic name is not valid"))?;
        if let Some(alias) = packet.alias {
            self.inbound.aliases.insert(alias, topic.clone());
        }
        Ok(topic)
    }

    /// Whether a QoS 2 message was received before; if not, it is noted.
    fn is_repeated(&mut self, id: NonZeroU16) -> Result<bool, Fault> {
        let limit = usize::from(self.limits.receive_maximum);
        let inbound = &mut self.inbound;
        let known = inbound.received.get(&id).copied();
        if known.is_none_or(|received| !received.on_this_connection) {
            if inbound.open >= limit {
                return Err(Fault::new(
                    reason::RECEIVE_MAXIMUM_EXCEEDED,
                    "more unacknowledged messages than the receive maximum",
                ));
            }
            inbound.open += 1;
        }
        let stage = known.map_or(Stage::Publishing, |received| received.stage);
        let received = Received {
            stage,
            on_this_connection: true,
        };
        inbound.received.insert(id, received);
        if known.is_some() && stage == Stage::Published {
            self.send(Outgoing::Ack(AckKind::PubRec, id, reason::SUCCESS));
        }
        Ok(known.is_some())
    }

    fn on_ack(&mut self, ack: Ack) {
        match ack.kind {
            AckKind::PubRel => {
                let code = match self.inbound.forget(ack.id) {
                    true => reason::SUCCESS,
                    false => reason::PACKET_ID_NOT_FOUND,
                };
                self.send(Outgoing::Ack(AckKind::PubComp, ack.id, code));
            }
            AckKind::PubAck | AckKind::PubRec | AckKind::PubComp => {
                if let Some(answer) = self.outbound.on_ack(ack) {
                    self.send(answer);
                }
            }
        }
    }

    fn on_subscribe(&mut self, packet: Subscribe) -> Result<Step, Fault> {
        let limits = &self.limits.topics;
        let mut filters = Vec::with_capacity(packet.filters.len());
        for (text, options) in packet.filters {
            // The text is a slice of the packet: copied, so that it does not keep the read buffer.
            let text = bytestring::ByteString::from(&*text);
            filters.push(match Subscription::parse(text, limits) {
                Ok(Subscription::Shared(_)) if options.no_local => {
                    return Err(Fault::protocol("no local on a shared subscription"));
                }
                Ok(subscription) => Ok((subscription, options)),
                Err(TopicError::NotUtf8 | TopicError::Character('\0')) => {
                    return Err(Fault::new(reason::MALFORMED, "a filter has U+0000"));
                }
                Err(_) => Err(reason::FILTER_INVALID),
            });
        }
        Ok(Step::Subscribe(ToSubscribe {
            id: packet.id,
            subscription_id: packet.subscription_id,
            filters,
        }))
    }

    fn on_unsubscribe(&mut self, id: NonZeroU16, filters: Vec<bytestring::ByteString>) -> Step {
        let limits = &self.limits.topics;
        let filters = filters
            .into_iter()
            .map(|text| Subscription::parse(text, limits).ok())
            .collect();
        Step::Unsubscribe(id, filters)
    }

    fn on_disconnect(&mut self, packet: Disconnect) -> Result<Step, Fault> {
        if let Some(expiry) = packet.session_expiry {
            let began_without = self.link.is_some_and(|link| link.began_without_expiry);
            if began_without && expiry != 0 {
                return Err(Fault::protocol("DISCONNECT gives a session expiry anew"));
            }
            self.expiry = expiry.min(self.limits.max_session_expiry);
        }
        // Any other code than 0 is a departure that is not normal, which keeps the will (3.14.4).
        Ok(Step::Leave(match (self.version(), packet.reason) {
            (Version::V311, _) | (Version::V5, reason::SUCCESS) => Departure::Left,
            (Version::V5, _) => Departure::LeftWithWill,
        }))
    }
}

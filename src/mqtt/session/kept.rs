//! A session between memory and disk: what of it is not written yet, how it is written, and how
//! it comes back.
//!
//! Only a session whose client is away is on disk. While it is, messages can be added to its queue
//! and be dropped from it, and its will can be published; nothing else of it changes.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytestring::ByteString;

use super::Session;
use super::message::{Message, SharedBudget};
use super::outbound::{InFlight, Stage};
use super::room::Taken;
use crate::mqtt::bus::SessionKey;
use crate::mqtt::frame::{self, Audience};
use crate::mqtt::settings::{Limits, Overflow};
use crate::mqtt::topics::{Subscription, TopicLimits, TopicName};
use crate::mqtt::wire::packets::{Options, RetainHandling};
use crate::mqtt::wire::{QoS, Will};
use crate::store::sessions::record::{
    HolderRecord, InFlightRecord, MessageRecord, SessionRecord, SubscriptionRecord, WholeSession,
    WillRecord, Write,
};

/// One moment on both clocks: that of the broker, which begins with it, and the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    /// Milliseconds of the broker's clock.
    pub now: u64,
    /// Unix milliseconds.
    pub unix_ms: i64,
}

/// What is on disk of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDisk {
    /// Nothing.
    #[default]
    Nothing,
    /// Something, and not how it is now.
    Outdated,
    /// All of it, with these messages of its queue: from this number on, up to the one before that.
    UpTo {
        /// The number of the first.
        first: u64,
        /// The number after that of the last.
        end: u64,
    },
}

/// Why something does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It makes no sense.
    #[error("{0}")]
    Unreadable(&'static str),
    /// The limits do not allow it any more.
    #[error("{0}")]
    OverLimit(&'static str),
    /// Its time is over.
    #[error("it has expired")]
    Expired,
}

impl Calendar {
    /// How far the calendar is ahead of the broker's clock, in milliseconds. It changes only if one
    /// of them is set.
    pub fn ahead(self) -> i64 {
        let now = i64::try_from(self.now).unwrap_or(i64::MAX);
        self.unix_ms.saturating_sub(now)
    }

    /// A moment of the broker's clock in the calendar.
    pub fn unix(self, at: u64) -> i64 {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        self.unix_of(at)
    }

    fn unix_of(self, at: i64) -> i64 {
        let now = i64::try_from(self.now).unwrap_or(i64::MAX);
        at.saturating_sub(now).saturating_add(self.unix_ms)
    }

    /// A moment of the calendar on the broker's clock, which did not run before 1.
    pub fn at(self, unix_ms: i64) -> u64 {
        u64::try_from(self.signed_at(unix_ms)).unwrap_or(0).max(1)
    }

    fn signed_at(self, unix_ms: i64) -> i64 {
        let now = i64::try_from(self.now).unwrap_or(i64::MAX);
        unix_ms.saturating_sub(self.unix_ms).saturating_add(now)
    }
}

/// To disk.
impl Session {
    /// Something of it is on disk.
    pub fn is_on_disk(&self) -> bool {
        self.outbound.on_disk != OnDisk::Nothing
    }

    /// What is on disk is not to be relied on.
    pub fn outdate(&mut self) {
        self.outbound.outdate();
    }

    /// It is being removed from disk.
    pub fn forget_on_disk(&mut self) {
        self.outbound.on_disk = OnDisk::Nothing;
    }

    /// Whether disk has it as it is, or has nothing of it to have. One that is over must never come
    /// there again: a round may still hold it.
    pub fn is_written(&self) -> bool {
        if self.over {
            return true;
        }
        let room = &self.outbound.room;
        let end = room.first + self.outbound.queue.len() as u64;
        let first = room.first;
        self.link.is_some() || self.outbound.on_disk == OnDisk::UpTo { first, end }
    }

    /// What is to be written so that disk has it as it is; to be written at once.
    pub fn write(
        &mut self,
        holder: impl FnOnce() -> HolderRecord,
        calendar: Calendar,
    ) -> Option<Write> {
        if self.is_written() {
            return None;
        }
        let first = self.outbound.room.first;
        let end = first + self.outbound.queue.len() as u64;
        let on_disk = std::mem::replace(&mut self.outbound.on_disk, OnDisk::UpTo { first, end });
        Some(match on_disk {
            OnDisk::UpTo { end: written, .. } => {
                let from = written.max(first);
                Write::Queue {
                    session: self.key.0,
                    before: first,
                    first: from,
                    messages: self.queue(from, calendar),
                }
            }
            OnDisk::Nothing | OnDisk::Outdated => {
                Write::Session(Box::new(self.whole(holder(), calendar)))
            }
        })
    }

    fn whole(&self, holder: HolderRecord, calendar: Calendar) -> WholeSession {
        let outbound = &self.outbound;
        let subscriptions = self
            .subscriptions
            .terms()
            .map(|(subscription, options, id)| SubscriptionRecord {
                filter: subscription.to_string(),
                options: octet(options),
                identifier: id,
            });
        let in_flight = outbound.inflight.iter().map(|entry| InFlightRecord {
            packet_id: entry.id.get(),
            message: match &entry.stage {
                Stage::Published(message, _) => Some(record(message, calendar)),
                Stage::Released => None,
            },
        });
        let will = self.away.will_at.zip(self.will.as_ref());
        WholeSession {
            session: SessionRecord {
                key: self.key.0,
                client_id: self.client_id.clone(),
                holder,
                expires_at_ms: self.away.expires_at.map(|at| calendar.unix(at)),
                next_packet_id: outbound.next_id,
            },
            will: will.map(|(at, (topic, will))| WillRecord {
                due_at_ms: calendar.unix(at),
                expiry_seconds: will.expiry,
                qos: will.qos.value(),
                retain: will.retain,
                topic: topic.to_byte_string(),
                properties: will.properties.clone(),
                payload: will.payload.clone(),
            }),
            subscriptions: subscriptions.collect(),
            received: self.inbound.published().map(NonZeroU16::get).collect(),
            in_flight: in_flight.collect(),
            queue: self.queue(outbound.room.first, calendar),
            first: outbound.room.first,
        }
    }

    fn queue(&self, from: u64, calendar: Calendar) -> Vec<MessageRecord> {
        let skip = from.saturating_sub(self.outbound.room.first);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let messages = self.outbound.queue.iter().skip(skip);
        messages.map(|message| record(message, calendar)).collect()
    }
}

/// From disk.
impl Session {
    /// A session as it was, with nothing in it yet. It is away.
    ///
    /// # Errors
    /// [`Unfit::Expired`].
    pub fn restored(
        record: &SessionRecord,
        administrator: bool,
        limits: Arc<Limits>,
        overflow: Overflow,
        budget: Arc<SharedBudget>,
        calendar: Calendar,
    ) -> Result<Self, Unfit> {
        let longest = match limits.max_session_expiry {
            u32::MAX => None,
            seconds => Some(calendar.now.saturating_add(u64::from(seconds) * 1_000)),
        };
        let expires_at = match (record.expires_at_ms, longest) {
            (Some(at), _) if at <= calendar.unix_ms => return Err(Unfit::Expired),
            (Some(at), longest) => Some(calendar.at(at).min(longest.unwrap_or(u64::MAX))),
            (None, longest) => longest,
        };
        let key = SessionKey(record.key);
        let client_id = record.client_id.clone();
        let mut session = Self::new(key, client_id, administrator, limits, overflow, budget);
        session.away.expires_at = expires_at;
        session.outbound.next_id = record.next_packet_id.max(1);
        session.outbound.on_disk = OnDisk::UpTo { first: 0, end: 0 };
        Ok(session)
    }

    /// The will that was waiting.
    pub fn restore_will(&mut self, due_at: u64, will: (TopicName, Will)) {
        self.away.will_at = Some(due_at);
        self.will = Some(will);
    }

    /// A QoS 2 message of the client that was received and not released.
    ///
    /// # Errors
    /// [`Unfit::Unreadable`].
    pub fn restore_received(&mut self, packet_id: u16) -> Result<(), Unfit> {
        let id = NonZeroU16::new(packet_id).ok_or(Unfit::Unreadable("a packet id is 0"))?;
        self.inbound.restore(id);
        Ok(())
    }

    /// The next message that was on the way to the client; it will be sent again.
    ///
    /// # Errors
    /// [`Unfit`]: the session is not what it was without it.
    pub fn restore_in_flight(
        &mut self,
        record: InFlightRecord,
        calendar: Calendar,
    ) -> Result<(), Unfit> {
        let id = NonZeroU16::new(record.packet_id).ok_or(Unfit::Unreadable("a packet id is 0"))?;
        let stage = match record.message {
            None => Stage::Released,
            Some(record) => {
                let message = message(record, &self.limits.topics, calendar)?;
                if message.qos == QoS::AtMostOnce {
                    return Err(Unfit::Unreadable("a message of QoS 0 is on the way"));
                }
                Stage::Published(message, true)
            }
        };
        self.outbound.restore_in_flight(InFlight { id, stage })
    }

    /// The next message that waited, and its number. What does not fit is dropped by the policy, as
    /// ever.
    ///
    /// # Errors
    /// [`Unfit`]: the message is not there any more.
    pub fn restore_queued(
        &mut self,
        number: u64,
        record: MessageRecord,
        calendar: Calendar,
    ) -> Result<Taken, Unfit> {
        let restored = message(record, &self.limits.topics, calendar).and_then(|message| {
            match message.has_expired(calendar.now) {
                true => Err(Unfit::Expired),
                false => Ok(self.outbound.restore_queued(number, message, calendar.now)),
            }
        });
        let whole = restored.is_ok_and(|taken| taken.queued && taken.dropped == Default::default());
        if !whole {
            self.outdate();
        }
        restored
    }

    /// To be called when everything is back.
    ///
    /// # Errors
    /// [`Unfit::OverLimit`] if what is on the way is more than may be.
    pub fn restore_ends(&mut self) -> Result<(), Unfit> {
        self.outbound.restore_ends()
    }
}

/// A subscription as it was.
///
/// # Errors
/// [`Unfit`]: its session is not what it was without it.
pub fn subscription(
    record: &SubscriptionRecord,
    limits: &TopicLimits,
) -> Result<(Subscription, Options, Option<u32>), Unfit> {
    let filter = ByteString::from(record.filter.as_str());
    let subscription = Subscription::parse(filter, limits)
        .map_err(|_| Unfit::OverLimit("a filter is none any more"))?;
    let options = options(record.options).ok_or(Unfit::Unreadable("options make no sense"))?;
    check_identifiers(record.identifier.as_slice())?;
    Ok((subscription, options, record.identifier))
}

/// A will as it was, and when it is due.
///
/// # Errors
/// [`Unfit`].
pub fn will(
    record: WillRecord,
    limits: &TopicLimits,
    calendar: Calendar,
) -> Result<(u64, (TopicName, Will)), Unfit> {
    let qos = QoS::try_from(record.qos).map_err(|_| Unfit::Unreadable("the QoS is none"))?;
    let topic = TopicName::parse(record.topic, limits)
        .map_err(|_| Unfit::OverLimit("a topic is none any more"))?;
    if topic.is_reserved() {
        return Err(Unfit::Unreadable("no client can have such a will"));
    }
    let will = Will {
        qos,
        retain: record.retain,
        topic: topic.to_byte_string(),
        payload: record.payload,
        // It has begun to wait.
        delay: 0,
        expiry: record.expiry_seconds,
        properties: record.properties,
        // That was checked when it was declared.
        declared_text: false,
    };
    Ok((calendar.at(record.due_at_ms), (topic, will)))
}

fn record(message: &Message, calendar: Calendar) -> MessageRecord {
    let frame = &message.frame;
    MessageRecord {
        qos: message.qos.value(),
        retain: message.retain,
        expires_at_ms: frame.expires_at().map(|at| calendar.unix(at)),
        queued_at_ms: calendar.unix_of(message.queued_at),
        subscription_ids: message.subscription_ids.clone(),
        topic: frame.topic_slice(),
        properties: frame.properties_slice(),
        payload: frame.payload_slice(),
    }
}

fn message(
    record: MessageRecord,
    limits: &TopicLimits,
    calendar: Calendar,
) -> Result<Message, Unfit> {
    let qos = QoS::try_from(record.qos).map_err(|_| Unfit::Unreadable("the QoS is none"))?;
    let topic = TopicName::parse(record.topic, limits)
        .map_err(|_| Unfit::OverLimit("a topic is none any more"))?;
    check_identifiers(&record.subscription_ids)?;
    let frame = frame::Message {
        qos,
        retain: record.retain,
        // Whether the client may have it was decided when it was queued.
        audience: Audience::Everybody,
        publisher: 0,
        expires_at: record.expires_at_ms.map(|at| calendar.at(at)),
        topic: &topic,
        properties: &record.properties,
        payload: &record.payload,
    };
    Ok(Message {
        frame: frame.encode(),
        qos,
        retain: record.retain,
        subscription_ids: record.subscription_ids,
        queued_at: calendar.signed_at(record.queued_at_ms),
    })
}

/// Subscription identifiers are told to clients as they are (3.8.2.1.2).
fn check_identifiers(ids: &[u32]) -> Result<(), Unfit> {
    match ids.iter().all(|id| (1..=0x0FFF_FFFF).contains(id)) {
        true => Ok(()),
        false => Err(Unfit::Unreadable("a subscription identifier is none")),
    }
}

/// As on the wire (3.8.3.1).
fn octet(options: Options) -> u8 {
    let handling = match options.retain_handling {
        RetainHandling::Always => 0,
        RetainHandling::IfNew => 1,
        RetainHandling::Never => 2,
    };
    options.qos.value()
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | handling << 4
}

fn options(octet: u8) -> Option<Options> {
    Some(Options {
        qos: QoS::try_from(octet & 0x03).ok()?,
        no_local: octet & 0x04 != 0,
        retain_as_published: octet & 0x08 != 0,
        retain_handling: match octet >> 4 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return None,
        },
    })
}

//! Between the session layer's values and those of the store.

use bytestring::ByteString;

use crate::mqtt::frame::{self, Audience, Frame};
use crate::mqtt::identity::{Client, Owner};
use crate::mqtt::session::kept::{Calendar, Unfit};
use crate::mqtt::settings::Policy;
use crate::mqtt::shard::Cell;
use crate::mqtt::topics::{TopicLimits, TopicName};
use crate::mqtt::wire::QoS;
use crate::store::sessions::record::{HolderRecord, RetainedRecord};

/// Whose the session is.
pub(super) fn holder(cell: &Cell) -> HolderRecord {
    let client = cell.client();
    HolderRecord {
        purpose: client.purpose,
        administrator: cell.owner.is_administrator(),
        issuer: cell.owner.issuer(),
        serial: client.serial.clone(),
        common_name: client.common_name.clone(),
        ca_sn: client.ca_sn.clone(),
        address: client.address,
        since_ms: client.since_ms,
    }
}

/// Whose it is by the policy of now, which can be another one than when it was written. `None` if
/// whoever had it was an administrator and is none now, or the other way round: what waits in the
/// session may be for one and not for the other.
pub(super) fn owner(record: &HolderRecord, policy: &Policy) -> Option<Owner> {
    let owner = Owner::new(
        record.issuer,
        record.purpose,
        record.common_name.as_deref(),
        &record.serial,
        policy,
    );
    (owner.is_administrator() == record.administrator).then_some(owner)
}

pub(super) fn client(record: HolderRecord) -> Client {
    Client {
        purpose: record.purpose,
        ca_sn: record.ca_sn,
        serial: record.serial,
        common_name: record.common_name,
        address: record.address,
        since_ms: record.since_ms,
    }
}

/// A retained message, to disk.
pub(super) fn retained(topic: ByteString, frame: &Frame, calendar: Calendar) -> RetainedRecord {
    RetainedRecord {
        topic,
        qos: frame.qos().value(),
        publisher: frame.publisher(),
        expires_at_ms: frame.expires_at().map(|at| calendar.unix(at)),
        properties: frame.properties_slice(),
        payload: frame.payload_slice(),
    }
}

/// A retained message, from disk.
///
/// # Errors
/// [`Unfit`].
pub(super) fn restored(
    record: &RetainedRecord,
    limits: &TopicLimits,
    calendar: Calendar,
) -> Result<(TopicName, Frame), Unfit> {
    if record
        .expires_at_ms
        .is_some_and(|at| at <= calendar.unix_ms)
    {
        return Err(Unfit::Expired);
    }
    let qos = QoS::try_from(record.qos).map_err(|_| Unfit::Unreadable("the QoS is none"))?;
    let topic = TopicName::parse(record.topic.clone(), limits)
        .map_err(|_| Unfit::OverLimit("a topic is none any more"))?;
    if topic.is_reserved() || record.payload.is_empty() {
        return Err(Unfit::Unreadable("nobody can retain that"));
    }
    let message = frame::Message {
        qos,
        retain: true,
        audience: Audience::Everybody,
        publisher: record.publisher,
        expires_at: record.expires_at_ms.map(|at| calendar.at(at)),
        topic: &topic,
        properties: &record.properties,
        payload: &record.payload,
    };
    let frame = message.encode();
    Ok((topic, frame))
}

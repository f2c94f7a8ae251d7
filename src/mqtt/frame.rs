//! A message as it travels between shards: encoded once, sliced on the way out.
//!
//! ```text
//! octet 0      flags: QoS (bits 0, 1), retain (2), administrators only (3)
//! 1..9         key of the publishing session, big-endian; 0 is the broker itself
//! 9..17        when it expires, milliseconds of the broker's clock; 0 is never
//! 17..19       octets of the topic
//! 19..23       octets of the properties
//! 23..         topic, properties (as on the wire of MQTT 5), payload
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::topics::TopicName;
use super::wire::QoS;

/// What goes into a frame.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// The QoS it was published with.
    pub qos: QoS,
    /// The retain flag it was published with.
    pub retain: bool,
    /// Who may get it.
    pub audience: Audience,
    /// Key of the session that published it; 0 is the broker itself.
    pub publisher: u64,
    /// When it is of no use any more, milliseconds of the broker's clock.
    pub expires_at: Option<u64>,
    /// Where it goes.
    pub topic: &'a TopicName,
    /// The properties that are passed on, as on the wire of MQTT 5.
    pub properties: &'a [u8],
    /// What it says.
    pub payload: &'a [u8],
}

/// Who may get a message, whatever they are subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Administrators.
    Administrators,
    /// Everybody.
    Everybody,
}

/// A message, encoded. Cheap to clone; all clones share the octets.
#[derive(Clone, Debug)]
pub struct Frame {
    octets: Bytes,
    topic_end: u32,
    properties_end: u32,
}

impl Message<'_> {
    /// Encode it.
    pub fn encode(&self) -> Frame {
        let topic = self.topic.as_str();
        let mut out = BytesMut::with_capacity(
            HEADER + topic.len() + self.properties.len() + self.payload.len(),
        );
        let mut flags = self.qos.value();
        if self.retain {
            flags |= RETAIN;
        }
        if self.audience == Audience::Administrators {
            flags |= ADMINISTRATORS;
        }
        out.put_u8(flags);
        out.put_u64(self.publisher);
        out.put_u64(self.expires_at.unwrap_or(0));
        // A topic has at most 65,535 octets, a packet at most 2^28.
        out.put_u16(topic.len() as u16);
        out.put_u32(self.properties.len() as u32);
        out.put_slice(topic.as_bytes());
        out.put_slice(self.properties);
        out.put_slice(self.payload);
        let topic_end = (HEADER + topic.len()) as u32;
        Frame {
            octets: out.freeze(),
            topic_end,
            properties_end: topic_end + self.properties.len() as u32,
        }
    }
}

impl Frame {
    /// The frame in these octets, as a shard received them; `None` if it is none.
    pub fn parse(octets: Bytes) -> Option<Self> {
        let topic = u16::from_be_bytes(octets.get(17..19)?.try_into().ok()?);
        let properties = u32::from_be_bytes(octets.get(19..23)?.try_into().ok()?);
        let topic_end = (HEADER as u32).checked_add(u32::from(topic))?;
        let properties_end = topic_end.checked_add(properties)?;
        if (properties_end as usize) > octets.len() {
            return None;
        }
        std::str::from_utf8(octets.get(HEADER..topic_end as usize)?).ok()?;
        Some(Self {
            octets,
            topic_end,
            properties_end,
        })
    }

    /// The octets.
    pub fn octets(&self) -> &Bytes {
        &self.octets
    }

    /// The QoS it was published with.
    pub fn qos(&self) -> QoS {
        match self.flags() & 0x03 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    /// The retain flag it was published with.
    pub fn retain(&self) -> bool {
        self.flags() & RETAIN != 0
    }

    /// Who may get it.
    pub fn audience(&self) -> Audience {
        match self.flags() & ADMINISTRATORS {
            0 => Audience::Everybody,
            _ => Audience::Administrators,
        }
    }

    /// Key of the session that published it.
    pub fn publisher(&self) -> u64 {
        self.number(1)
    }

    /// When it expires, milliseconds of the broker's clock.
    pub fn expires_at(&self) -> Option<u64> {
        match self.number(9) {
            0 => None,
            at => Some(at),
        }
    }

    /// Where it goes.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_octets()).unwrap_or_default()
    }

    /// [`topic`](Self::topic) for the wire, without looking at it again.
    pub fn topic_octets(&self) -> &[u8] {
        self.octets
            .get(HEADER..self.topic_end as usize)
            .unwrap_or_default()
    }

    /// The properties that are passed on, as on the wire of MQTT 5.
    pub fn properties(&self) -> &[u8] {
        self.octets
            .get(self.topic_end as usize..self.properties_end as usize)
            .unwrap_or_default()
    }

    /// What it says.
    pub fn payload(&self) -> &[u8] {
        self.octets
            .get(self.properties_end as usize..)
            .unwrap_or_default()
    }

    /// [`topic`](Self::topic) without a copy.
    pub fn topic_slice(&self) -> ByteString {
        let octets = self.slice(HEADER, self.topic_end as usize);
        ByteString::try_from(octets).unwrap_or_default()
    }

    /// [`properties`](Self::properties) without a copy.
    pub fn properties_slice(&self) -> Bytes {
        self.slice(self.topic_end as usize, self.properties_end as usize)
    }

    /// [`payload`](Self::payload) without a copy.
    pub fn payload_slice(&self) -> Bytes {
        self.slice(self.properties_end as usize, self.octets.len())
    }

    fn slice(&self, from: usize, to: usize) -> Bytes {
        match from <= to && to <= self.octets.len() {
            true => self.octets.slice(from..to),
            false => Bytes::new(),
        }
    }

    fn flags(&self) -> u8 {
        self.octets.first().copied().unwrap_or(0)
    }

    fn number(&self, at: usize) -> u64 {
        self.octets
            .get(at..at + 8)
            .and_then(|octets| octets.try_into().ok())
            .map_or(0, u64::from_be_bytes)
    }
}

const HEADER: usize = 23;
const RETAIN: u8 = 0x04;
const ADMINISTRATORS: u8 = 0x08;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_round_trip(
            qos in 0u8..3, retain: bool, publisher: u64, expires in proptest::option::of(1u64..),
            topic in "[a-z/ä]{1,40}", properties: Vec<u8>, payload: Vec<u8>,
        ) {
            let topic = TopicName::parse(topic, &Default::default()).unwrap();
            let frame = Message {
                qos: QoS::try_from(qos).unwrap(), retain, audience: Audience::Everybody, publisher,
                expires_at: expires, topic: &topic, properties: &properties, payload: &payload,
            }.encode();
            let read = Frame::parse(frame.octets().clone()).unwrap();
            prop_assert_eq!(read.qos().value(), qos);
            prop_assert_eq!(read.retain(), retain);
            prop_assert_eq!(read.publisher(), publisher);
            prop_assert_eq!(read.expires_at(), expires);
            prop_assert_eq!(read.topic(), topic.as_str());
            prop_assert_eq!(read.properties(), &properties[..]);
            prop_assert_eq!(read.payload(), &payload[..]);
            prop_assert_eq!(read.audience(), Audience::Everybody);
            prop_assert_eq!(&read.topic_slice()[..], read.topic());
            prop_assert_eq!(&read.properties_slice()[..], read.properties());
            prop_assert_eq!(&read.payload_slice()[..], read.payload());
        }

        #[test]
        fn garbage_is_no_frame_or_a_safe_one(octets: Vec<u8>) {
            if let Some(frame) = Frame::parse(octets.into()) {
                let _ = (frame.topic(), frame.properties(), frame.payload());
            }
        }
    }
}

//! What an event says, as JSON. What clients chose, such as client ids, stands in values only, and
//! no longer than it may be.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use bytestring::ByteString;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

use crate::mqtt::metrics::Ending;
use crate::mqtt::topics::{TopicLimits, TopicName};
use crate::mqtt::wire::Version;
use crate::tls::acceptor::AcceptError;
use crate::tls::peer::VerifiedPeer;

/// A topic of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Session,
    Refused,
    Ca,
    Device,
    AccessKey,
    LeftOut,
}

impl Stream {
    pub(super) const ALL: [Self; 6] = [
        Self::Session,
        Self::Refused,
        Self::Ca,
        Self::Device,
        Self::AccessKey,
        Self::LeftOut,
    ];

    /// Its topic; there is always one.
    pub(super) fn topic(self) -> Option<TopicName> {
        let text = ByteString::from_static(match self {
            Self::Session => "$SYS/portcullis/events/session",
            Self::Refused => "$SYS/portcullis/events/refused",
            Self::Ca => "$SYS/portcullis/events/ca",
            Self::Device => "$SYS/portcullis/events/device",
            Self::AccessKey => "$SYS/portcullis/events/access_key",
            Self::LeftOut => "$SYS/portcullis/events/left_out",
        });
        TopicName::parse(text, &TopicLimits::default()).ok()
    }
}

/// An event.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Event {
    pub(super) event: &'static str,
    pub(super) time: String,
    pub(super) instance: String,
    #[serde(flatten)]
    pub(super) about: About,
}

/// What differs from event to event.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum About {
    Connected {
        client_id: String,
        #[serde(flatten)]
        who: Shown,
        protocol: &'static str,
        clean_start: bool,
        session_present: bool,
        keep_alive_seconds: u16,
        session_expiry_seconds: u32,
    },
    Disconnected {
        client_id: String,
        #[serde(flatten)]
        who: Shown,
        protocol: &'static str,
        reason: &'static str,
        reason_code: Option<u8>,
        detail: Option<Cow<'static, str>>,
        connected_seconds: u64,
    },
    ConnectRefused {
        client_id: Option<String>,
        #[serde(flatten)]
        who: Shown,
        reason: &'static str,
        reason_code: Option<u8>,
        detail: Option<Cow<'static, str>>,
    },
    Handshake {
        address: SocketAddr,
        ca_sn: Option<String>,
        device_sn: Option<String>,
        reason: &'static str,
        detail: String,
    },
    Change(super::changes::Change),
    LeftOut {
        refusals: u64,
        lost: u64,
    },
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The peer that the gate let in.
    pub peer: &'a VerifiedPeer,
    /// Where it connects from.
    pub remote: SocketAddr,
    /// The number of the connection, as in the log.
    pub connection: u64,
}

/// On which terms a client is connected.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Its id.
    pub client_id: &'a str,
    /// What it speaks.
    pub version: Version,
    /// Whether it asked for a new session.
    pub clean_start: bool,
    /// Whether its session existed before.
    pub session_present: bool,
    /// In seconds, as it is in force; 0 is none.
    pub keep_alive: u16,
    /// In seconds, as it is in force; `u32::MAX` is for ever.
    pub session_expiry: u32,
}

/// How a connection ended.
#[derive(Debug, Clone)]
pub struct Departed<'a> {
    /// The client's id.
    pub client_id: &'a str,
    /// What it spoke.
    pub version: Version,
    /// Why it ended.
    pub ending: Ending,
    /// The reason code that was sent or, in MQTT 3.1.1, would have been; or that the client sent.
    pub code: Option<u8>,
    /// More about why.
    pub detail: Option<&'a str>,
    /// How long it was connected.
    pub lasted: Duration,
}

/// Why a client got no session.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The id it wanted, if CONNECT could be read.
    pub client_id: Option<String>,
    /// Why it ended.
    pub ending: Ending,
    /// The reason code of CONNACK, if there was one.
    pub code: Option<u8>,
    /// More about why.
    pub detail: Option<Cow<'static, str>>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Shown {
    connection: u64,
    address: SocketAddr,
    ca_sn: String,
    device_sn: String,
    common_name: Option<String>,
}

impl From<&Who<'_>> for Shown {
    fn from(who: &Who<'_>) -> Self {
        Self {
            connection: who.connection,
            address: who.remote,
            ca_sn: who.peer.ca_sn().to_string(),
            device_sn: who.peer.serial().to_string(),
            common_name: who.peer.common_name().map(cut),
        }
    }
}

impl Event {
    pub(super) fn new(event: &'static str, instance: &str, about: About) -> Self {
        Self {
            event,
            time: text(OffsetDateTime::now_utc()),
            instance: instance.to_owned(),
            about,
        }
    }

    pub(super) fn connected(instance: &str, who: &Who<'_>, terms: &Terms<'_>) -> Self {
        let about = About::Connected {
            client_id: terms.client_id.to_owned(),
            who: who.into(),
            protocol: protocol(terms.version),
            clean_start: terms.clean_start,
            session_present: terms.session_present,
            keep_alive_seconds: terms.keep_alive,
            session_expiry_seconds: terms.session_expiry,
        };
        Self::new("connected", instance, about)
    }

    pub(super) fn disconnected(instance: &str, who: &Who<'_>, departed: &Departed<'_>) -> Self {
        let about = About::Disconnected {
            client_id: departed.client_id.to_owned(),
            who: who.into(),
            protocol: protocol(departed.version),
            reason: departed.ending.as_str(),
            reason_code: departed.code,
            detail: departed.detail.map(|words| Cow::Owned(words.to_owned())),
            connected_seconds: departed.lasted.as_secs(),
        };
        Self::new("disconnected", instance, about)
    }

    pub(super) fn connect_refused(instance: &str, who: &Who<'_>, refused: &Refused) -> Self {
        let about = About::ConnectRefused {
            client_id: refused.client_id.as_deref().map(cut),
            who: who.into(),
            reason: refused.ending.as_str(),
            reason_code: refused.code,
            detail: refused.detail.clone(),
        };
        Self::new("connect_refused", instance, about)
    }

    pub(super) fn handshake(instance: &str, remote: SocketAddr, error: &AcceptError) -> Self {
        let (event, refused) = match error {
            AcceptError::Refused(refused) => ("handshake_refused", Some(refused)),
            AcceptError::Timeout | AcceptError::Failed(_) | AcceptError::NoGate(_) => {
                ("handshake_failed", None)
            }
        };
        let about = About::Handshake {
            address: remote,
            ca_sn: refused.and_then(|refused| Some(refused.ca.as_ref()?.to_string())),
            device_sn: refused.and_then(|refused| Some(refused.device.as_ref()?.to_string())),
            reason: error.reason(),
            detail: cut(&match refused {
                Some(refused) => refused.refusal.to_string(),
                None => error.to_string(),
            }),
        };
        Self::new(event, instance, about)
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::V311 => "3.1.1",
        Version::V5 => "5.0",
    }
}

/// The time as events have it: UTC, milliseconds.
pub(super) fn text(time: OffsetDateTime) -> String {
    time.format(TIME).unwrap_or_default()
}

/// No more of it than operators need, for what no limit of a session holds for.
pub(super) fn cut(text: &str) -> String {
    match text.len() > MAX_TEXT {
        false => text.to_owned(),
        true => {
            let kept = text.get(..text.floor_char_boundary(MAX_TEXT));
            format!("{} [cut]", kept.unwrap_or_default())
        }
    }
}

/// In octets.
const MAX_TEXT: usize = 512;

const TIME: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_distinct_topics() {
        let topics: std::collections::BTreeSet<_> =
            Stream::ALL.map(|stream| stream.topic().unwrap()).into();
        assert_eq!(topics.len(), Stream::ALL.len());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(MAX_TEXT);
        let shown = cut(&long);
        assert!(shown.len() <= MAX_TEXT + " [cut]".len());
        assert!(shown.ends_with("ä [cut]"));
    }
}

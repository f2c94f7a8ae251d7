//! The bus: subscribe a filter, publish a frame, receive per filter, across shards.
//!
//! A frame is what the session layer wants it to be; the bus never looks into it. It carries the
//! frame to every shard that has a filter for the topic, once per shard however many of its
//! filters match, together with the list of those filters, so that the shard need not match again.
//!
//! # Why the router sees shards, not topics
//!
//! Below is the router of `rumqttd`. It never frees what it learned about a filter or a topic, it
//! matches every new topic against all filters it ever saw, and a topic that begins with a
//! multi-byte character ends its thread. So it sees none of them: it has one channel per shard
//! (`s/0`, `s/1`, …), and its memory and the cost of a publish are the same on the last day as
//! on the first, whatever filters and topics clients invent. Topics are matched once, here, in
//! the [directory](directory). A channel per filter would need names from a recycled pool, and a
//! late message for a recycled name would reach the wrong subscriber; a [`FilterId`] has a
//! generation instead, so a late delivery names a filter that no longer exists and is ignored.
//!
//! # Why nothing is lost
//!
//! Messages from one shard to another have dense sequence numbers, and the source keeps them until
//! the destination has taken them. If the router's thread ends, stalls or skips a number, the
//! [supervisor](supervisor) replaces it and the sources send again what was not taken; the
//! destination drops what it already has. What is kept is bounded for each destination, and the
//! router's log for it is larger than that bound, so it cannot rotate away a message that was not
//! taken. When the bound is reached, [`Bus::publish`] waits: that is the back-pressure.

use std::time::Duration;

use bytes::Bytes;

use super::shared::Presence;
use super::topics::{SharedFilter, TopicFilter, TopicName};

/// How the bus is built.
#[derive(Debug, Clone)]
pub struct BusSettings {
    /// How many shards there are, 1 to 256. Default: one per core.
    pub shards: usize,
    /// How much may be on the way to one shard, in octets of frames and their overhead. A frame
    /// that is larger goes alone. 64 KiB to 1 GiB; default 2 MiB. The router's log of a shard
    /// takes about 1.3 times as much memory, up to 12 times if all frames are tiny.
    pub window_bytes: usize,
    /// How long a publish waits while a shard does not take what is on the way. Default 10 s.
    pub publish_timeout: Duration,
    /// How often the router is asked for a sign of life. Default 1 s.
    pub heartbeat_interval: Duration,
    /// How long it may owe the sign, or a message to a shard that waits for one, before it is
    /// replaced. Default 5 s.
    pub stuck_after: Duration,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self {
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            window_bytes: 2 << 20,
            publish_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(1),
            stuck_after: Duration::from_secs(5),
        }
    }
}

/// Why the bus did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The settings have a value that is out of range.
    #[error("bus setting {key} is {value}; {allowed}")]
    Setting {
        /// Which setting.
        key: &'static str,
        /// Its value.
        value: usize,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The router could not be started.
    #[error("the router did not start: {0}")]
    Start(String),
    /// The shard does not exist.
    #[error("there is no shard {shard}")]
    NoSuchShard {
        /// The number that was given.
        shard: usize,
    },
    /// A shard did not take its messages in time; nobody got this one.
    #[error("shard {shard} did not take its messages within {waited_ms} ms")]
    Overloaded {
        /// The shard that is behind.
        shard: usize,
        /// How long the publish waited, in milliseconds.
        waited_ms: u128,
    },
}

/// The bus. Cheap to clone; every clone is the same bus.
#[derive(Clone, Debug)]
pub struct Bus;

/// The receiving end of one shard.
#[derive(Debug)]
pub struct ShardLink;

/// One distinct filter of one shard, while it is subscribed.
///
/// The index is small and dense within the shard; with the generation it is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FilterId {
    index: u32,
    generation: u32,
}

/// One shared group (name and filter) while it has members, the same for all shards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ShareId {
    index: u32,
    generation: u32,
}

/// A session, as its shard calls it; the bus gives it back as it was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionKey(pub u64);

/// Where a published frame went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Routed {
    /// How many shards get the frame.
    pub shards: usize,
    /// How many filters of shards matched.
    pub filters: usize,
    /// How many shared groups have a member that gets it.
    pub shares: usize,
}

/// A frame for this shard, once, with everyone in the shard it is for.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The shard that published.
    pub source: usize,
    /// The frame, as it was published; a slice, not a copy.
    pub frame: Bytes,
}

impl Bus {
    /// Start a router and its supervisor. The links are in the order of the shards.
    ///
    /// # Errors
    /// [`BusError::Setting`], and [`BusError::Start`] if the router does not answer.
    pub async fn start(settings: BusSettings) -> Result<(Bus, Vec<ShardLink>), BusError> {
        let _ = settings;
        Err(BusError::Start("not built yet".to_owned()))
    }

    /// Subscribe a shard to a filter. Every message published after the return is delivered.
    ///
    /// Once for each distinct filter and shard: a second call gives the same id and counts
    /// nothing. The shard counts its sessions.
    ///
    /// # Errors
    /// [`BusError::NoSuchShard`].
    pub fn subscribe(&self, shard: usize, filter: &TopicFilter) -> Result<FilterId, BusError> {
        let _ = filter;
        Err(BusError::NoSuchShard { shard })
    }

    /// End the subscription. Deliveries that name the id may still arrive and are to be ignored.
    pub fn unsubscribe(&self, shard: usize, id: FilterId) {
        let _ = (shard, id);
    }

    /// Make a session a member of a shared group, or change the shard and presence of a member.
    ///
    /// # Errors
    /// [`BusError::NoSuchShard`].
    pub fn share_join(
        &self,
        shard: usize,
        group: &SharedFilter,
        session: SessionKey,
        presence: Presence,
    ) -> Result<ShareId, BusError> {
        let _ = (group, session, presence);
        Err(BusError::NoSuchShard { shard })
    }

    /// End the membership. Deliveries that name it may still arrive; the frame is not yet lost if
    /// the shard gives it to [`Bus::publish_to_share`].
    pub fn share_leave(&self, share: ShareId, session: SessionKey) {
        let _ = (share, session);
    }

    /// Note that a member got or lost its connection.
    pub fn share_presence(&self, share: ShareId, session: SessionKey, presence: Presence) {
        let _ = (share, session, presence);
    }

    /// Send a frame to everyone who is subscribed to the topic.
    ///
    /// When this returns, the bus has the message and will deliver it, also if the router dies.
    /// Publishes of one caller that waits for each arrive in order. All or nothing: on an error
    /// nobody gets the frame. Cancelling it before it returns does the same.
    ///
    /// Never wait for this in the task that drains the shard's own link: when the window is
    /// full, that would wait for itself until the time limit.
    ///
    /// # Errors
    /// [`BusError::Overloaded`], [`BusError::NoSuchShard`].
    pub async fn publish(
        &self,
        from_shard: usize,
        topic: &TopicName,
        frame: Bytes,
    ) -> Result<Routed, BusError> {
        let _ = (topic, frame);
        Err(BusError::NoSuchShard { shard: from_shard })
    }

    /// Send a frame to one member of a shared group: again, after the member that was chosen
    /// went away without having taken it.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_to_share(
        &self,
        from_shard: usize,
        share: ShareId,
        frame: Bytes,
    ) -> Result<Routed, BusError> {
        let _ = (share, frame);
        Err(BusError::NoSuchShard { shard: from_shard })
    }
}

impl ShardLink {
    /// Which shard this is the link of.
    pub fn shard(&self) -> usize {
        0
    }

    /// The next deliveries, at least one; in the order of publishing for each source shard.
    ///
    /// Cancelling it loses nothing. Never ends by itself, also while the router is replaced.
    pub async fn recv(&mut self) -> Vec<Delivery> {
        std::future::pending().await
    }
}

impl Delivery {
    /// The filters of the shard that matched; at least one, or else a shared member.
    pub fn filters(&self) -> impl Iterator<Item = FilterId> + '_ {
        std::iter::empty()
    }

    /// The members of shared groups that were chosen, and of which group.
    pub fn shared(&self) -> impl Iterator<Item = (SessionKey, ShareId)> + '_ {
        std::iter::empty()
    }
}

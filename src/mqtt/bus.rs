//! The bus: subscribe a filter, publish a frame, receive per filter, across shards.
//!
//! A frame is what the session layer wants it to be; the bus never looks into it. It carries the
//! frame to every shard that has a filter for the topic, once per shard however many of its
//! filters match, together with the list of those filters, so that the shard need not match again.
//!
//! # Two ways
//!
//! [`Bus::publish`] goes through a router, which takes a message for a shard that is busy.
//! [`Bus::publish_now`] does without it where it can: if nothing is on its way from the source to the
//! destination, and the link of the destination has done with what it had, the publisher gives the
//! frame to the sessions itself. What is on its way is looked at under the lock of the source, which
//! is kept until the sessions have the frame, so messages of one source arrive in order whichever way
//! each of them goes. The lock of a source therefore comes before those of whoever is given
//! something, and nobody publishes while holding one of those.
//!
//! # Why the router sees shards, not topics
//!
//! Below is the router of `rumqttd`. It never frees what it learned about a filter or a topic, it
//! matches every new topic against all filters it ever saw, and a topic that begins with a
//! multi-byte character ends its thread. So it sees none of them: it has one channel per shard
//! (`s/0`, `s/1`, …), and its memory and the cost of a publish are the same on the last day as
//! on the first, whatever filters and topics clients invent. Topics are matched once, here, in
//! the directory. A channel per filter would need names from a recycled pool, and a
//! late message for a recycled name would reach the wrong subscriber; a [`FilterId`] has a
//! generation instead, so a late delivery names a filter that no longer exists and is ignored.
//!
//! # Why nothing is lost
//!
//! What is given directly has arrived when `publish_now` returns; it was never on its way.
//!
//! Messages from one shard to another through the router have dense sequence numbers, and the source
//! keeps them until the destination has taken them. If the router's thread ends, stalls or skips a
//! number, the supervisor replaces it and the sources send again what was not taken; the
//! destination drops what it already has. What is kept is bounded for each destination, and the
//! router's log for it is larger than that bound, so it cannot rotate away a message that was not
//! taken. When the bound is reached, [`Bus::publish`] waits: that is the back-pressure. What goes the
//! direct way needs none, since whoever publishes does the work.

mod directory;
mod frame;
mod lanes;
mod link;
mod rumqttd;
mod settings;
mod slots;
mod supervisor;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

pub use self::directory::Crowd;
use self::directory::Plan;
use self::lanes::Lanes;
pub use self::link::ShardLink;
pub use self::settings::BusSettings;
use super::shared::Presence;
use super::topics::{SharedFilter, TopicFilter, TopicName};

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
    #[error("the router did not start")]
    Start(#[from] StartError),
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

/// Why there is no router.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gave no thread.
    #[error("no thread to open the router from: {0}")]
    Thread(#[from] std::io::Error),
    /// It did not answer in time.
    #[error("the router did not answer within {waited_ms} ms")]
    Silent {
        /// The limit, in milliseconds.
        waited_ms: u128,
    },
    /// Its thread ended while links to it were opened.
    #[error("the router's thread ended while links to it were opened")]
    Died,
}

/// The bus. Cheap to clone; every clone is the same bus.
///
/// When the last clone is dropped the supervisor ends; the router's thread, which its library
/// gives no way to end, sleeps until the process does. So a bus is something a process has, not
/// something it makes and drops.
#[derive(Clone)]
pub struct Bus {
    lanes: Arc<Lanes>,
    _supervisor: Arc<Supervisor>,
}

/// Ends the supervisor's task with the last bus.
struct Supervisor(tokio::task::AbortHandle);

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

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

/// A map by what the broker numbers itself: no client chooses the keys, so their hash need not keep
/// anybody from guessing it.
pub type ById<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

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

/// The members of shared groups that were chosen, and of which group.
pub type Members<'a> = &'a [(SessionKey, ShareId)];

/// What came of publishing without waiting.
#[derive(Debug)]
pub enum Attempt {
    /// The bus has the message, or those whom it is for.
    Done(Routed),
    /// Some shard is behind: nobody has it. [`Bus::publish_waiting`] waits.
    NotNow(Unsent),
}

/// A message that was not sent: whom it is for.
#[derive(Debug)]
pub struct Unsent(Plan);

/// A frame for this shard, once, with everyone in the shard it is for.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The shard that published.
    pub source: usize,
    /// The frame, as it was published; a slice, not a copy.
    pub frame: Bytes,
    /// Filter ids, then members of shared groups, as they were on the way.
    ids: Bytes,
    /// Octets of filter ids.
    filters: usize,
}

impl Bus {
    /// Start a router and its supervisor, which runs on the calling runtime. The links are in the
    /// order of the shards. The metrics recorder should be in place before.
    ///
    /// # Errors
    /// [`BusError::Setting`], and [`BusError::Start`] if the router does not answer.
    pub async fn start(settings: BusSettings) -> Result<(Bus, Vec<ShardLink>), BusError> {
        settings.check()?;
        let (lanes, inlets, troubles) = Lanes::new(settings);
        let lanes = Arc::new(lanes);
        let heart = supervisor::start(&lanes).await?;
        let task = tokio::spawn(supervisor::run(Arc::clone(&lanes), heart, troubles));
        let links = inlets
            .into_iter()
            .enumerate()
            .map(|(shard, inlets)| ShardLink::new(shard, Arc::clone(&lanes), inlets))
            .collect();
        let bus = Bus {
            lanes,
            _supervisor: Arc::new(Supervisor(task.abort_handle())),
        };
        Ok((bus, links))
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.lanes.settings.shards
    }

    /// Subscribe a shard to a filter. Every message published after the return is delivered.
    ///
    /// Once for each distinct filter and shard: a second call gives the same id and counts
    /// nothing. The shard counts its sessions.
    ///
    /// # Errors
    /// [`BusError::NoSuchShard`].
    pub fn subscribe(&self, shard: usize, filter: &TopicFilter) -> Result<FilterId, BusError> {
        self.lanes
            .directory
            .subscribe(shard, filter)
            .ok_or(BusError::NoSuchShard { shard })
    }

    /// End the subscription. Deliveries that name the id may still arrive and are to be ignored.
    pub fn unsubscribe(&self, shard: usize, id: FilterId) {
        self.lanes.directory.unsubscribe(shard, id);
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
        self.lanes
            .directory
            .share_join(shard, group, session, presence)
            .ok_or(BusError::NoSuchShard { shard })
    }

    /// End the membership. Deliveries that name it may still arrive; the shard saves such a frame
    /// for the others of the group with [`Bus::publish_to_share`].
    pub fn share_leave(&self, share: ShareId, session: SessionKey) {
        self.lanes.directory.share_leave(share, session);
    }

    /// Note that a member got or lost its connection.
    pub fn share_presence(&self, share: ShareId, session: SessionKey, presence: Presence) {
        self.lanes
            .directory
            .share_presence(share, session, presence);
    }

    /// Send a frame to everyone who is subscribed to the topic.
    ///
    /// When this returns, the bus has the message and will deliver it, also if the router dies.
    /// Publishes of one caller that waits for each arrive in order. All or nothing: on an error
    /// nobody gets the frame, and the same if it is cancelled before it returns.
    ///
    /// Never wait for this in the task that drains a link: when the window of that shard is full,
    /// it would wait for itself until the time limit.
    ///
    /// # Errors
    /// [`BusError::Overloaded`], [`BusError::NoSuchShard`].
    pub async fn publish(
        &self,
        from_shard: usize,
        topic: &TopicName,
        frame: Bytes,
    ) -> Result<Routed, BusError> {
        let plan = self.lanes.directory.plan(topic);
        self.lanes.send(from_shard, &plan, &frame).await
    }

    /// As [`Bus::publish`], but never waits, and does not trouble the router where no message can be
    /// overtaken by this one and where it is for few sessions: `give` gives the frame to the
    /// sessions of a shard that have these filters, and to these members of shared groups. It is
    /// called for each such shard before this returns; it must not call the bus, and what it does
    /// must be what is done with the deliveries of that shard's link.
    ///
    /// # Errors
    /// [`BusError::NoSuchShard`].
    pub fn publish_now(
        &self,
        from_shard: usize,
        topic: &TopicName,
        frame: &Bytes,
        mut give: impl FnMut(usize, &[FilterId], Members<'_>),
    ) -> Result<Attempt, BusError> {
        let plan = self.lanes.directory.plan(topic);
        let sent = self.lanes.send_now(from_shard, &plan, frame, |part| {
            give(part.shard, &part.filters, &part.shared);
        })?;
        Ok(match sent {
            Some(routed) => Attempt::Done(routed),
            None => Attempt::NotNow(Unsent(plan)),
        })
    }

    /// Send, waiting for room, what could not be sent at once.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_waiting(
        &self,
        from_shard: usize,
        unsent: Unsent,
        frame: Bytes,
    ) -> Result<Routed, BusError> {
        self.lanes.send(from_shard, &unsent.0, &frame).await
    }

    /// Note whether many sessions of a shard have the filter: then what is published goes to them
    /// through the router, and not in the publisher's own time.
    pub fn note_crowd(&self, shard: usize, id: FilterId, crowd: Crowd) {
        self.lanes.directory.set_crowd(shard, id, crowd);
    }

    /// Send a frame to one member of a shared group: again, after the member that was chosen
    /// went away without having taken it. Reaches nobody if the group has no members any more.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_to_share(
        &self,
        from_shard: usize,
        share: ShareId,
        frame: Bytes,
    ) -> Result<Routed, BusError> {
        let plan = self.lanes.directory.plan_for_share(share);
        self.lanes.send(from_shard, &plan, &frame).await
    }

    /// Whether anybody is subscribed to the topic, connected or not. Cheap.
    pub fn wants(&self, topic: &TopicName) -> bool {
        self.lanes.directory.wants(topic)
    }

    /// Whether all that was published has been taken, and whoever takes it waits for more: it has
    /// done with it, if it does so before it asks for the next. Waits for what publishers are giving
    /// directly.
    pub fn is_idle(&self) -> bool {
        self.lanes.is_idle()
    }

    /// How many distinct filters are subscribed, shared ones included.
    pub fn filters(&self) -> usize {
        self.lanes.directory.size().0
    }

    /// Filters, and levels of them, that the directory keeps.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        self.lanes.directory.size()
    }

    /// How many sessions each shard has for a topic.
    #[cfg(test)]
    pub(super) fn crowds(&self, topic: &str) -> Vec<Crowd> {
        let topic = TopicName::parse(topic, &Default::default());
        let plan = topic.map(|topic| self.lanes.directory.plan(&topic));
        let parts = plan.into_iter().flat_map(|plan| plan.parts);
        parts.map(|part| part.crowd).collect()
    }

    /// How many routers there have been; more than one means that one failed.
    pub fn routers(&self) -> u64 {
        self.lanes.epoch()
    }

    /// Make the router's thread end in a panic, as a defect in it would: for tests of what
    /// survives it.
    #[doc(hidden)]
    pub fn kill_router_for_tests(&self) {
        self.lanes.poison();
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus")
            .field("settings", &self.lanes.settings)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// The delivery that the bus would make of this: for tests of those who receive it.
    pub fn new(
        source: usize,
        filters: &[FilterId],
        shared: &[(SessionKey, ShareId)],
        frame: Bytes,
    ) -> Self {
        let message = frame::encode(source, filters, shared, &[]).seal(0);
        let ids = message.slice(frame::FIXED..);
        Self {
            source,
            frame,
            ids,
            filters: filters.len() * frame::FILTER,
        }
    }

    /// The filters of the shard that matched, in no particular order.
    pub fn filters(&self) -> impl Iterator<Item = FilterId> + '_ {
        frame::filters(self.ids.get(..self.filters).unwrap_or_default())
    }

    /// The members of shared groups that were chosen, and of which group.
    pub fn shared(&self) -> impl Iterator<Item = (SessionKey, ShareId)> + '_ {
        frame::shared(self.ids.get(self.filters..).unwrap_or_default())
    }
}

macro_rules! generational_id {
    ($name:ident) => {
        impl $name {
            /// The small number that later ids may use again: for tables.
            pub const fn index(self) -> usize {
                self.index as usize
            }

            /// Both parts in one number, unique for the life of the bus.
            pub const fn to_bits(self) -> u64 {
                ((self.generation as u64) << 32) | self.index as u64
            }

            /// The id with these [`to_bits`](Self::to_bits).
            pub const fn from_bits(bits: u64) -> Self {
                Self {
                    index: bits as u32,
                    generation: (bits >> 32) as u32,
                }
            }
        }
    };
}

generational_id!(FilterId);
generational_id!(ShareId);

#[cfg(test)]
mod tests;

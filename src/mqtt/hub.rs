//! What a broker consists of: the one value its connections share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::access::{Access, Permission};
use super::bus::{Attempt, Bus, BusError, Routed, ShardLink, Unsent};
use super::control_channel::{CommandHandler, DEFAULT_RESPONSE_TOPIC};
use super::frame::{Audience, Frame, Message};
use super::metrics;
use super::persist::Keeper;
use super::registry::Registry;
use super::retained::{Retained, RetainedError, RetainedLimits};
use super::session::ToPublish;
use super::settings::{Limits, Settings};
use super::shard::{Shard, Wakes};
use super::sys::tally::Tally;
use super::sys::{Inlet, Sys};
use super::topics::TopicName;
use super::wire::publish::PropertyWriter;
use super::wire::{QoS, Will};
use crate::tls::peer::VerifiedPeer;

/// What the broker tells others, and asks of them.
#[derive(Clone)]
pub struct Hooks {
    /// Carries out the commands of administrators. Without it there is no control channel.
    pub commands: Option<Arc<dyn CommandHandler>>,
    /// Called once for each peer whose handshake has finished; must not block.
    pub on_admitted: Arc<dyn Fn(&VerifiedPeer) + Send + Sync>,
    /// Called when its connection has ended; must not block.
    pub on_left: Arc<dyn Fn(&VerifiedPeer) + Send + Sync>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            commands: None,
            on_admitted: Arc::new(|_| {}),
            on_left: Arc::new(|_| {}),
        }
    }
}

/// The parts of a broker.
pub struct Hub {
    /// Its settings.
    pub settings: Settings,
    /// Its limits, shared with the sessions.
    pub limits: Arc<Limits>,
    /// Who may publish and subscribe where.
    pub access: Access,
    /// The sessions.
    pub registry: Registry,
    /// The retained messages.
    pub retained: Retained<Frame>,
    /// What keeps sessions and retained messages across restarts.
    pub keeper: Arc<Keeper>,
    /// What it tells others.
    pub hooks: Hooks,
    /// What operators are told.
    pub sys: Sys,
    /// What every message counts in.
    pub counters: metrics::PerMessage,
    /// Its tasks: wills, commands, messages that are passed on.
    pub tasks: TaskTracker,
    /// Whose turn it is to walk through the sessions.
    pub listing: Semaphore,
    bus: Bus,
    commands: Arc<Semaphore>,
    epoch: Instant,
    connections: AtomicU64,
}

impl Hub {
    /// Start the bus, and put the parts together.
    ///
    /// # Errors
    /// If the bus does not start.
    pub(super) async fn start(
        settings: Settings,
        hooks: Hooks,
        keeper: Keeper,
    ) -> Result<(Self, Vec<ShardLink>, Inlet), BusError> {
        let (bus, links) = Bus::start(settings.bus.clone()).await?;
        let limits = Arc::new(settings.limits.clone());
        let tally = Arc::new(Tally::default());
        let keeper = Arc::new(keeper);
        let tasks = TaskTracker::new();
        let shards = (0..links.len())
            .map(|index| Shard::new(index, bus.clone(), tally.clone(), tasks.clone()))
            .map(Arc::new)
            .collect();
        let (sys, inlet) = Sys::new(&settings.sys, bus.clone(), tally);
        let overflow = settings.policy.overflow;
        let hub = Self {
            access: Access::new(settings.access.clone()),
            registry: Registry::new(shards, limits.clone(), overflow, keeper.clone()),
            retained: Retained::new(RetainedLimits {
                max_messages: limits.retained_messages,
                max_bytes: limits.retained_bytes,
            }),
            hooks,
            sys,
            counters: metrics::PerMessage::new(),
            keeper,
            tasks,
            listing: Semaphore::new(1),
            bus,
            commands: Arc::new(Semaphore::new(limits.commands_at_once)),
            epoch: Instant::now(),
            connections: AtomicU64::new(1),
            limits,
            settings,
        };
        Ok((hub, links, inlet))
    }

    /// Milliseconds of the broker's clock, which begins at 1 and never goes back.
    pub fn now(&self) -> u64 {
        1 + u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// When the broker's clock shows this.
    pub fn instant(&self, at: u64) -> Instant {
        self.epoch + std::time::Duration::from_millis(at)
    }

    /// The bus, for tests of what it keeps.
    #[cfg(test)]
    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// A number for a connection.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Publish a message, and retain it if it says so. When this returns, the bus or the sessions
    /// have it.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish(
        &self,
        shard: usize,
        topic: TopicName,
        frame: Frame,
    ) -> Result<Routed, BusError> {
        let attempt = {
            let mut wakes = Wakes::default();
            self.publish_now(shard, &topic, &frame, self.now(), &mut wakes)?
        };
        match attempt {
            Attempt::Done(routed) => Ok(routed),
            Attempt::NotNow(unsent) => self.publish_waiting(shard, unsent, &frame).await,
        }
    }

    /// As [`Hub::publish`], as far as nothing has to be waited for. If something has, the message is
    /// retained, if it says so, and nobody has it.
    ///
    /// # Errors
    /// As [`Bus::publish_now`].
    pub fn publish_now(
        &self,
        shard: usize,
        topic: &TopicName,
        frame: &Frame,
        now: u64,
        wakes: &mut Wakes,
    ) -> Result<Attempt, BusError> {
        if frame.retain() {
            self.retain(topic, frame);
        }
        let shards = self.registry.shards();
        self.bus
            .publish_now(shard, topic, frame.octets(), |to, filters, members| {
                if let Some(to) = shards.get(to) {
                    let (filters, members) = (filters.iter().copied(), members.iter().copied());
                    to.give_to(frame, filters, members, now, wakes);
                }
            })
    }

    /// Publish what had to wait.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_waiting(
        &self,
        shard: usize,
        unsent: Unsent,
        frame: &Frame,
    ) -> Result<Routed, BusError> {
        let octets = frame.octets().clone();
        self.bus.publish_waiting(shard, unsent, octets).await
    }

    /// Set, replace or (with an empty payload) clear the retained message of a topic (3.3.1.3).
    fn retain(&self, topic: &TopicName, frame: &Frame) {
        if frame.payload().is_empty() {
            if self.retained.clear(topic) {
                self.keeper.retained_changed(topic);
            }
            return;
        }
        // The topic is a slice of the packet: copied, so that the store does not keep the packet.
        let text = ByteString::from(topic.as_str());
        let Ok(topic) = TopicName::parse(text, &self.limits.topics) else {
            return;
        };
        if let Err(error) = self.keep_retained(&topic, frame) {
            let topic = topic.as_str().escape_debug();
            tracing::debug!(%error, %topic, "a message is not retained");
        }
        // Afterwards: a round that looks in between is followed by one that looks again.
        self.keeper.retained_changed(&topic);
    }

    /// Keep a message as the retained one of its topic, if there is room.
    pub(super) fn keep_retained(
        &self,
        topic: &TopicName,
        frame: &Frame,
    ) -> Result<(), RetainedError> {
        let (octets, expires_at) = (frame.octets().len(), frame.expires_at());
        let now = self.now();
        let kept = self
            .retained
            .set(topic, frame.clone(), octets, expires_at, now);
        if kept.is_err() {
            metrics::dropped(metrics::Drop::RetainedFull, 1);
        }
        kept
    }

    /// Whether every frame that was published has been given to the sessions it is for.
    pub(super) fn bus_is_idle(&self) -> bool {
        self.bus.is_idle()
    }

    /// Publish a will, in a task of its own.
    pub fn publish_will(
        self: &Arc<Self>,
        shard: usize,
        publisher: u64,
        topic: TopicName,
        will: &Will,
    ) {
        let frame = Message {
            qos: will.qos,
            retain: will.retain,
            audience: Audience::Everybody,
            publisher,
            expires_at: will
                .expiry
                .map(|seconds| self.now().saturating_add(u64::from(seconds) * 1_000)),
            topic: &topic,
            properties: &will.properties,
            payload: &will.payload,
        }
        .encode();
        let hub = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = hub.publish(shard, topic, frame).await {
                tracing::error!(%error, "a will could not be published");
            }
        });
    }

    /// Have a command of an administrator carried out, in a task of its own. `false` if too many
    /// are on their way, the command is too large, or its answer may not go where it asks.
    pub fn run_command(
        self: &Arc<Self>,
        peer: &VerifiedPeer,
        address: SocketAddr,
        shard: usize,
        command: &ToPublish,
    ) -> bool {
        let Some(handler) = self.hooks.commands.clone() else {
            metrics::command("no_handler");
            return false;
        };
        let packet = &command.packet;
        let Some(answer_to) = self.answer_topic(packet.response_topic.as_deref()) else {
            metrics::command("bad_response_topic");
            return false;
        };
        if packet.payload.len() > self.limits.command_bytes {
            metrics::command("too_large");
            return false;
        }
        let Ok(permit) = self.commands.clone().try_acquire_owned() else {
            metrics::command("too_many");
            return false;
        };
        let correlation = packet
            .correlation_data
            .as_deref()
            .map(Bytes::copy_from_slice);
        let body = Bytes::copy_from_slice(&packet.payload);
        let (hub, peer) = (self.clone(), peer.clone());
        self.tasks.spawn(async move {
            let _permit = permit;
            let answer = handler.handle(&peer, address, body);
            match tokio::time::timeout(hub.limits.command_timeout, answer).await {
                Ok(answer) => {
                    metrics::command("answered");
                    hub.publish_answer(shard, answer_to, correlation, answer)
                        .await;
                }
                Err(_) => {
                    metrics::command("timeout");
                    tracing::error!("a command of an administrator took too long");
                }
            }
        });
        true
    }

    async fn publish_answer(
        &self,
        shard: usize,
        topic: TopicName,
        correlation: Option<Bytes>,
        answer: Bytes,
    ) {
        let mut properties = PropertyWriter::default();
        properties.text_payload();
        properties.content_type("application/json");
        if let Some(correlation) = correlation {
            properties.correlation_data(&correlation);
        }
        let frame = Message {
            qos: QoS::AtLeastOnce,
            retain: false,
            audience: Audience::Administrators,
            publisher: 0,
            expires_at: None,
            topic: &topic,
            properties: &properties.finish(),
            payload: &answer,
        }
        .encode();
        if let Err(error) = self.publish(shard, topic, frame).await {
            tracing::error!(%error, "the answer to a command could not be published");
        }
    }

    fn answer_topic(&self, wanted: Option<&str>) -> Option<TopicName> {
        let text = wanted.unwrap_or(DEFAULT_RESPONSE_TOPIC).to_owned();
        let topic = TopicName::parse(text, &self.limits.topics).ok()?;
        match self.access.answer(&topic) {
            Permission::Denied(_) => None,
            Permission::Granted => Some(topic),
        }
    }
}

//! A broker: one instance, with its own sessions, topics and bus.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::bus::{BusError, ShardLink};
use super::hub::{Hooks, Hub};
use super::listener::{Entrance, Room, Speaks};
use super::persist::{self, Keeper, Missed, Restored};
use super::session::Due;
use super::sessions::BrokerSessions;
use super::settings::Settings;
use super::shard::Wakes;
use super::sys::{self, BrokerObserver, Inlet};
use crate::ca::id::InstanceId;
use crate::control::observe::Observer;
use crate::control::sessions::{Closed, Sessions};
use crate::store::StoreError;
use crate::tls::acceptor::GateAcceptor;

/// A broker. Several can be in one process; they share nothing. Its tasks end when it is dropped.
pub struct Broker {
    hub: Arc<Hub>,
    room: Room,
    /// Ends what falls due with time.
    time: CancellationToken,
    _background: DropGuard,
}

/// What an operator may know about a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Whether the client is connected now.
    pub connected: bool,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// How many messages wait to be sent or acknowledged.
    pub waiting: usize,
}

/// Why a broker does not start with what was kept.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Its bus does not start.
    #[error("the message bus does not start: {0}")]
    Bus(#[from] BusError),
    /// What is kept cannot be read.
    #[error("the kept sessions cannot be read: {0}")]
    Store(#[from] StoreError),
}

impl Broker {
    /// Start a broker without listeners.
    ///
    /// # Errors
    /// If its bus does not start.
    pub async fn start(settings: Settings, hooks: Hooks) -> Result<Self, BusError> {
        let (hub, links, inlet) = Hub::start(settings, hooks, Keeper::off()).await?;
        Ok(Self::run(Arc::new(hub), links, inlet))
    }

    /// Start a broker without listeners, with the sessions and retained messages that were kept.
    ///
    /// # Errors
    /// If its bus does not start, or if what is kept cannot be read.
    pub async fn resume(
        settings: Settings,
        hooks: Hooks,
        keeper: Keeper,
    ) -> Result<(Self, Restored), ResumeError> {
        let (hub, links, inlet) = Hub::start(settings, hooks, keeper).await?;
        let hub = Arc::new(hub);
        let restored = persist::restore(&hub).await?;
        Ok((Self::run(hub, links, inlet), restored))
    }

    fn run(hub: Arc<Hub>, links: Vec<ShardLink>, inlet: Inlet) -> Self {
        let stop = CancellationToken::new();
        for link in links {
            tokio::spawn(
                stop.clone()
                    .run_until_cancelled_owned(drain(hub.clone(), link)),
            );
        }
        let time = stop.child_token();
        // Among the tasks that are waited for at the end, when it is told to end.
        hub.tasks.spawn(
            time.clone()
                .run_until_cancelled_owned(keep_time(hub.clone())),
        );
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(sys::run(hub.clone(), inlet)),
        );
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(persist::keep_writing(hub.clone())),
        );
        Self {
            room: Room::new(hub.limits.max_connections, hub.limits.max_handshakes),
            hub,
            time,
            _background: stop.drop_guard(),
        }
    }

    /// Write all sessions and retained messages, if they are kept, for at most so long. To be called
    /// once, when the listeners have ended; nothing is written any more after it. Gives what could
    /// not be written, which has been logged.
    ///
    /// What falls due from now on falls due at the next start: a will that went out while the
    /// sessions are written would miss those that are.
    pub async fn finish(&self, limit: Duration) -> Missed {
        self.time.cancel();
        persist::finish(&self.hub, limit).await
    }

    /// A way into it through this gate, to be given to [`listener::serve`](super::listener::serve).
    /// The broker's limits on connections and handshakes hold for all its entrances together.
    pub fn entrance(
        &self,
        instance: InstanceId,
        acceptor: GateAcceptor,
        speaks: Speaks,
    ) -> Entrance {
        Entrance::new(
            instance,
            self.hub.clone(),
            acceptor,
            speaks,
            self.room.clone(),
        )
    }

    /// How many sessions there are, with and without connection.
    pub fn sessions(&self) -> usize {
        self.hub.registry.len()
    }

    /// The session with this client id.
    pub fn session(&self, client_id: &str) -> Option<SessionInfo> {
        let cell = self.hub.registry.get(client_id)?;
        let session = cell.session();
        Some(SessionInfo {
            connected: session.is_connected(),
            subscriptions: session.subscriptions().len(),
            waiting: session.waiting(),
        })
    }

    /// End the connection of this client id (MQTT 5: 0x98); its session stays.
    pub async fn close(&self, client_id: &str) -> Closed {
        self.hub.registry.close(client_id).await
    }

    /// What the operations on sessions are carried out with.
    pub fn operations(&self) -> Arc<dyn Sessions> {
        Arc::new(BrokerSessions::of(&self.hub))
    }

    /// Tells the administrators among the clients of changes of trust.
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(BrokerObserver::of(&self.hub))
    }

    /// Write what has changed now.
    #[cfg(test)]
    pub(crate) async fn write_now(&self) -> Result<(), StoreError> {
        persist::round(&self.hub).await
    }

    /// The parts, for tests that bring their own streams.
    #[cfg(test)]
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

/// Give what the bus delivers to the sessions of a shard.
async fn drain(hub: Arc<Hub>, mut link: ShardLink) {
    let Some(shard) = hub.registry.shards().get(link.shard()).cloned() else {
        return;
    };
    loop {
        let deliveries = link.recv().await;
        let now = hub.now();
        for some in deliveries.chunks(AT_ONCE) {
            // Told when they have all of these.
            let mut wakes = Wakes::default();
            for delivery in some {
                shard.deliver(delivery, now, &mut wakes);
            }
        }
    }
}

/// Publish wills and end sessions when they are due.
async fn keep_time(hub: Arc<Hub>) {
    let mut purge_at = 0;
    loop {
        let now = hub.now();
        let (due, next) = hub.registry.on_time(now);
        for (shard, Due { will, ended }) in due {
            hub.sys.tally.sessions_expired.add(usize::from(ended));
            if let Some((topic, will)) = will {
                hub.publish_will(shard, 0, topic, &will);
            }
        }
        if purge_at <= now {
            hub.retained.sweep(now);
            hub.registry.drop_useless(now).await;
            purge_at = now + PURGE_EVERY_MS;
        }
        let wake_at = next.map_or(purge_at, |at| at.min(purge_at));
        tokio::select! {
            () = tokio::time::sleep_until(hub.instant(wake_at)) => {}
            () = hub.registry.timer_changed.notified() => {}
        }
    }
}

/// Messages that sessions are given before their connections are told.
const AT_ONCE: usize = 64;

/// How often retained and queued messages that are of no use any more are looked for, milliseconds.
const PURGE_EVERY_MS: u64 = 60_000;

//! The accept loop of an address, which only accepts; everything else happens in the
//! connection's task.
//!
//! An address leads to one broker or to several, each behind a gate of its own. A broker that has
//! the address for itself counts a connection from the start. Where several share it, a connection
//! counts at the address until its ClientHello has named one of them, and at that one from then on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::connection;
use super::hub::Hub;
use super::metrics;
use super::settings::Limits;
use crate::ca::id::InstanceId;
use crate::tls::acceptor::{AcceptError, Accepted, GateAcceptor};
use crate::tls::gates::Gates;
use crate::tls::hello::Hello;
use crate::tls::report::report_silent;

/// The way into a broker: its gate, and how many may be on their way through.
/// [`Broker::entrance`](super::Broker::entrance) makes one.
pub struct Entrance {
    instance: InstanceId,
    hub: Arc<Hub>,
    acceptor: GateAcceptor,
    room: Room,
}

/// Places, taken one by one.
#[derive(Clone)]
struct Room {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

impl Room {
    fn new(connections: usize, handshakes: usize) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(connections)),
            handshakes: Arc::new(Semaphore::new(handshakes)),
        }
    }
}

impl Entrance {
    pub(super) fn new(instance: InstanceId, hub: Arc<Hub>, acceptor: GateAcceptor) -> Self {
        let room = Room::new(hub.limits.max_connections, hub.limits.max_handshakes);
        Self {
            instance,
            hub,
            acceptor,
            room,
        }
    }

    /// What the handshake comes to; a refusal has been logged and counted by the acceptor.
    async fn through<F>(&self, remote: SocketAddr, handshake: F) -> Option<Accepted<TcpStream>>
    where
        F: Future<Output = Result<Accepted<TcpStream>, AcceptError>>,
    {
        let span = tracing::info_span!("handshake", instance = %self.instance);
        let outcome = handshake.instrument(span).await;
        let told = outcome.as_ref().map(|_| ());
        self.hub.sys.handshake(remote, told);
        outcome.ok()
    }
}

/// Serve the brokers behind these gates to the clients of the listener until `shutdown`, then wait
/// for the connections, at most the grace time.
pub async fn serve(listener: TcpListener, gates: Gates<Entrance>, shutdown: CancellationToken) {
    let front = Arc::new(Front::new(gates));
    let tasks = TaskTracker::new();
    let mut backoff = BACKOFF_FIRST;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: what is connected goes on, and frees some.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(backoff) => {}
                }
                backoff = (backoff * 2).min(BACKOFF_LAST);
                continue;
            }
        };
        backoff = BACKOFF_FIRST;
        let connections = Arc::clone(&front.room().connections);
        let Ok(place) = connections.try_acquire_owned() else {
            metrics::connection_over_limit();
            continue;
        };
        let work = Work {
            front: Arc::clone(&front),
            shutdown: shutdown.clone(),
            remote,
        };
        tasks.spawn(work.run(stream, place));
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(front.grace(), tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = tasks.len(),
            "connections did not end within the grace time"
        );
    }
}

/// What all connections of the address share.
struct Front {
    gates: Gates<Entrance>,
    arrival: Arrival,
    /// How long a client may say nothing, and how long its ClientHello may take.
    limit: Duration,
}

/// Where a connection counts until it is known which broker it is for.
enum Arrival {
    /// At the only broker that it can be for.
    AtTheOnly(Room),
    /// At the address: as many as one broker may have, connections and handshakes alike.
    Apart(Room),
}

impl Front {
    fn new(gates: Gates<Entrance>) -> Self {
        let mut all = gates.iter();
        let arrival = match (all.next(), all.next()) {
            (Some(only), None) => Arrival::AtTheOnly(only.room.clone()),
            _ => {
                let most = |limit: fn(&Limits) -> usize| {
                    let limits = gates.iter().map(|entrance| limit(&entrance.hub.limits));
                    limits.max().unwrap_or(0)
                };
                Arrival::Apart(Room::new(
                    most(|limits| limits.max_connections),
                    most(|limits| limits.max_handshakes),
                ))
            }
        };
        let limits = gates.iter().map(|entrance| entrance.acceptor.limit());
        Self {
            limit: limits.max().unwrap_or_default(),
            gates,
            arrival,
        }
    }

    fn room(&self) -> &Room {
        match &self.arrival {
            Arrival::AtTheOnly(room) | Arrival::Apart(room) => room,
        }
    }

    fn grace(&self) -> Duration {
        let limits = self.gates.iter().map(|entrance| &entrance.hub.limits);
        limits
            .map(|limits| limits.shutdown_grace)
            .max()
            .unwrap_or_default()
    }
}

struct Work {
    front: Arc<Front>,
    shutdown: CancellationToken,
    remote: SocketAddr,
}

/// A client that is through the gate of a broker, with its place there.
struct Arrived<'a> {
    entrance: &'a Entrance,
    accepted: Accepted<TcpStream>,
    _place: OwnedSemaphorePermit,
}

impl Work {
    async fn run(self, stream: TcpStream, place: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let arrived = tokio::select! {
            () = self.shutdown.cancelled() => return,
            arrived = self.arrive(stream, place) => arrived,
        };
        // A refusal has been logged and counted by the acceptor.
        let Some(Arrived {
            entrance: Entrance { hub, .. },
            accepted,
            _place,
        }) = arrived
        else {
            return;
        };
        (hub.hooks.on_admitted)(accepted.live.peer());
        connection::run(
            hub,
            accepted.stream,
            accepted.live,
            self.remote,
            &self.shutdown,
        )
        .await;
    }

    async fn arrive(&self, stream: TcpStream, place: OwnedSemaphorePermit) -> Option<Arrived<'_>> {
        let Front { gates, limit, .. } = &*self.front;
        // A client that says nothing takes nobody's turn.
        match tokio::time::timeout(*limit, stream.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => {
                report_silent(self.remote, *limit);
                return None;
            }
        }
        let turn = self.front.room().handshakes.acquire().await.ok()?;
        if let Some(entrance) = gates.for_all() {
            let handshake = entrance.acceptor.accept(stream, self.remote);
            return Some(Arrived {
                entrance,
                accepted: entrance.through(self.remote, handshake).await?,
                _place: place,
            });
        }
        let hello = Hello::read(stream, self.remote, *limit).await.ok()?;
        let entrance = match gates.choose(hello.server_name()) {
            Ok(entrance) => entrance,
            Err(no_gate) => {
                hello.refuse(no_gate).await;
                return None;
            }
        };
        let (hello, turn, place) = match self.front.arrival {
            Arrival::AtTheOnly(_) => (hello, turn, place),
            Arrival::Apart(_) => self.go_over(entrance, hello, turn, place).await?,
        };
        let accepted = entrance
            .through(self.remote, entrance.acceptor.accept_hello(hello))
            .await;
        drop(turn);
        Some(Arrived {
            entrance,
            accepted: accepted?,
            _place: place,
        })
    }

    /// Give the places at the address for places at the broker that was named. What was read is
    /// held in memory, so the turn at the address is given last.
    async fn go_over<'a>(
        &self,
        entrance: &'a Entrance,
        hello: Hello<TcpStream>,
        at_address: SemaphorePermit<'_>,
        place: OwnedSemaphorePermit,
    ) -> Option<(Hello<TcpStream>, SemaphorePermit<'a>, OwnedSemaphorePermit)> {
        let Room {
            connections,
            handshakes,
        } = &entrance.room;
        let Ok(own) = Arc::clone(connections).try_acquire_owned() else {
            metrics::connection_over_limit();
            return None;
        };
        drop(place);
        let until = hello.began() + entrance.acceptor.limit();
        match tokio::time::timeout_at(until, handshakes.acquire()).await {
            Ok(turn) => {
                drop(at_address);
                Some((hello, turn.ok()?, own))
            }
            Err(_) => {
                hello.give_up();
                None
            }
        }
    }
}

const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

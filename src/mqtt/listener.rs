//! The accept loop of an address, which only accepts; everything else happens in the
//! connection's task.
//!
//! An address leads to one broker or to several, each behind a gate of its own. A broker that has
//! the address for itself counts a connection from the start. Where several share it, a connection
//! counts at the address until its ClientHello has named one of them, and at that one from then on.
//! What one address of clients may have is looked at first; behind a proxy, as soon as that has
//! said which it is.

mod addresses;
mod arrival;
mod proxy;
mod stream;
mod unserved;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use self::addresses::{Addresses, Place};
use self::arrival::Work;
use self::unserved::Teller;
use super::hub::Hub;
use super::metrics::Unserved;
use super::settings::{Limits, PerAddress};
use super::websocket::upgrade::Door;
use crate::ca::id::InstanceId;
use crate::tls::acceptor::{AcceptError, Accepted, GateAcceptor};
use crate::tls::gates::Gates;

pub use self::proxy::Proxies;

/// The way into a broker: its gate, and how many may be on their way through.
/// [`Broker::entrance`](super::Broker::entrance) makes one.
pub struct Entrance {
    instance: InstanceId,
    hub: Arc<Hub>,
    acceptor: GateAcceptor,
    speaks: Speaks,
    room: Room,
}

/// What is spoken through a way in, after the handshake of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speaks {
    /// MQTT.
    Mqtt,
    /// MQTT over WebSocket.
    WebSocket(Door),
}

/// Places, taken one by one.
#[derive(Clone)]
pub(super) struct Room {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new(connections: usize, handshakes: usize) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(connections)),
            handshakes: Arc::new(Semaphore::new(handshakes)),
        }
    }
}

impl Entrance {
    pub(super) fn new(
        instance: InstanceId,
        hub: Arc<Hub>,
        acceptor: GateAcceptor,
        speaks: Speaks,
        room: Room,
    ) -> Self {
        Self {
            instance,
            hub,
            acceptor,
            speaks,
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
pub async fn serve(
    listener: TcpListener,
    gates: Gates<Entrance>,
    proxies: Proxies,
    shutdown: CancellationToken,
) {
    let front = Arc::new(Front::new(gates, proxies));
    let tasks = TaskTracker::new();
    let accepting = accept(listener, &front, &tasks, &shutdown);
    // Where many wait, all tasks have work, and those of clients must not come between them: who finds
    // no room tries again after a second.
    tokio::task::unconstrained(accepting).await;
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

async fn accept(
    listener: TcpListener,
    front: &Arc<Front>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let mut backoff = BACKOFF_FIRST;
    let mut in_a_row = 0;
    loop {
        if in_a_row >= IN_A_ROW {
            in_a_row = 0;
            tokio::task::yield_now().await;
        }
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
        let places = match front.places(remote) {
            Ok(places) => places,
            Err(why) => {
                // Whoever keeps coming without a place does not keep the others from their turn.
                in_a_row += IN_A_ROW / 64;
                front.teller.tell(why, remote, "");
                continue;
            }
        };
        in_a_row += 1;
        let work = Work {
            front: Arc::clone(front),
            shutdown: shutdown.clone(),
        };
        tasks.spawn(work.run(stream, remote, places));
    }
}

/// What all connections of the address share.
struct Front {
    gates: Gates<Entrance>,
    arrival: Arrival,
    proxies: Proxies,
    addresses: Arc<Addresses>,
    teller: Teller,
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

/// Where a connection counts.
struct Places {
    connection: OwnedSemaphorePermit,
    /// Not known until the proxy has told the address.
    address: Option<Place>,
}

impl Front {
    fn new(gates: Gates<Entrance>, proxies: Proxies) -> Self {
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
        let per_address = gates.iter().map(|it| it.hub.limits.per_address.clone());
        let per_address = per_address.reduce(PerAddress::milder).unwrap_or_default();
        Self {
            limit: limits.max().unwrap_or_default(),
            arrival,
            proxies,
            addresses: Arc::new(Addresses::new(per_address)),
            teller: Teller::default(),
            gates,
        }
    }

    /// The places for a connection that comes from there, if there are any.
    fn places(&self, remote: SocketAddr) -> Result<Places, Unserved> {
        let proxied = match &self.proxies {
            Proxies::None => false,
            proxies if proxies.are_trusted_at(remote.ip()) => true,
            Proxies::Trusted(_) => return Err(Unserved::UntrustedProxy),
        };
        let connections = Arc::clone(&self.room().connections);
        let connection = connections.try_acquire_owned();
        Ok(Places {
            connection: connection.map_err(|_| Unserved::OverLimit)?,
            address: match proxied {
                true => None,
                false => Some(self.addresses.enter(remote.ip())?),
            },
        })
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

/// Clients that are accepted before others have their turn.
const IN_A_ROW: u64 = 1024;

const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

//! From an accepted socket to a client that is through the gate of a broker.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::addresses::Place;
use super::proxy::{NoHeader, read_header};
use super::stream::Stream;
use super::{Arrival, Entrance, Front, Places, Room, Speaks};
use crate::mqtt::metrics::Unserved;
use crate::mqtt::{connection, websocket};
use crate::tls::acceptor::Accepted;
use crate::tls::hello::Hello;
use crate::tls::live::LivePeer;
use crate::tls::report::report_silent;

/// What the task of a connection does.
pub(super) struct Work {
    pub(super) front: Arc<Front>,
    pub(super) shutdown: CancellationToken,
}

/// A client that is through the gate of a broker, with its places.
struct Arrived<'a> {
    entrance: &'a Entrance,
    stream: Stream,
    live: LivePeer,
    remote: SocketAddr,
    _connection: OwnedSemaphorePermit,
    _address: Place,
}

impl Work {
    pub(super) async fn run(self, stream: TcpStream, remote: SocketAddr, places: Places) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        // On the heap, so that who is through does not keep the room for it.
        let arriving = Box::pin(self.arrive(stream, remote, places));
        let arrived = tokio::select! {
            () = self.shutdown.cancelled() => return,
            arrived = arriving => arrived,
        };
        // A refusal has been logged and counted by the acceptor.
        let Some(Arrived {
            entrance: Entrance { hub, speaks, .. },
            stream,
            live,
            remote,
            _connection,
            _address,
        }) = arrived
        else {
            return;
        };
        let peer = live.peer().clone();
        (hub.hooks.on_admitted)(&peer);
        match speaks {
            Speaks::Mqtt => connection::run(hub, stream, live, remote, &self.shutdown).await,
            Speaks::WebSocket(door) => {
                // On the heap, so that connections without it do not have the room for it.
                let serve = websocket::serve(hub, door, stream, live, remote, &self.shutdown);
                Box::pin(serve).await;
            }
        }
        (hub.hooks.on_left)(&peer);
    }

    async fn arrive(
        &self,
        mut stream: TcpStream,
        remote: SocketAddr,
        places: Places,
    ) -> Option<Arrived<'_>> {
        let Front { gates, limit, .. } = &*self.front;
        let until = Instant::now() + *limit;
        let (remote, address) = match places.address {
            Some(address) => (remote, address),
            None => self.proxied(&mut stream, remote, until).await?,
        };
        // A client that says nothing takes nobody's turn.
        match tokio::time::timeout_at(until, stream.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => {
                report_silent(remote, *limit);
                return None;
            }
        }
        let _turn_of_address = address.turn().await;
        let turn = self.front.room().handshakes.acquire().await.ok()?;
        if let Some(entrance) = gates.for_all() {
            let handshake = entrance.acceptor.accept(stream, remote);
            let Accepted { stream, live } = entrance.through(remote, handshake).await?;
            return Some(Arrived {
                entrance,
                stream: Stream::new(stream),
                live,
                remote,
                _connection: places.connection,
                _address: address,
            });
        }
        let hello = Hello::read(stream, remote, *limit).await.ok()?;
        let entrance = match gates.choose(hello.server_name()) {
            Ok(entrance) => entrance,
            Err(no_gate) => {
                hello.refuse(no_gate).await;
                return None;
            }
        };
        let (hello, turn, connection) = match self.front.arrival {
            Arrival::AtTheOnly(_) => (hello, turn, places.connection),
            Arrival::Apart(_) => {
                let over = self.go_over(entrance, hello, remote, turn, places.connection);
                over.await?
            }
        };
        let accepted = entrance
            .through(remote, entrance.acceptor.accept_hello(hello))
            .await;
        drop(turn);
        let Accepted { stream, live } = accepted?;
        Some(Arrived {
            entrance,
            stream: Stream::new(stream),
            live,
            remote,
            _connection: connection,
            _address: address,
        })
    }

    /// Let the proxy say where the client is, and find a place among those from there.
    async fn proxied(
        &self,
        stream: &mut TcpStream,
        proxy: SocketAddr,
        until: Instant,
    ) -> Option<(SocketAddr, Place)> {
        let (teller, addresses) = (&self.front.teller, &self.front.addresses);
        let remote = match tokio::time::timeout_at(until, read_header(stream)).await {
            Ok(Ok(client)) => client.unwrap_or(proxy),
            Ok(Err(NoHeader::Closed)) => return None,
            Ok(Err(error)) => {
                teller.tell(Unserved::ProxyHeader, proxy, &error.to_string());
                return None;
            }
            Err(_) => {
                teller.tell(Unserved::ProxyTimeout, proxy, "");
                return None;
            }
        };
        match addresses.enter(remote.ip()) {
            Ok(place) => Some((remote, place)),
            Err(why) => {
                teller.tell(why, remote, "");
                None
            }
        }
    }

    /// Give the places at the address for places at the broker that was named. What was read is
    /// held in memory, so the turn at the address is given last.
    async fn go_over<'a>(
        &self,
        entrance: &'a Entrance,
        hello: Hello<TcpStream>,
        remote: SocketAddr,
        at_address: SemaphorePermit<'_>,
        place: OwnedSemaphorePermit,
    ) -> Option<(Hello<TcpStream>, SemaphorePermit<'a>, OwnedSemaphorePermit)> {
        let Room {
            connections,
            handshakes,
        } = &entrance.room;
        let Ok(own) = Arc::clone(connections).try_acquire_owned() else {
            self.front.teller.tell(Unserved::OverLimit, remote, "");
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

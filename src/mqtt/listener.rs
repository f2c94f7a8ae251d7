//! The accept loop, which only accepts; everything else happens in the connection's task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use super::hub::Hub;
use super::metrics;
use crate::tls::acceptor::{Accepted, GateAcceptor};

/// Serve the listener until `shutdown`, then wait for the connections, at most the grace time.
pub async fn serve(
    hub: Arc<Hub>,
    listener: TcpListener,
    acceptor: GateAcceptor,
    shutdown: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(hub.limits.max_connections));
    let handshakes = Arc::new(Semaphore::new(hub.limits.max_handshakes));
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
        let Ok(place) = connections.clone().try_acquire_owned() else {
            metrics::connection_over_limit();
            continue;
        };
        let work = Work {
            hub: hub.clone(),
            acceptor: acceptor.clone(),
            handshakes: handshakes.clone(),
            shutdown: shutdown.clone(),
            remote,
            _place: place,
        };
        tasks.spawn(work.run(stream));
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(hub.limits.shutdown_grace, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = tasks.len(),
            "connections did not end within the grace time"
        );
    }
}

struct Work {
    hub: Arc<Hub>,
    acceptor: GateAcceptor,
    handshakes: Arc<Semaphore>,
    shutdown: CancellationToken,
    remote: SocketAddr,
    _place: OwnedSemaphorePermit,
}

impl Work {
    async fn run(self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let accepted = tokio::select! {
            () = self.shutdown.cancelled() => return,
            accepted = self.handshake(stream) => accepted,
        };
        // A refusal has been logged and counted by the acceptor.
        let Some(accepted) = accepted else { return };
        (self.hub.hooks.on_admitted)(accepted.live.peer());
        connection::run(
            &self.hub,
            accepted.stream,
            accepted.live,
            self.remote,
            &self.shutdown,
        )
        .await;
    }

    async fn handshake(&self, stream: TcpStream) -> Option<Accepted<TcpStream>> {
        // A client that says nothing takes nobody's turn.
        match tokio::time::timeout(self.acceptor.limit(), stream.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => {
                self.acceptor.report_silent(self.remote);
                return None;
            }
        }
        let _turn = self.handshakes.acquire().await.ok()?;
        self.acceptor.accept(stream, self.remote).await.ok()
    }
}

const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

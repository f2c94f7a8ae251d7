//! Connections to the admin address: accepted, bounded in number and in time, served.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::local::LocalListener;
use crate::admin::metrics::{self, Connection};
use crate::admin::router::{self, Api, Peer};
use crate::admin::worded::Worded;

/// What connections are bounded by.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections at a time.
    pub total: usize,
    /// Connections at a time from one address. Behind a reverse proxy all have one.
    pub per_address: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a request's head may take, also from the answer to the next request.
    pub head_timeout: Duration,
    /// How long a connection may live; a client that does not read its answers, too.
    pub lifetime: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 1024,
            per_address: 256,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            lifetime: Duration::from_secs(600),
        }
    }
}

/// The admin server: made of a bound listener, so that start-up errors come early.
pub struct AdminServer {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    local: Option<LocalListener>,
    router: Router,
    host_id: Arc<str>,
    limits: ConnectionLimits,
}

impl AdminServer {
    /// Serve `api` on the listener: HTTPS if there is a TLS configuration, otherwise HTTP; and on
    /// the local socket, if there is one.
    pub fn new(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        local: Option<LocalListener>,
        api: Api,
        limits: ConnectionLimits,
    ) -> Self {
        Self {
            listener,
            tls: tls.map(TlsAcceptor::from),
            local,
            host_id: api.service.host_id().into(),
            router: router::router(api),
            limits,
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serve until `shutdown` is cancelled, then until every request under way is answered.
    /// Whoever cannot wait for that drops the future.
    pub async fn serve(mut self, shutdown: CancellationToken) {
        let local = self.local.take().map(|local| {
            local.serve(
                self.router.clone(),
                self.limits.clone(),
                shutdown.child_token(),
            )
        });
        tokio::join!(self.serve_network(shutdown), async {
            if let Some(local) = local {
                local.await;
            }
        });
    }

    async fn serve_network(self, shutdown: CancellationToken) {
        let served = Arc::new(Served {
            tls: self.tls,
            router: self.router,
            host_id: self.host_id,
            places: Arc::new(Semaphore::new(self.limits.total)),
            addresses: Arc::default(),
            limits: self.limits,
            // Ends the connections when this future ends or is dropped.
            shutdown: shutdown.child_token(),
        });
        let _end = served.shutdown.clone().drop_guard();
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, address)) => {
                    if let Some(place) = served.place(address.ip()) {
                        tasks.spawn(Arc::clone(&served).connection(stream, address, place));
                    }
                }
                Err(error) => {
                    // Out of descriptors, mostly: what ends meanwhile makes room.
                    tracing::error!(%error, "admin connections cannot be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        tasks.close();
        tasks.wait().await;
    }
}

struct Served {
    tls: Option<TlsAcceptor>,
    router: Router,
    host_id: Arc<str>,
    places: Arc<Semaphore>,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
}

/// A connection's right to exist; given back when dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = addresses.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

impl Served {
    fn place(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            metrics::connection(Connection::RefusedTotal);
            tracing::info!(client.addr = %address, "admin connection refused: there are too many");
            return None;
        };
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = addresses.entry(address).or_default();
        if *count >= self.limits.per_address {
            metrics::connection(Connection::RefusedAddress);
            tracing::info!(client.addr = %address, "admin connection refused: there are too many from its address");
            return None;
        }
        *count += 1;
        Some(Place {
            _permit: permit,
            addresses: Arc::clone(&self.addresses),
            address,
        })
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: SocketAddr, place: Place) {
        // Answers are small and must not wait for more.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => {
                metrics::connection(Connection::Accepted);
                self.http(stream, address).await;
            }
            Some(tls) => match timeout(self.limits.handshake_timeout, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    metrics::connection(Connection::Accepted);
                    self.http(stream, address).await;
                }
                Ok(Err(error)) => {
                    metrics::connection(Connection::HandshakeFailed);
                    tracing::info!(client.addr = %address, %error, "admin TLS handshake failed");
                }
                Err(_) => {
                    metrics::connection(Connection::HandshakeFailed);
                    tracing::info!(client.addr = %address, "admin TLS handshake took too long");
                }
            },
        }
        drop(place);
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin, address: SocketAddr) {
        let peer = Peer::Network(address);
        let router = self.router.clone().layer(Extension(peer));
        let stream = Worded::new(stream, Arc::clone(&self.host_id));
        http(stream, router, &self.limits, &self.shutdown).await;
    }
}

/// Serve HTTP on one connection, bounded in time.
pub(super) async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    limits: &ConnectionLimits,
    shutdown: &CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        // Above the limits of requests, so that those answer in words first.
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return ended(result),
        () = shutdown.cancelled() => {}
        () = sleep(limits.lifetime) => {}
    }
    connection.as_mut().graceful_shutdown();
    match timeout(LAST_ANSWER, connection).await {
        Ok(result) => ended(result),
        Err(_) => tracing::debug!("admin connection cut off"),
    }
}

fn ended(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "admin connection ended");
    }
}

const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 200;

/// What is left of a connection's life once it is to end.
const LAST_ANSWER: Duration = Duration::from_secs(30);

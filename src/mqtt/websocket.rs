//! MQTT over WebSocket (MQTT 5.0 and 3.1.1, section 6), behind the same gate.
//!
//! TLS, certificates and the cut are those of any other connection. After the handshake of TLS a
//! client asks for a WebSocket, and from then on its octets are served like any others.

mod frames;
pub mod origin;
pub mod stream;
pub mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::upgrade::Door;
use super::connection;
use super::hub::Hub;
use super::identity::Peer;
use super::metrics;

/// Serve a client whose TLS handshake is over, from its request for a WebSocket on.
pub async fn serve<S, P>(
    hub: &Arc<Hub>,
    door: &Door,
    io: S,
    peer: P,
    remote: SocketAddr,
    shutdown: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Peer,
{
    let span = tracing::info_span!(
        "upgrade",
        instance = %peer.verified().instance(),
        client.addr = %remote,
        ca.sn = %peer.verified().ca_sn(),
        device.sn = %peer.verified().serial(),
    );
    let upgraded = async {
        let limit = hub.limits.connect_timeout;
        let upgrading = tokio::time::timeout(limit, upgrade::upgrade(io, door));
        let outcome = tokio::select! {
            biased;
            _ = peer.until_cut() => Err("cut"),
            () = shutdown.cancelled() => Err("shutdown"),
            upgraded = upgrading => match upgraded {
                Ok(Ok(upgraded)) => Ok(upgraded),
                Ok(Err(refusal)) => {
                    tracing::info!(reason = refusal.as_str(), detail = %refusal, "no WebSocket");
                    metrics::websocket_asked(refusal.as_str());
                    return None;
                }
                Err(_) => Err("timeout"),
            },
        };
        metrics::websocket_asked(outcome.as_ref().err().copied().unwrap_or("accepted"));
        match outcome {
            Ok(upgraded) => Some(upgraded),
            Err(reason) => {
                tracing::info!(reason, "no WebSocket");
                None
            }
        }
    };
    // On the heap, since it is over before the connection really begins.
    let upgraded = Box::pin(upgraded.instrument(span)).await;
    if let Some(stream) = upgraded {
        connection::run(hub, stream, peer, remote, shutdown).await;
    }
}

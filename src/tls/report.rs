//! What the log and the metrics say of handshakes.

use std::net::SocketAddr;
use std::time::Duration;

use crate::tls::acceptor::AcceptError;

/// Tell the outcome of a handshake, once.
pub(super) fn report(
    result: Result<(), &AcceptError>,
    remote: SocketAddr,
    server_name: Option<&str>,
    took: Duration,
) {
    let handshake_ms = took.as_secs_f64() * 1000.0;
    let outcome = match result {
        Ok(()) => "accepted",
        Err(error) => {
            tell(error, remote, server_name, handshake_ms);
            error.reason()
        }
    };
    metrics::counter!("portcullis_handshakes_total", "outcome" => outcome).increment(1);
    metrics::histogram!("portcullis_handshake_seconds").record(took.as_secs_f64());
}

fn tell(error: &AcceptError, remote: SocketAddr, server_name: Option<&str>, handshake_ms: f64) {
    let reason = error.reason();
    match error {
        AcceptError::Timeout => {
            tracing::info!(client.addr = %remote, tls.server_name = server_name, handshake_ms, reason, "handshake not finished in time");
        }
        AcceptError::Failed(error) => {
            tracing::info!(client.addr = %remote, tls.server_name = server_name, handshake_ms, reason, %error, "handshake failed");
        }
        AcceptError::NoGate(_) => {
            tracing::info!(client.addr = %remote, tls.server_name = server_name, handshake_ms, reason, "no instance for the server name");
        }
        AcceptError::Refused(refused) => {
            tracing::info!(
                client.addr = %remote,
                tls.server_name = server_name,
                handshake_ms,
                reason,
                ca.sn = refused.ca.as_ref().map(tracing::field::display),
                device.sn = refused.device.as_ref().map(tracing::field::display),
                detail = %refused.refusal,
                "client certificate refused"
            );
        }
    }
}

/// Log and count a client that connected and said nothing within the limit, for callers that wait
/// for its first octets before they start the handshake.
pub fn report_silent(remote: SocketAddr, limit: Duration) {
    report(Err(&AcceptError::Timeout), remote, None, limit);
}

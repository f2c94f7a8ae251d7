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
        Err(AcceptError::Timeout) => {
            tracing::info!(client.addr = %remote, tls.server_name = server_name, handshake_ms, reason = "timeout", "handshake not finished in time");
            "timeout"
        }
        Err(AcceptError::Failed(error)) => {
            tracing::info!(client.addr = %remote, tls.server_name = server_name, handshake_ms, reason = "tls", %error, "handshake failed");
            "tls"
        }
        Err(AcceptError::NoGate(no_gate)) => {
            let reason = no_gate.reason();
            tracing::info!(client.addr = %remote, tls.server_name = server_name, handshake_ms, reason, "no instance for the server name");
            reason
        }
        Err(AcceptError::Refused(refused)) => {
            tracing::info!(
                client.addr = %remote,
                tls.server_name = server_name,
                handshake_ms,
                reason = refused.refusal.reason(),
                ca.sn = refused.ca.as_ref().map(tracing::field::display),
                device.sn = refused.device.as_ref().map(tracing::field::display),
                detail = %refused.refusal,
                "client certificate refused"
            );
            refused.refusal.reason()
        }
    };
    metrics::counter!("portcullis_handshakes_total", "outcome" => outcome).increment(1);
    metrics::histogram!("portcullis_handshake_seconds").record(took.as_secs_f64());
}

/// Log and count a client that connected and said nothing within the limit, for callers that wait
/// for its first octets before they start the handshake.
pub fn report_silent(remote: SocketAddr, limit: Duration) {
    report(Err(&AcceptError::Timeout), remote, None, limit);
}

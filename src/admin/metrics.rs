//! What is counted at the admin door. Labels come from closed sets.

use std::time::Duration;

use metrics::{counter, histogram};

use crate::admin::action::Action;
use crate::admin::errors::Code;
use crate::control::Door;

const CALLS: &str = "portcullis_admin_calls_total";
const SECONDS: &str = "portcullis_admin_call_seconds";
const CONNECTIONS: &str = "portcullis_admin_connections_total";
const UNPROVED: &str = "portcullis_admin_unproved_total";

/// What became of a connection to the admin address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// There are too many.
    RefusedTotal,
    /// There are too many from its address.
    RefusedAddress,
    /// Its user may not administer (local socket).
    RefusedUser,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// It is served.
    Accepted,
}

/// Why it cannot be proved that a request is not a repeated one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproved {
    /// That it was used cannot be written to disk.
    NotKept,
    /// What was used in its time is not known any more.
    Forgotten,
}

impl Unproved {
    /// The reason as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotKept => "not_kept",
            Self::Forgotten => "forgotten",
        }
    }
}

/// Count a request that cannot be proved to be new.
pub(super) fn unproved(why: Unproved) {
    counter!(UNPROVED, "reason" => why.as_str()).increment(1);
}

/// Count a call.
pub(super) fn call(door: Door, action: Option<Action>, code: Option<Code>, elapsed: Duration) {
    let door = match door {
        Door::Http => "http",
        Door::Mqtt => "mqtt",
        Door::Host => "host",
        Door::System => "system",
    };
    let action = action.map_or("unknown", Action::name);
    let code = code.map_or("OK", Code::as_str);
    counter!(CALLS, "door" => door, "action" => action, "code" => code).increment(1);
    histogram!(SECONDS, "door" => door, "action" => action).record(elapsed.as_secs_f64());
}

/// Count a connection.
pub(super) fn connection(outcome: Connection) {
    let outcome = match outcome {
        Connection::RefusedTotal => "refused_total",
        Connection::RefusedAddress => "refused_address",
        Connection::RefusedUser => "refused_user",
        Connection::HandshakeFailed => "handshake_failed",
        Connection::Accepted => "accepted",
    };
    counter!(CONNECTIONS, "outcome" => outcome).increment(1);
}

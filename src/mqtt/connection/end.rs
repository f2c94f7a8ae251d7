//! The ways a connection ends.

use crate::mqtt::metrics::Ending;
use crate::mqtt::session::{Departure, Fault};
use crate::mqtt::shard::Kick;
use crate::mqtt::wire::{WireError, reason};

/// Why a connection ends, and what is said about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) ending: Ending,
    pub(super) departure: Departure,
    /// The DISCONNECT for an MQTT 5 client.
    pub(super) farewell: Option<(u8, &'static str)>,
}

impl End {
    pub(super) fn silent(ending: Ending, departure: Departure) -> Self {
        Self {
            ending,
            departure,
            farewell: None,
        }
    }

    pub(super) fn saying(ending: Ending, code: u8, words: &'static str) -> Self {
        Self {
            ending,
            departure: Departure::Lost,
            farewell: Some((code, words)),
        }
    }

    pub(super) fn lost() -> Self {
        Self::silent(Ending::ConnectionLost, Departure::Lost)
    }

    pub(super) fn kicked(why: Kick) -> Self {
        match why {
            Kick::TakenOver => Self::saying(
                Ending::TakenOver,
                reason::SESSION_TAKEN_OVER,
                "another connection took the session over",
            ),
            Kick::Administrative => Self::saying(
                Ending::Administrative,
                reason::ADMINISTRATIVE_ACTION,
                "an administrator ended the connection",
            ),
        }
    }

    /// Whether somebody else ended it: nothing but the farewell is sent then.
    pub(super) fn is_ordered(&self) -> bool {
        matches!(
            self.ending,
            Ending::Cut | Ending::TakenOver | Ending::Administrative
        )
    }

    pub(super) fn shutdown() -> Self {
        Self {
            departure: Departure::Shutdown,
            ..Self::saying(Ending::Shutdown, reason::SHUTTING_DOWN, "the server stops")
        }
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        let ending = match fault.reason {
            reason::NOT_AUTHORIZED => Ending::NotAuthorized,
            _ => Ending::ProtocolError,
        };
        Self::saying(ending, fault.reason, fault.words)
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        let words = match error {
            WireError::Malformed(words) | WireError::Protocol(words) => words,
            _ => "the packet is too large",
        };
        Self::saying(Ending::ProtocolError, error.reason(), words)
    }
}

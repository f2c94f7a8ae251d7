//! The states of a certificate and what may follow what.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a registered certificate may be used. The API writes it as `"0"` or `"1"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Switched off: nothing that depends on it gets in.
    Inactive,
    /// Switched on; how a certificate starts when it is registered or first seen.
    Active,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Inactive => "inactive",
            Status::Active => "active",
        })
    }
}

//! The peers that are connected, found by the authorities their certificates depend on.

use crate::tls::peer::VerifiedPeer;

/// Why a connected peer must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// A CA on its path was switched off.
    CaInactive,
    /// A CA on its path was deleted.
    CaDeleted,
    /// Its own certificate was switched off.
    DeviceInactive,
}

/// A connection's place in the index of connected peers: it is told when its peer's trust
/// ends, and leaves the index when dropped.
///
/// It enters the index before its states are read for the last time, so there is no gap: either
/// the reading already sees a change, or the change finds it here.
pub struct LivePeer {}

impl LivePeer {
    /// Who it is.
    pub fn peer(&self) -> &VerifiedPeer {
        todo!()
    }

    /// Whether the trust has ended, and why. A relaxed flag: cheap enough to ask before every packet.
    pub fn cut(&self) -> Option<Cut> {
        todo!()
    }

    /// Resolves when the trust ends (at once if it already has). Cancel safe.
    pub async fn until_cut(&self) -> Cut {
        todo!()
    }
}

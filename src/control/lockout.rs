//! Whether a change would lock administrators out.
//!
//! A CA that stands above the administrators' CA takes it along when it is switched off, or when one
//! between them is registered that is off. Nothing else does: administrators' CAs are in the
//! configuration, and access keys and the socket of the host depend on no CA.

use std::fmt;

use crate::ca::id::CertSerial;
use crate::ca::outlook::{AdminsOff, Proposal, Rest};
use crate::control::{Answer, Caller, ControlError, Inner, Instance, Principal};

/// What is done about a change that would lock administrators out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lockouts {
    /// It is refused.
    #[default]
    Refuse,
    /// It is made all the same.
    Accept,
}

/// Who would be locked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockedOut {
    /// The caller, who is an administrator inside the broker.
    Caller {
        /// Serial number of the administrators' CA that the caller came over.
        ca_sn: CertSerial,
    },
    /// All administrators inside the broker.
    Administrators {
        /// Serial numbers of their CAs.
        ca_sns: Vec<CertSerial>,
    },
}

impl fmt::Display for LockedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller { ca_sn } => write!(
                f,
                "it would lock you out: it switches off the administrators' CA {ca_sn}, over which \
                 you are connected"
            ),
            Self::Administrators { ca_sns } => {
                f.write_str(
                    "it would lock out every administrator of the control topic: it switches off \
                     the administrators' CA ",
                )?;
                for (place, sn) in ca_sns.iter().enumerate() {
                    let separator = if place > 0 { ", " } else { "" };
                    write!(f, "{separator}{sn}")?;
                }
                Ok(())
            }
        }
    }
}

impl Inner {
    /// Who would be locked out by the change.
    pub(crate) fn locked_out(
        &self,
        at: &Instance,
        caller: &Caller,
        proposal: &Proposal,
    ) -> Option<LockedOut> {
        let AdminsOff { sns, rest } = at.registry.admins_off(proposal, self.now())?;
        match (&caller.principal, rest) {
            (Principal::Certificate { ca_sn, .. }, _) if sns.contains(ca_sn) => {
                Some(LockedOut::Caller {
                    ca_sn: ca_sn.clone(),
                })
            }
            (_, Rest::None) => Some(LockedOut::Administrators { ca_sns: sns }),
            (_, Rest::Some) => None,
        }
    }

    /// Refuse a change that would lock administrators out, unless that is meant.
    ///
    /// # Errors
    /// [`ControlError::LocksOut`].
    pub(crate) fn guard(
        &self,
        at: &Instance,
        caller: &Caller,
        proposal: &Proposal,
        lockouts: Lockouts,
    ) -> Answer<()> {
        match (lockouts, self.locked_out(at, caller, proposal)) {
            (Lockouts::Refuse, Some(locked_out)) => Err(ControlError::LocksOut(locked_out)),
            (Lockouts::Accept, _) | (Lockouts::Refuse, None) => Ok(()),
        }
    }
}

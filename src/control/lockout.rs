//! Whether a change would lock administrators out.
//!
//! A CA that stands above the administrators' CA takes it along when it is switched off, when one
//! between them is registered that is off, and when it revokes it or one between them. The
//! administrators' CA may revoke the caller's own certificate; whom else it revokes, nobody knows
//! before they come. Nothing else locks out: administrators' CAs are in the configuration, and access
//! keys and the socket of the host depend on no CA.

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
    /// The caller alone: the list has its certificate.
    Certificate {
        /// Serial number of the certificate.
        sn: CertSerial,
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
            Self::Certificate { sn } => {
                write!(f, "it would lock you out: it revokes your certificate {sn}")
            }
            Self::Administrators { ca_sns } => {
                f.write_str(
                    "it would lock out every administrator of the control topic: it switches off \
                     the administrators' CA ",
                )?;
                write_list(f, ca_sns)
            }
        }
    }
}

pub(crate) fn write_list(f: &mut fmt::Formatter<'_>, sns: &[CertSerial]) -> fmt::Result {
    for (place, sn) in sns.iter().enumerate() {
        let separator = if place > 0 { ", " } else { "" };
        write!(f, "{separator}{sn}")?;
    }
    Ok(())
}

/// What the audit log says of a change that locks out whom it says because that is meant.
pub(crate) fn noted(note: Option<String>, forced: Option<&LockedOut>) -> Option<String> {
    match (note, forced) {
        (note, None) => note,
        (None, Some(out)) => Some(format!("forced: {out}")),
        (Some(note), Some(out)) => Some(format!("{note}; forced: {out}")),
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
        if let (Principal::Certificate { serial, issuer, .. }, Proposal::Revocations(of, lists)) =
            (&caller.principal, proposal)
            && issuer == of
            && lists.find(serial).is_some()
        {
            return Some(LockedOut::Certificate { sn: serial.clone() });
        }
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

    /// Refuse a change that would lock administrators out, unless that is meant. Gives who is
    /// locked out then.
    ///
    /// # Errors
    /// [`ControlError::LocksOut`].
    pub(crate) fn guard(
        &self,
        at: &Instance,
        caller: &Caller,
        proposal: &Proposal,
        lockouts: Lockouts,
    ) -> Answer<Option<LockedOut>> {
        match (lockouts, self.locked_out(at, caller, proposal)) {
            (Lockouts::Refuse, Some(locked_out)) => Err(ControlError::LocksOut(locked_out)),
            (Lockouts::Accept, out) => Ok(out),
            (Lockouts::Refuse, None) => Ok(None),
        }
    }
}

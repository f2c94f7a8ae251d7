//! Whether a list is taken.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::audit::Phase;
use crate::ca::crl::{Crl, CrlError, CrlPolicy, UnverifiedCrl, to_der};
use crate::ca::outlook::{AdminsOff, Proposal, Rest};
use crate::control::ca::shown;
use crate::control::ledger::Ca;
use crate::control::lockout::{LockedOut, Lockouts, write_list};
use crate::control::{
    Answer, Caller, ControlError, CrlRefusal, Door, Inner, Instance, Outcome, Record,
};
use crate::store::CrlDer;
use crate::tls::server_config::algorithms;

/// What is to become of a list that was read.
pub(super) enum Plan {
    Import,
    /// It is in force.
    Unchanged,
}

/// Where a list comes from.
pub(super) struct From {
    /// Which file.
    pub(super) file: Option<String>,
    /// What was told of it before.
    pub(super) told: Option<String>,
}

impl From {
    /// The file, as it goes behind a text.
    pub(super) fn behind(&self) -> String {
        let file = self.file.as_ref();
        file.map(|file| format!(", from {file}"))
            .unwrap_or_default()
    }
}

/// Administrators whom a list locks out all the same.
pub(super) enum Out {
    /// Whoever imports it means it.
    Forced(LockedOut),
    /// Nobody could be asked.
    ByFile(AdminsOff),
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forced(out) => write!(f, "forced: {out}"),
            Self::ByFile(off) => {
                f.write_str("it switches off the administrators' CA ")?;
                write_list(f, &off.sns)?;
                f.write_str(match off.rest {
                    Rest::None => "; no administrator of the control topic is left",
                    Rest::Some => "; another one is left",
                })
            }
        }
    }
}

impl Inner {
    /// As [`or_refused`](Self::or_refused); the file is named, and what was told before is not
    /// told again.
    pub(super) async fn or_not_taken<T>(
        &self,
        record: &Record<'_>,
        from: &From,
        plan: Answer<T>,
    ) -> Answer<T> {
        let Err(error) = &plan else { return plan };
        let text = error.to_string();
        if from.told.as_deref() == Some(text.as_str()) {
            return plan;
        }
        let detail = text + &from.behind();
        tracing::info!(
            action = record.action,
            subject = record.subject,
            request.id = %record.caller.request_id,
            reason = error.name(),
            detail,
            "change refused"
        );
        let outcome = Outcome {
            detail: Some(detail),
            ..Outcome::error(error)
        };
        if let Err(error) = self.record(record, Phase::Refused, outcome).await {
            tracing::error!(%error, "a refused change could not be audited");
        }
        plan
    }

    /// Whom the list locks out although that is known.
    ///
    /// # Errors
    /// [`ControlError::LocksOut`], if that is to be refused.
    pub(super) fn locked_out_by_crl(
        &self,
        at: &Instance,
        caller: &Caller,
        crl: &Arc<Crl>,
        lockouts: Lockouts,
    ) -> Answer<Option<Out>> {
        let now = at.registry.revocations(crl.issuer());
        let more = now.denying_more(now.policy(), [Arc::clone(crl)]);
        let proposal = Proposal::Revocations(crl.issuer(), Arc::new(more));
        Ok(match caller.door {
            Door::System => at
                .registry
                .admins_off(&proposal, self.now())
                .map(Out::ByFile),
            Door::Http | Door::Mqtt | Door::Host => {
                let forced = self.guard(at, caller, &proposal, lockouts)?;
                forced.map(Out::Forced)
            }
        })
    }

    /// The CA that was named. The configuration may name one by its name.
    pub(super) fn named_ca(
        &self,
        caller: &Caller,
        at: &Instance,
        ca: Option<&str>,
    ) -> Answer<Option<Ca>> {
        let Some(text) = ca else {
            return Ok(None);
        };
        let by_name = || {
            let ledger = self.ledger();
            let mut named = ledger
                .cas()
                .filter(|ca| ca.record.instance == at.id && ca.record.name == text);
            match (named.next(), named.next()) {
                (Some(only), None) => Some(only.clone()),
                (_, Some(_)) | (None, None) => None,
            }
        };
        match (self.find_ca(at, text), caller.door) {
            (Ok(ca), _) => Ok(Some(ca)),
            // What is no serial number is a name, of a CA that is not registered yet.
            (Err(_), Door::System) => by_name()
                .map(Some)
                .ok_or_else(|| ControlError::CaNotFound(shown(text))),
            (Err(error), Door::Http | Door::Mqtt | Door::Host) => Err(error),
        }
    }

    /// Read and verify a list, one at a time, away from the threads that serve.
    pub(super) async fn read_crl(&self, at: &Instance, content: Bytes) -> Answer<(Crl, CrlDer)> {
        let most = self.settings.max_crl_octets;
        // Base64 makes it longer by a third, PEM by a little more.
        if content.len() > most.saturating_mul(3) / 2 {
            let octets = content.len();
            return Err(CrlRefusal::Crl(CrlError::TooLarge { octets, most }).into());
        }
        let (registry, entries) = (Arc::clone(&at.registry), self.settings.max_crl_entries);
        let _alone = self.reading.acquire().await;
        let read = tokio::task::spawn_blocking(move || {
            let der = to_der(&content)?;
            if der.len() > most {
                let octets = der.len();
                return Err(CrlError::TooLarge { octets, most });
            }
            let unverified = UnverifiedCrl::read(&der)?;
            let registered = registry.with_name(unverified.issuer());
            let crl = unverified.verify(&registered, algorithms(), entries)?;
            Ok((crl, CrlDer(Arc::from(&*der))))
        });
        match read.await {
            Ok(read) => read.map_err(|error| CrlRefusal::Crl(error).into()),
            Err(error) => Err(ControlError::Internal(format!(
                "reading the CRL panicked: {error}"
            ))),
        }
    }

    pub(super) fn plan_import(&self, at: &Instance, ca: Option<&Ca>, crl: &Crl) -> Answer<Plan> {
        let (now, issuer) = (self.now(), || crl.issuer_text().to_owned());
        if ca.is_some_and(|ca| ca.certificate.key_id() != crl.issuer()) {
            return Err(CrlRefusal::OtherIssuer { issuer: issuer() }.into());
        }
        if !at.registry.has_authority(crl.issuer()) {
            // Deleted since the signature was checked.
            return Err(CrlRefusal::Crl(CrlError::NotSigned { issuer: issuer() }).into());
        }
        let ledger = self.ledger();
        let known = ledger.crl(&at.id, crl.id()).map(|kept| &kept.crl);
        if let Some(known) = known {
            if known.digest() == crl.digest() {
                return Ok(Plan::Unchanged);
            }
            if crl.number() <= known.number() {
                return Err(CrlRefusal::NumberGoesBack {
                    number: crl.number(),
                    known: known.number(),
                }
                .into());
            }
            if crl.this_update() < known.this_update() {
                let known = known.number();
                return Err(CrlRefusal::DateGoesBack { known }.into());
            }
        }
        if crl.this_update() > now.saturating_add(CLOCK_SKEW) {
            return Err(CrlRefusal::NotYet.into());
        }
        let demanded = ledger.crl_policy(&at.id, crl.issuer()) != CrlPolicy::Optional;
        if demanded && crl.has_expired(now) {
            return Err(CrlRefusal::Expired.into());
        }
        let most = self.settings.max_crls;
        if known.is_none() && ledger.crls_of(&at.id).count() >= most {
            return Err(CrlRefusal::TooMany(most).into());
        }
        let others: usize = ledger
            .crls_of(&at.id)
            .filter(|kept| kept.record.id != crl.id())
            .map(|kept| kept.crl.revoked().len())
            .sum();
        let most = self.settings.max_crl_entries;
        if others.saturating_add(crl.revoked().len()) > most {
            return Err(CrlRefusal::TooManyEntries(most).into());
        }
        Ok(Plan::Import)
    }
}

/// How far ahead of ours a CA's clock may be, in seconds.
const CLOCK_SKEW: i64 = 300;

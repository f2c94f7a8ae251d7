//! The operations on lists of revoked certificates.

mod keep;
mod plan;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::plan::{From, Out, Plan};
use crate::ca::crl::{Certificates, CrlNumber, CrlPolicy};
use crate::ca::id::{CaKeyId, CertSerial, CrlId, InstanceId};
use crate::control::ca::shown;
use crate::control::change::Toward;
use crate::control::ledger::KeptCrl;
use crate::control::lockout::Lockouts;
use crate::control::{
    Answer, Caller, Changed, Control, ControlError, Inner, Need, Page, PageRequest, Record,
};
use crate::store::{Change, CrlPolicyRecord, CrlRecord};

/// A list of revoked certificates as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlView {
    /// The instance in whose gate it is.
    pub instance: InstanceId,
    /// The list, the same for all of its issues.
    pub id: CrlId,
    /// Serial number of a registered certificate of the CA that signed it, if there is one.
    pub ca_sn: Option<CertSerial>,
    /// That CA's name, for people to read.
    pub issuer: String,
    /// Which issue it is.
    pub number: CrlNumber,
    /// When it was issued, Unix seconds.
    pub this_update: i64,
    /// When it expires, Unix seconds.
    pub next_update: i64,
    /// Whether that is over.
    pub expired: bool,
    /// How many certificates are on it.
    pub entries: usize,
    /// Length of its DER in octets.
    pub octets: usize,
    /// Which kind of certificates it is for.
    pub certificates: Certificates,
    /// For which distribution points; none is all.
    pub points: Vec<String>,
    /// SHA-256 of its DER.
    pub digest: String,
    /// What is demanded of the lists of that CA.
    pub policy: CrlPolicy,
    /// When it was imported, Unix milliseconds.
    pub imported_at_ms: i64,
}

/// A list to import.
#[derive(Debug, Clone, Default)]
pub struct NewCrl {
    /// DER, PEM, or base64 of DER.
    pub content: Bytes,
    /// The CA whose list it must be, by serial number; for [`Door::System`](crate::control::Door::System) also by name.
    /// Without it, it is the list of whichever registered CA signed it.
    pub ca: Option<String>,
    /// The file it comes from, for the audit log.
    pub file: Option<PathBuf>,
    /// What was told of this content before: if it is refused in the same words, no record is left.
    pub told: Option<String>,
    /// What is done if administrators would be locked out. For
    /// [`Door::System`](crate::control::Door::System), where nobody can be asked, it is imported:
    /// not to do so would let in whom the CA has revoked.
    pub lockouts: Lockouts,
}

/// What a change of the lists did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlChanged {
    /// The list.
    pub crl: CrlView,
    /// `false` if it already was so.
    pub changed: bool,
    /// Live connections that were ended.
    pub sessions_ended: usize,
}

impl Control {
    /// Import a list. What it revokes is refused and cut when this returns `Ok`, and on disk.
    ///
    /// # Errors
    /// If the caller may not, or it is not taken; nothing was changed then.
    /// [`ControlError::NotDurable`] if what it revokes is denied, but a restart might forget it.
    /// [`ControlError::LocksOut`] if administrators would be locked out.
    pub async fn import_crl(
        &self,
        caller: &Caller,
        instance: &str,
        new: NewCrl,
    ) -> Answer<CrlChanged> {
        let (inner, caller, instance) = (Arc::clone(&self.0), caller.clone(), instance.to_owned());
        let NewCrl {
            content,
            ca,
            file,
            told,
            lockouts,
        } = new;
        let imported = self.detached(async move {
            let mut record = Record {
                caller: &caller,
                action: "ImportCrl",
                instance: Some(&instance),
                subject: format!("crl:{}", ca.as_deref().map(shown).unwrap_or_default()),
                before: None,
                after: None,
                note: None,
            };
            let file = file.map(|file| shown(&file.to_string_lossy()));
            let from = From { file, told };
            // Nobody makes the broker read a list who may not import one.
            let allowed = inner
                .authorize(&caller, &instance, Need::ImportCrl)
                .and_then(|at| Ok((at, inner.named_ca(&caller, at, ca.as_deref())?)));
            let (at, ca) = inner.or_not_taken(&record, &from, allowed).await?;
            let read = inner.read_crl(at, content).await;
            let (crl, der) = inner.or_not_taken(&record, &from, read).await?;
            let crl = Arc::new(crl);
            let plan = || {
                let plan = inner.plan_import(at, ca.as_ref(), &crl)?;
                let out = match plan {
                    Plan::Import => inner.locked_out_by_crl(at, &caller, &crl, lockouts)?,
                    Plan::Unchanged => None,
                };
                Ok((plan, out))
            };
            if let (Plan::Import, _) = inner.or_not_taken(&record, &from, plan()).await? {
                // Other changes need not wait for the disk to take all of it.
                let prepare = inner.store.prepare_crl(crl.digest(), der.clone());
                // A large one takes its time on a disk that is well.
                let size = Duration::from_secs(der.0.len() as u64 >> 20);
                let prepared = tokio::time::timeout(inner.store_limit + size, prepare).await;
                // What it revokes is denied in memory first; the commit tries again.
                match prepared {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "a CRL could not be written ahead of its commit");
                    }
                    Err(_) => tracing::warn!("a CRL takes long to be written; it is not waited for"),
                }
            }

            let mut turn = inner.turn.lock().await;
            let plan = inner
                .authorize(&caller, &instance, Need::ImportCrl)
                .and_then(|_| plan());
            let (plan, out) = inner.or_not_taken(&record, &from, plan).await?;
            let kept = KeptCrl {
                record: CrlRecord {
                    instance: at.id.clone(),
                    id: crl.id(),
                    issuer: crl.issuer(),
                    digest: crl.digest(),
                    imported_at_ms: inner.now_ms(),
                },
                crl: Arc::clone(&crl),
            };
            let issuer = crl.issuer();
            let view = inner.view_crl(&kept);
            if let Plan::Unchanged = plan {
                // What is owed to the disk is paid first, so that the answer is true.
                inner
                    .commit(&mut turn, Vec::new(), Toward::Deny)
                    .await
                    .map_err(|error| ControlError::NotDurable(error.to_string()))?;
                let sessions_ended = inner.settle_crls(&turn.owed);
                let known = inner.ledger().crl(&at.id, crl.id()).cloned();
                return Ok(CrlChanged {
                    crl: known.map_or(view, |known| inner.view_crl(&known)),
                    changed: false,
                    sessions_ended,
                });
            }
            record.subject = subject(&view);
            let mut note = format!("CRL {} of {}", view.number, view.issuer);
            note += &format!(", {} entries{}", view.entries, from.behind());
            note += &out.as_ref().map(|out| format!("; {out}")).unwrap_or_default();
            record.note = Some(note);
            let changes = vec![Change::PutCrl {
                record: kept.record.clone(),
                der,
            }];
            let registry = Arc::clone(&at.registry);
            // What it revokes goes into memory first; what the one before it revoked, and it does
            // not, is let in when it is on disk.
            let carried_out = inner
                .carry_out(&mut turn, &record, at, Toward::Deny, changes, |inner| {
                    let now = registry.revocations(issuer);
                    let more = now.denying_more(now.policy(), [crl]);
                    inner.ledger_mut().put_crl(kept);
                    registry.set_revocations(issuer, more)
                })
                .await;
            // Also if it is on disk and only the audit log failed.
            let ended_by_it_alone = inner.settle_crls(&turn.owed);
            if let Some(out @ Out::ByFile(_)) = &out {
                tracing::error!(instance = %at.id, detail = %out, crl.number = %view.number, file = from.file, "a CRL from a file has locked administrators out");
            }
            Ok(CrlChanged {
                crl: view,
                changed: true,
                sessions_ended: carried_out? + ended_by_it_alone,
            })
        });
        let imported = imported.await;
        let outcome = match &imported {
            Ok(it) if it.changed => "imported",
            Ok(_) => "unchanged",
            Err(ControlError::NotDurable(_) | ControlError::Internal(_)) => "failed",
            Err(_) => "refused",
        };
        metrics::counter!("portcullis_crl_imports_total", "outcome" => outcome).increment(1);
        imported
    }

    /// The lists of the instance; only those of one CA if `ca_sn` is given.
    ///
    /// # Errors
    /// If the caller may not, or there is no such CA.
    pub async fn list_crls(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: Option<&str>,
        page: PageRequest,
    ) -> Answer<Page<CrlView>> {
        let at = self.0.authorize(caller, instance, Need::ListCrls)?;
        let ca = ca_sn.map(|sn| self.0.find_ca(at, sn)).transpose()?;
        let wanted = |kept: &&KeptCrl| {
            let issuer = ca.as_ref().map(|ca| ca.certificate.key_id());
            issuer.is_none_or(|issuer| kept.record.issuer == issuer)
        };
        let (kept, total): (Vec<KeptCrl>, usize) = {
            let ledger = self.0.ledger();
            let all = || ledger.crls_of(&at.id).filter(wanted);
            let page = all().skip(page.offset()).take(page.size).cloned().collect();
            (page, all().count())
        };
        Ok(Page {
            items: kept.iter().map(|kept| self.0.view_crl(kept)).collect(),
            total,
        })
    }

    /// Delete a list. What only it revoked is let in again, and its number is forgotten.
    ///
    /// # Errors
    /// If the caller may not, there is none, or it cannot be made durable.
    pub async fn delete_crl(
        &self,
        caller: &Caller,
        instance: &str,
        id: &str,
    ) -> Answer<CrlChanged> {
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let (instance, id) = (instance.to_owned(), id.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let mut record = Record {
                caller: &caller,
                action: "DeleteCrl",
                instance: Some(&instance),
                subject: format!("crl:{}", shown(&id)),
                before: None,
                after: None,
                note: None,
            };
            let plan = inner
                .authorize(&caller, &instance, Need::DeleteCrl)
                .and_then(|at| {
                    let found = id.parse().ok();
                    let found = found.and_then(|id| inner.ledger().crl(&at.id, id).cloned());
                    let kept = found.ok_or_else(|| ControlError::CrlNotFound(shown(&id)))?;
                    Ok((at, kept))
                });
            let (at, kept) = inner.or_refused(&record, plan).await?;
            let view = inner.view_crl(&kept);
            record.subject = subject(&view);
            record.note = Some(format!("CRL {} of {}", view.number, view.issuer));
            let changes = vec![Change::DeleteCrl {
                instance: at.id.clone(),
                id: kept.record.id,
            }];
            let registry = Arc::clone(&at.registry);
            let sessions_ended = inner
                .carry_out(&mut turn, &record, at, Toward::Allow, changes, |inner| {
                    inner.ledger_mut().remove_crl(&at.id, kept.record.id);
                    let effects = inner.settle(&inner.ledger(), &at.id, kept.record.issuer);
                    // Where a list is demanded, this denies.
                    registry.barrier();
                    effects
                })
                .await?;
            Ok(CrlChanged {
                crl: view,
                changed: true,
                sessions_ended,
            })
        })
        .await
    }

    /// Say what is demanded of the lists of a CA, however many certificates it has.
    ///
    /// # Errors
    /// As [`set_ca_status`](Self::set_ca_status).
    pub async fn set_crl_policy(
        &self,
        caller: &Caller,
        instance: &str,
        ca_sn: &str,
        policy: CrlPolicy,
    ) -> Answer<Changed> {
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let (instance, ca_sn) = (instance.to_owned(), ca_sn.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let mut record = Record {
                caller: &caller,
                action: "SetCrlPolicy",
                instance: Some(&instance),
                subject: format!("ca:{}", shown(&ca_sn)),
                before: None,
                after: Some(policy.word()),
                note: None,
            };
            let plan = inner
                .authorize(&caller, &instance, Need::SetCrlPolicy)
                .and_then(|at| Ok((at, inner.find_ca(at, &ca_sn)?)));
            let (at, ca) = inner.or_refused(&record, plan).await?;
            let sn = ca.certificate.serial().clone();
            let issuer = ca.certificate.key_id();
            let before = inner.ledger().crl_policy(&at.id, issuer);
            record.subject = format!("ca:{sn}");
            record.before = Some(before.word());
            let kept = CrlPolicyRecord {
                instance: at.id.clone(),
                issuer,
                policy,
            };
            let changed = before != policy;
            let changes = match changed {
                true => vec![Change::PutCrlPolicy(kept.clone())],
                false => Vec::new(),
            };
            // The stricter one is the smaller one.
            let toward = match policy <= before {
                true => Toward::Deny,
                false => Toward::Allow,
            };
            let registry = Arc::clone(&at.registry);
            let sessions_ended = inner
                .carry_out(&mut turn, &record, at, toward, changes, |inner| {
                    inner.ledger_mut().set_crl_policy(kept);
                    match toward {
                        Toward::Deny => {
                            let more = registry.revocations(issuer).denying_more(policy, None);
                            registry.set_revocations(issuer, more)
                        }
                        Toward::Allow => inner.settle(&inner.ledger(), &at.id, issuer),
                    }
                })
                .await?;
            Ok(Changed {
                sn,
                changed,
                sessions_ended,
            })
        })
        .await
    }
}

impl Control {
    /// A number that goes up whenever a CA of the instance is registered or deleted.
    pub fn ca_changes(&self, instance: &InstanceId) -> u64 {
        self.0.ledger().ca_changes(instance)
    }
}

impl Inner {
    fn view_crl(&self, kept: &KeptCrl) -> CrlView {
        let (record, crl) = (&kept.record, &kept.crl);
        CrlView {
            instance: record.instance.clone(),
            id: record.id,
            ca_sn: self.sn_of(&record.instance, record.issuer),
            issuer: crl.issuer_text().to_owned(),
            number: crl.number(),
            this_update: crl.this_update(),
            next_update: crl.next_update(),
            expired: crl.has_expired(self.now()),
            entries: crl.revoked().len(),
            octets: crl.octets(),
            certificates: crl.partition().certificates(),
            points: crl.partition().points().map(str::to_owned).collect(),
            digest: crl.digest().to_string(),
            policy: self.ledger().crl_policy(&record.instance, record.issuer),
            imported_at_ms: record.imported_at_ms,
        }
    }

    fn sn_of(&self, instance: &InstanceId, issuer: CaKeyId) -> Option<CertSerial> {
        let ledger = self.ledger();
        let id = ledger.ca_of(instance, issuer)?;
        Some(ledger.ca(id)?.certificate.serial().clone())
    }
}

/// What the audit log says a change of a list is about.
fn subject(crl: &CrlView) -> String {
    let ca = crl.ca_sn.as_ref().map(ToString::to_string);
    format!("crl:{}/{}", ca.unwrap_or_default(), crl.number)
}

//! Lists of revoked certificates between the store, the records and the gate.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::ca::crl::{Crl, CrlPolicy, UnverifiedCrl};
use crate::ca::id::{CaKeyId, InstanceId};
use crate::ca::registry::Effects;
use crate::control::ledger::{KeptCrl, Ledger};
use crate::control::{Inner, OnInactivate};
use crate::store::{
    Change, CrlDer, CrlPolicyRecord, CrlRecord, Snapshot, StoreError, each_device_is_there_once,
};

impl Inner {
    /// All records, with the lists as read.
    ///
    /// # Errors
    /// If a record or a list cannot be read.
    pub(crate) async fn read_store(&self) -> Result<(Snapshot, Vec<KeptCrl>), StoreError> {
        let snapshot = self.store.snapshot().await?;
        each_device_is_there_once(&snapshot.devices)?;
        let crls = self.read_new_crls(&snapshot).await?;
        Ok((snapshot, crls))
    }

    /// The lists of the snapshot; those that are not in force already are read.
    ///
    /// # Errors
    /// If one is not there, or is none.
    pub(crate) async fn read_new_crls(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Vec<KeptCrl>, StoreError> {
        let mut crls = Vec::with_capacity(snapshot.crls.len());
        for record in &snapshot.crls {
            let known = self.ledger().crl(&record.instance, record.id).cloned();
            let known = known.filter(|kept| kept.record.digest == record.digest);
            let crl = match known {
                Some(kept) => kept.crl,
                None => {
                    let der = self.store.crl(record.digest).await?;
                    Arc::new(read(record.clone(), der).await?)
                }
            };
            crls.push(KeptCrl {
                record: record.clone(),
                crl,
            });
        }
        Ok(crls)
    }

    /// Put into force what these lists and policies deny, and nothing that they allow.
    pub(crate) fn deny_by_crls(&self, crls: &[KeptCrl], policies: &[CrlPolicyRecord]) {
        for kept in crls {
            let denied = (&kept.record.instance, kept.record.issuer);
            self.deny_more(denied, CrlPolicy::Optional, Some(&kept.crl));
        }
        for record in policies {
            self.deny_more((&record.instance, record.issuer), record.policy, None);
        }
        for at in self.instances.values() {
            at.registry.barrier();
        }
    }

    fn deny_more(
        &self,
        (instance, issuer): (&InstanceId, CaKeyId),
        policy: CrlPolicy,
        crl: Option<&Arc<Crl>>,
    ) {
        let Some(at) = self.instances.get(instance) else {
            tracing::error!(%instance, "a CRL of an unknown instance is left out");
            return;
        };
        let more = at
            .registry
            .revocations(issuer)
            .denying_more(policy, crl.cloned());
        at.registry.set_revocations(issuer, more);
    }

    /// Make these the lists and policies in force, in place of all others.
    pub(crate) fn take_over_crls(
        &self,
        ledger: &mut Ledger,
        crls: Vec<KeptCrl>,
        policies: Vec<CrlPolicyRecord>,
    ) {
        let mut issuers: BTreeSet<_> = ledger.crl_issuers();
        let before: HashMap<_, _> = issuers.iter().map(|it| (it, shape(ledger, it))).collect();
        let mut after = Ledger::default();
        after.set_crls(crls, policies);
        let changed: BTreeSet<_> = after
            .crl_issuers()
            .into_iter()
            .chain(issuers.iter().cloned())
            .filter(|it| before.get(it) != Some(&shape(&after, it)))
            .collect();
        ledger.take_crls(after);
        issuers.extend(ledger.crl_issuers());
        for (instance, issuer) in &issuers {
            let Some(at) = self.instances.get(instance) else {
                continue;
            };
            let settled = at.registry.revocations(*issuer).is_settled();
            if settled && !changed.contains(&(instance.clone(), *issuer)) {
                continue;
            }
            let effects = self.settle(ledger, instance, *issuer);
            at.registry.barrier();
            self.end_denied(at, &effects);
        }
    }

    /// Put into force what is recorded of the lists of this issuer. Only when it is on disk.
    pub(crate) fn settle(
        &self,
        ledger: &Ledger,
        instance: &InstanceId,
        issuer: CaKeyId,
    ) -> Effects {
        match self.instances.get(instance) {
            Some(at) => {
                let revocations = ledger.revocations(instance, issuer);
                at.registry.set_revocations(issuer, revocations)
            }
            None => Effects::default(),
        }
    }

    /// The same for all lists that were on their way to the disk, but for issuers with one among
    /// these changes: that one has not arrived. Gives the number of connections that were ended: a
    /// list that has expired meanwhile vouches for nobody, and the one before it is gone.
    pub(crate) fn settle_crls(&self, held: &[Change]) -> usize {
        let is_held = |instance: &InstanceId, issuer: CaKeyId| {
            held.iter().any(|change| {
                matches!(change, Change::PutCrl { record, .. }
                    if record.instance == *instance && record.issuer == issuer)
            })
        };
        let issuers = self.ledger().crl_issuers();
        let mut ended = 0;
        for (instance, issuer) in issuers {
            let Some(at) = self.instances.get(&instance) else {
                continue;
            };
            if !is_held(&instance, issuer) && !at.registry.revocations(issuer).is_settled() {
                let effects = self.settle(&self.ledger(), &instance, issuer);
                at.registry.barrier();
                ended += self.end_denied(at, &effects);
            }
        }
        ended
    }

    /// End the connections whose issuers have no list in date any more, if one is demanded, and
    /// tell which lists have expired.
    pub(crate) fn follow_crls(&self, now: i64) {
        for at in self.instances.values() {
            let denied = at.registry.lists_expired(now);
            if denied.is_empty() {
                continue;
            }
            let effects = Effects {
                denied,
                ..Effects::default()
            };
            let ended = self.end_denied(at, &effects);
            match at.on_inactivate {
                OnInactivate::Cut => {
                    tracing::error!(instance = %at.id, sessions = ended, "CRLs that are demanded have expired; devices they covered are refused, and their connections end");
                }
                OnInactivate::Keep => {
                    tracing::error!(instance = %at.id, "CRLs that are demanded have expired; devices they covered are refused, but their connections go on");
                }
            }
        }
        let ledger = self.ledger();
        let (mut lists, mut entries, mut expired) = (0_u32, 0_u32, 0_u32);
        for kept in ledger.crls() {
            lists = lists.saturating_add(1);
            let count = u32::try_from(kept.crl.revoked().len()).unwrap_or(u32::MAX);
            entries = entries.saturating_add(count);
            expired = expired.saturating_add(u32::from(kept.crl.has_expired(now)));
        }
        metrics::gauge!("portcullis_crls").set(f64::from(lists));
        metrics::gauge!("portcullis_crl_entries").set(f64::from(entries));
        metrics::gauge!("portcullis_crls_expired").set(f64::from(expired));
    }
}

/// What two states of an issuer's lists are told apart by.
fn shape(
    ledger: &Ledger,
    (instance, issuer): &(InstanceId, CaKeyId),
) -> (CrlPolicy, Vec<crate::ca::id::CrlDigest>) {
    let revocations = ledger.revocations(instance, *issuer);
    let digests = revocations.lists().iter().map(|crl| crl.digest());
    (revocations.policy(), digests.collect())
}

/// Read a list that was verified before it was kept.
async fn read(record: CrlRecord, der: CrlDer) -> Result<Crl, StoreError> {
    let corrupt = |what: String| StoreError::Corrupt {
        table: "crl",
        row: format!("id {}", record.id),
        what,
    };
    let (id, issuer) = (record.id, record.issuer);
    let read = tokio::task::spawn_blocking(move || {
        UnverifiedCrl::read(&der.0).and_then(|crl| crl.verified_before(issuer))
    });
    let crl = read
        .await
        .map_err(|error| corrupt(format!("reading it failed: {error}")))?
        .map_err(|error| corrupt(format!("the list is not taken: {error}")))?;
    match crl.id() == id {
        true => Ok(crl),
        false => Err(corrupt("id is not that of the list".to_owned())),
    }
}

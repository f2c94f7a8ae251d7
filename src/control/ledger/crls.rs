//! The lists of revoked certificates among the records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Ledger;
use crate::ca::crl::{Crl, CrlPolicy, Revocations};
use crate::ca::id::{CaKeyId, CrlId, InstanceId};
use crate::store::{CrlPolicyRecord, CrlRecord};

/// A list: what the store keeps of it, and the list as read.
#[derive(Debug, Clone)]
pub(crate) struct KeptCrl {
    pub(crate) record: CrlRecord,
    pub(crate) crl: Arc<Crl>,
}

/// The lists of all instances, and what is demanded of them.
#[derive(Debug, Default)]
pub(super) struct Crls {
    lists: BTreeMap<(InstanceId, CrlId), KeptCrl>,
    policies: HashMap<(InstanceId, CaKeyId), CrlPolicy>,
}

impl Ledger {
    pub(crate) fn put_crl(&mut self, kept: KeptCrl) {
        let place = (kept.record.instance.clone(), kept.record.id);
        self.crls.lists.insert(place, kept);
    }

    pub(crate) fn remove_crl(&mut self, instance: &InstanceId, id: CrlId) {
        self.crls.lists.remove(&(instance.clone(), id));
    }

    /// Replace all lists and policies.
    pub(crate) fn set_crls(&mut self, lists: Vec<KeptCrl>, policies: Vec<CrlPolicyRecord>) {
        self.crls = Crls::default();
        for kept in lists {
            self.put_crl(kept);
        }
        for policy in policies {
            self.set_crl_policy(policy);
        }
    }

    /// Take the lists and policies of another ledger, in place of all of one's own.
    pub(crate) fn take_crls(&mut self, other: Self) {
        self.crls = other.crls;
    }

    pub(crate) fn set_crl_policy(&mut self, record: CrlPolicyRecord) {
        let place = (record.instance, record.issuer);
        match record.policy {
            // What holds without a record.
            CrlPolicy::Optional => self.crls.policies.remove(&place),
            policy => self.crls.policies.insert(place, policy),
        };
    }

    pub(crate) fn crl_policy(&self, instance: &InstanceId, issuer: CaKeyId) -> CrlPolicy {
        let place = (instance.clone(), issuer);
        self.crls.policies.get(&place).copied().unwrap_or_default()
    }

    pub(crate) fn crl(&self, instance: &InstanceId, id: CrlId) -> Option<&KeptCrl> {
        self.crls.lists.get(&(instance.clone(), id))
    }

    pub(crate) fn crls(&self) -> impl Iterator<Item = &KeptCrl> {
        self.crls.lists.values()
    }

    /// Those of an instance, in the order of their ids.
    pub(crate) fn crls_of(&self, instance: &InstanceId) -> impl Iterator<Item = &KeptCrl> {
        let first = (instance.clone(), CrlId::from_bytes([0; 32]));
        let last = (instance.clone(), CrlId::from_bytes([0xff; 32]));
        self.crls.lists.range(first..=last).map(|(_, kept)| kept)
    }

    /// What the gate is to know of the lists of an issuer.
    pub(crate) fn revocations(&self, instance: &InstanceId, issuer: CaKeyId) -> Revocations {
        let lists = self
            .crls_of(instance)
            .filter(|kept| kept.record.issuer == issuer)
            .map(|kept| Arc::clone(&kept.crl));
        Revocations::new(self.crl_policy(instance, issuer), lists.collect())
    }

    /// Every issuer of which there is a list or a policy.
    pub(crate) fn crl_issuers(&self) -> BTreeSet<(InstanceId, CaKeyId)> {
        let of_lists = self.crls().map(|kept| &kept.record);
        of_lists
            .map(|record| (record.instance.clone(), record.issuer))
            .chain(self.crls.policies.keys().cloned())
            .collect()
    }
}

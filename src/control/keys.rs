//! The operations on access keys. They are for administrators on the host, and for nobody else:
//! a key that could make keys would be as good as all of them.

use std::sync::Arc;

use crate::ca::id::{AccessKeyId, AccountId};
use crate::ca::lifecycle::Status;
use crate::control::access_key::{AccessKey, AccessKeys, KeyOrigin};
use crate::control::ca::{shown, word};
use crate::control::change::Toward;
use crate::control::grant::KeyGrant;
use crate::control::policy::{Policy, PolicyError};
use crate::control::seal::{self, EncryptionKey, SealError};
use crate::control::{
    Answer, Caller, Control, ControlError, Door, Inner, Page, PageRequest, Record,
};
use crate::secret::Secret;
use crate::store::{AccessKeyRecord, Change};

/// The access keys that a control begins with, and how it keeps those that are made later.
#[derive(Debug, Default)]
pub struct KeySettings {
    /// The keys of the configuration.
    pub configured: Vec<AccessKey>,
    /// Encrypts the secrets that are kept; without it they are kept as they are.
    pub encryption: Option<EncryptionKey>,
}

/// Why a kept access key cannot be put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Its secret.
    #[error(transparent)]
    Secret(#[from] SealError),
    /// Its policy.
    #[error("its policy cannot be read: {0}")]
    Policy(#[from] PolicyError),
    /// The configuration has a key of this id.
    #[error("the configuration has a key of this id as well; take one of them away")]
    Twice,
}

/// An access key as it is shown: without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyView {
    /// Public half.
    pub id: AccessKeyId,
    /// The account it belongs to.
    pub account: AccountId,
    /// Inactive: its requests are refused.
    pub status: Status,
    /// Its policy, as it was written; without one it may do everything on its account's instances.
    pub policy: Option<String>,
    /// Where it comes from.
    pub origin: KeyOrigin,
}

/// A key that was just made. Its secret is not shown again.
#[derive(Debug)]
pub struct CreatedKey {
    /// The key.
    pub key: KeyView,
    /// Secret half.
    pub secret: Secret,
    /// Whether an instance of this process belongs to its account; if not it can do nothing.
    pub owns_an_instance: bool,
}

/// What may be changed of an access key.
#[derive(Debug, Clone)]
pub enum KeyChange {
    /// Whether its requests are taken.
    Status(Status),
    /// What it may do; `None` is everything on its account's instances.
    Policy(Option<Policy>),
}

impl From<&AccessKey> for KeyView {
    fn from(key: &AccessKey) -> Self {
        Self {
            id: key.id.clone(),
            account: key.account.clone(),
            status: key.status,
            policy: key.grant.policy().map(|policy| policy.as_json().to_owned()),
            origin: key.origin.clone(),
        }
    }
}

impl Control {
    /// The access keys in force.
    pub fn access_keys(&self) -> Arc<AccessKeys> {
        Arc::clone(&self.0.keys)
    }

    /// Make an access key with a random id and secret.
    ///
    /// # Errors
    /// If the caller may not, there are too many keys, or it cannot be made durable.
    pub async fn create_key(
        &self,
        caller: &Caller,
        account: AccountId,
        comment: &str,
        policy: Option<Policy>,
    ) -> Answer<CreatedKey> {
        let (inner, caller, comment) = (Arc::clone(&self.0), caller.clone(), comment.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let mut record = Record {
                caller: &caller,
                action: "CreateAccessKey",
                instance: None,
                subject: String::new(),
                before: None,
                after: Some(word(Status::Active)),
                note: Some(told(&account, policy.as_ref())),
            };
            let plan = inner.plan_key(&caller, account, comment, policy);
            let (kept, key) = inner.or_refused(&record, plan).await?;
            record.subject = subject(&kept.id);
            let created = CreatedKey {
                key: KeyView::from(&key),
                secret: key.secret.clone(),
                owns_an_instance: inner.instances.values().any(|it| it.account == key.account),
            };
            let changes = vec![Change::PutAccessKey(kept.clone())];
            let account = &created.key.account;
            inner
                .carry_out_on_keys(
                    &mut turn,
                    &record,
                    account,
                    Toward::Allow,
                    changes,
                    |inner| {
                        inner.ledger_mut().put_key(kept);
                        inner.keys.insert(key);
                    },
                )
                .await?;
            Ok(created)
        })
        .await
    }

    /// The access keys, by id.
    ///
    /// # Errors
    /// If the caller may not.
    pub async fn list_keys(&self, caller: &Caller, page: PageRequest) -> Answer<Page<KeyView>> {
        may_manage_keys(caller)?;
        let all = self.0.keys.all();
        let items = all.iter().skip(page.offset()).take(page.size);
        Ok(Page {
            items: items.map(|key| KeyView::from(&**key)).collect(),
            total: all.len(),
        })
    }

    /// Change an access key. When it returns, no call that was signed with the key and is still
    /// under way can do what the key may not any more.
    ///
    /// # Errors
    /// If the caller may not, there is no such key, it stands in the configuration, or the change
    /// cannot be made durable.
    pub async fn change_key(
        &self,
        caller: &Caller,
        id: &str,
        change: KeyChange,
    ) -> Answer<KeyView> {
        let (inner, caller, id) = (Arc::clone(&self.0), caller.clone(), id.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let (mut record, before) = inner.plan_on_key(&caller, "UpdateAccessKey", &id).await?;
            let kept = before.clone();
            let (kept, toward) = match change {
                KeyChange::Status(status) => {
                    let toward = match status {
                        Status::Inactive => Toward::Deny,
                        Status::Active => Toward::Allow,
                    };
                    (AccessKeyRecord { status, ..kept }, toward)
                }
                KeyChange::Policy(policy) => {
                    record.note = Some(told(&kept.account, policy.as_ref()));
                    let policy = policy.map(|policy| policy.as_json().to_owned());
                    // It may allow what the old one did not.
                    (AccessKeyRecord { policy, ..kept }, Toward::Allow)
                }
            };
            record.after = Some(word(kept.status));
            let key = inner
                .in_force(&kept)
                .map_err(|fault| ControlError::Internal(fault.to_string()))?;
            let view = KeyView::from(&key);
            // What changes nothing disturbs no call either. A denial owed to the disk is repeated.
            let changed = kept != before;
            let changes = match changed {
                true => vec![Change::PutAccessKey(kept.clone())],
                false => Vec::new(),
            };
            inner
                .carry_out_on_keys(
                    &mut turn,
                    &record,
                    &view.account,
                    toward,
                    changes,
                    |inner| {
                        if changed {
                            inner.ledger_mut().put_key(kept);
                            inner.keys.insert(key);
                        }
                    },
                )
                .await?;
            Ok(view)
        })
        .await
    }

    /// Delete an access key, with the promise of [`change_key`](Self::change_key).
    ///
    /// # Errors
    /// As [`change_key`](Self::change_key).
    pub async fn delete_key(&self, caller: &Caller, id: &str) -> Answer<AccessKeyId> {
        let (inner, caller, id) = (Arc::clone(&self.0), caller.clone(), id.to_owned());
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            let (record, kept) = inner.plan_on_key(&caller, "DeleteAccessKey", &id).await?;
            let AccessKeyRecord { id, account, .. } = kept;
            let changes = vec![Change::DeleteAccessKey(id.clone())];
            inner
                .carry_out_on_keys(
                    &mut turn,
                    &record,
                    &account,
                    Toward::Deny,
                    changes,
                    |inner| {
                        inner.ledger_mut().remove_key(&id);
                        inner.keys.remove(&id);
                    },
                )
                .await?;
            Ok(id)
        })
        .await
    }
}

impl Inner {
    fn plan_key(
        &self,
        caller: &Caller,
        account: AccountId,
        comment: String,
        policy: Option<Policy>,
    ) -> Answer<(AccessKeyRecord, AccessKey)> {
        may_manage_keys(caller)?;
        check_comment(&comment)?;
        if self.ledger().key_count() >= self.settings.max_access_keys {
            return Err(ControlError::TooManyKeys(self.settings.max_access_keys));
        }
        let id = format!("PC{}", random_hex::<10>()?.to_ascii_uppercase());
        let id: AccessKeyId = id
            .parse()
            .map_err(|error| ControlError::Internal(format!("a key id: {error}")))?;
        let secret = Secret::new(random_hex::<24>()?);
        let failed = |error: SealError| ControlError::Internal(error.to_string());
        let kept = AccessKeyRecord {
            secret: seal::seal(self.encryption.as_ref(), &id, &secret).map_err(failed)?,
            id,
            account,
            comment,
            status: Status::Active,
            policy: policy.map(|policy| policy.as_json().to_owned()),
            created_at_ms: self.now_ms(),
        };
        let key = self
            .in_force(&kept)
            .map_err(|fault| ControlError::Internal(fault.to_string()))?;
        Ok((kept, key))
    }

    /// A kept key as it is in force.
    pub(crate) fn in_force(&self, kept: &AccessKeyRecord) -> Result<AccessKey, KeyFault> {
        if self
            .keys
            .get(&kept.id)
            .is_some_and(|key| key.origin == KeyOrigin::Configuration)
        {
            return Err(KeyFault::Twice);
        }
        let policy = kept.policy.as_deref().map(Policy::from_json).transpose()?;
        Ok(AccessKey {
            id: kept.id.clone(),
            secret: seal::open(self.encryption.as_ref(), &kept.id, &kept.secret)?,
            account: kept.account.clone(),
            grant: Arc::new(KeyGrant::new(policy)),
            status: kept.status,
            origin: KeyOrigin::Registry {
                comment: kept.comment.clone(),
                created_at_ms: kept.created_at_ms,
            },
        })
    }

    /// The key that a change is about, and what is recorded of the change; a refusal is recorded.
    async fn plan_on_key<'a>(
        &self,
        caller: &'a Caller,
        action: &'static str,
        id: &str,
    ) -> Answer<(Record<'a>, AccessKeyRecord)> {
        let found = may_manage_keys(caller).and_then(|()| self.find_key(id));
        let mut record = Record {
            caller,
            action,
            instance: None,
            subject: format!("access_key:{}", shown(id)),
            before: found.as_ref().ok().map(|kept| word(kept.status)),
            after: None,
            note: None,
        };
        let kept = self.or_refused(&record, found).await?;
        record.subject = subject(&kept.id);
        Ok((record, kept))
    }

    fn find_key(&self, id: &str) -> Answer<AccessKeyRecord> {
        let not_found = || ControlError::KeyNotFound(shown(id));
        let parsed: AccessKeyId = id.parse().map_err(|_| not_found())?;
        if let Some(kept) = self.ledger().key(&parsed) {
            return Ok(kept.clone());
        }
        match self.keys.get(&parsed) {
            Some(_) => Err(ControlError::KeyIsConfigured(parsed)),
            None => Err(not_found()),
        }
    }
}

fn may_manage_keys(caller: &Caller) -> Answer<()> {
    match caller.door {
        Door::Host | Door::System => Ok(()),
        Door::Http | Door::Mqtt => Err(ControlError::PermissionDenied(
            "access keys are managed on the broker's host only".to_owned(),
        )),
    }
}

fn check_comment(comment: &str) -> Answer<()> {
    if comment.chars().count() > 128 || comment.chars().any(char::is_control) {
        return Err(ControlError::Parameter(
            "Comment: it must have at most 128 characters, without control characters".to_owned(),
        ));
    }
    Ok(())
}

fn subject(id: &AccessKeyId) -> String {
    format!("access_key:{id}")
}

/// What the audit log says of what a key may do.
fn told(account: &AccountId, policy: Option<&Policy>) -> String {
    match policy {
        None => format!("everything on the instances of account {account}"),
        Some(policy) => format!("account {account}, policy {}", policy.as_json()),
    }
}

fn random_hex<const OCTETS: usize>() -> Answer<String> {
    let mut octets = zeroize::Zeroizing::new([0_u8; OCTETS]);
    aws_lc_rs::rand::fill(octets.as_mut_slice()).map_err(|_| {
        ControlError::Internal("the system's random number generator failed".to_owned())
    })?;
    Ok(hex::encode(octets.as_slice()))
}

//! The operations on access keys, for the host: parameters in, an answer out.
//!
//! Their names and fields follow the vendor's resource access management, where access keys are
//! made; `Account`, `Comment` and `Policy` are ours.

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::admin::errors::{ApiError, Code};
use crate::admin::operations::{Outcome, field, page, required};
use crate::admin::params::Params;
use crate::admin::signature::format_date;
use crate::ca::id::AccountId;
use crate::ca::lifecycle::Status;
use crate::control::access_key::KeyOrigin;
use crate::control::keys::{KeyChange, KeyView};
use crate::control::policy::Policy;
use crate::control::{Caller, Control};

/// `CreateAccessKey`: `Account` (by default the owner of `MqttInstanceId`), and if wanted `Comment`
/// and `Policy`.
pub(super) async fn create(control: &Control, caller: &Caller, params: &Params) -> Outcome {
    let account = match (params.get("Account"), params.get("MqttInstanceId")) {
        (Some(account), _) => account
            .parse()
            .map_err(|error| field(format!("Account: {error}.")))?,
        (None, Some(instance)) => owner(control, instance)?,
        (None, None) => return Err(field("Account is missing.".to_owned())),
    };
    let comment = params.get("Comment").unwrap_or_default();
    let policy = params.get("Policy").map(policy).transpose()?;
    let made = control.create_key(caller, account, comment, policy).await?;
    let mut key = shown(&made.key);
    if let Value::Object(fields) = &mut key {
        fields.insert("AccessKeySecret".to_owned(), json!(made.secret.reveal()));
        fields.insert("OwnsAnInstance".to_owned(), json!(made.owns_an_instance));
    }
    Ok(json!({ "AccessKey": key }))
}

/// `ListAccessKeys`: `PageNo` and `PageSize`.
pub(super) async fn list(control: &Control, caller: &Caller, params: &Params) -> Outcome {
    let request = page(params)?;
    let page = control.list_keys(caller, request).await?;
    let keys: Vec<_> = page.items.iter().map(shown).collect();
    Ok(json!({ "Data": {
        "AccessKeys": keys,
        "PageNo": request.number,
        "PageSize": request.size,
        "Total": page.total,
    }}))
}

/// `UpdateAccessKey`: `UserAccessKeyId`, and one of `Status` (`Active` or `Inactive`) and `Policy`;
/// an empty policy takes the policy away.
pub(super) async fn update(control: &Control, caller: &Caller, params: &Params) -> Outcome {
    let id = required(params, "UserAccessKeyId")?;
    let change = match (params.get("Status"), params.get("Policy")) {
        (Some("Active"), None) => KeyChange::Status(Status::Active),
        (Some("Inactive"), None) => KeyChange::Status(Status::Inactive),
        (Some(_), None) => return Err(field("Status must be Active or Inactive.".to_owned())),
        (None, Some("")) => KeyChange::Policy(None),
        (None, Some(text)) => KeyChange::Policy(Some(policy(text)?)),
        (None, None) | (Some(_), Some(_)) => {
            return Err(field("Give either Status or Policy.".to_owned()));
        }
    };
    let key = control.change_key(caller, id, change).await?;
    Ok(json!({ "AccessKey": shown(&key) }))
}

/// `DeleteAccessKey`: `UserAccessKeyId`.
pub(super) async fn delete(control: &Control, caller: &Caller, params: &Params) -> Outcome {
    let id = required(params, "UserAccessKeyId")?;
    let id = control.delete_key(caller, id).await?;
    Ok(json!({ "AccessKeyId": id }))
}

/// The account that the instance belongs to.
fn owner(control: &Control, instance: &str) -> Result<AccountId, ApiError> {
    let id = instance.parse().ok();
    let owner = id.and_then(|id| control.owner(&id));
    owner.ok_or_else(|| Code::MqttInstanceNotFound.into())
}

fn policy(text: &str) -> Result<Policy, ApiError> {
    Policy::from_json(text).map_err(|error| field(format!("Policy: {error}.")))
}

fn shown(key: &KeyView) -> Value {
    let (comment, created_at_ms) = match &key.origin {
        KeyOrigin::Configuration => ("configuration file", None),
        KeyOrigin::Registry {
            comment,
            created_at_ms,
        } => (comment.as_str(), Some(*created_at_ms)),
    };
    let created = created_at_ms
        .and_then(|ms| OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).ok())
        .map(format_date);
    json!({
        "AccessKeyId": key.id,
        "Account": key.account,
        "Status": match key.status {
            Status::Inactive => "Inactive",
            Status::Active => "Active",
        },
        "Policy": key.policy.as_deref().unwrap_or_default(),
        "Comment": comment,
        "CreateDate": created.unwrap_or_default(),
    })
}

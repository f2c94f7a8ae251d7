//! The operations on lists of revoked certificates, which are ours: their parameters and answers.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Outcome, field, lockouts, page, required};
use crate::admin::params::Params;
use crate::admin::types::milliseconds;
use crate::ca::certificate::with_line_ends;
use crate::ca::crl::{Certificates, CrlPolicy};
use crate::control::crl::{CrlChanged, CrlView, NewCrl};
use crate::control::{Caller, Control, Page, PageRequest};

/// Import a list.
pub(super) async fn import(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let new = NewCrl {
        content: Bytes::from(with_line_ends(required(params, "CrlContent")?).into_owned()),
        ca: params.get("CaSn").map(str::to_owned),
        lockouts: lockouts(params)?,
        ..NewCrl::default()
    };
    let changed = control.import_crl(caller, instance, new).await?;
    Ok(changed_crl(changed))
}

/// A page of the lists.
pub(super) async fn list(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let page = page(params)?;
    let ca_sn = params.get("CaSn");
    let listed = control.list_crls(caller, instance, ca_sn, page).await?;
    Ok(crls(listed, page))
}

/// Delete a list.
pub(super) async fn delete(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let id = required(params, "CrlId")?;
    Ok(changed_crl(control.delete_crl(caller, instance, id).await?))
}

/// Say what is demanded of the lists of a CA.
pub(super) async fn set_policy(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let sn = required(params, "Sn")?;
    let policy = CrlPolicy::find(required(params, "CrlPolicy")?)
        .ok_or_else(|| field("CrlPolicy must be required, in_date or optional.".to_owned()))?;
    let changed = control.set_crl_policy(caller, instance, sn, policy).await?;
    Ok(json!({
        "Sn": changed.sn.to_string(),
        "CrlPolicy": policy.word(),
        "Changed": changed.changed,
        "ConnectionsEnded": changed.sessions_ended,
    }))
}

/// A list. Times are strings, as the vendor has them; counts are numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Crl {
    crl_id: String,
    /// Of a registered certificate of the CA; empty if there is none.
    ca_sn: String,
    issuer: String,
    crl_number: String,
    this_update: String,
    next_update: String,
    expired: bool,
    entries: usize,
    octets: usize,
    certificates: &'static str,
    distribution_points: Vec<String>,
    sha256: String,
    crl_policy: &'static str,
    imported_at: String,
}

impl From<CrlView> for Crl {
    fn from(crl: CrlView) -> Self {
        Self {
            crl_id: crl.id.to_string(),
            ca_sn: crl.ca_sn.map(|sn| sn.to_string()).unwrap_or_default(),
            issuer: crl.issuer,
            crl_number: crl.number.to_string(),
            this_update: milliseconds(crl.this_update),
            next_update: milliseconds(crl.next_update),
            expired: crl.expired,
            entries: crl.entries,
            octets: crl.octets,
            certificates: match crl.certificates {
                Certificates::Devices => "devices",
                Certificates::Cas => "cas",
                Certificates::All => "all",
            },
            distribution_points: crl.points,
            sha256: crl.digest,
            crl_policy: crl.policy.word(),
            imported_at: crl.imported_at_ms.to_string(),
        }
    }
}

fn changed_crl(changed: CrlChanged) -> Value {
    json!({
        "Data": Crl::from(changed.crl),
        "Changed": changed.changed,
        "ConnectionsEnded": changed.sessions_ended,
    })
}

fn crls(listed: Page<CrlView>, request: PageRequest) -> Value {
    let items: Vec<Crl> = listed.items.into_iter().map(Crl::from).collect();
    json!({ "Data": {
        "CrlVOS": items,
        "PageNo": request.number,
        "PageSize": request.size,
        "Total": listed.total,
    }})
}

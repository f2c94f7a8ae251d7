//! The operations on scheduled changes, which are ours: their parameters and answers.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Outcome, back, field, lockouts, page, required};
use crate::admin::params::Params;
use crate::ca::lifecycle::Status;
use crate::control::schedule::{NewSchedule, ScheduleView};
use crate::control::{Back, Caller, Control};

/// Have a CA switched off or on at a time.
pub(super) async fn schedule(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let sn = required(params, "Sn")?;
    let status = match required(params, "Change")? {
        "Inactivate" => Status::Inactive,
        "Activate" => Status::Active,
        _ => return Err(field("Change must be Inactivate or Activate.".to_owned())),
    };
    let at_ms = required(params, "AtTime")?
        .parse()
        .map_err(|_| field("AtTime must be a time in milliseconds since 1970.".to_owned()))?;
    let new = NewSchedule {
        status,
        at_ms,
        back: match status {
            Status::Inactive => back(params)?,
            Status::Active => Back::Never,
        },
        lockouts: lockouts(params)?,
    };
    let scheduled = control.schedule_ca(caller, instance, sn, new).await?;
    let mut data = shown(&scheduled.change);
    if let (Some(end), Value::Object(fields)) = (&scheduled.end, &mut data) {
        fields.insert("Activation".to_owned(), shown(end));
    }
    Ok(json!({ "Data": data }))
}

/// A page of the scheduled changes.
pub(super) async fn list(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let page = page(params)?;
    let listed = control.list_schedules(caller, instance, page).await?;
    let all: Vec<_> = listed.items.iter().map(shown).collect();
    Ok(json!({
        "Data": {
            "ScheduleVOS": all,
            "Total": listed.total,
            "PageNo": page.number.to_string(),
            "PageSize": page.size.to_string(),
        }
    }))
}

/// Cancel a scheduled change.
pub(super) async fn cancel(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let id = required(params, "ScheduleId")?;
    let cancelled = control.cancel_schedule(caller, instance, id).await?;
    Ok(json!({ "Data": shown(&cancelled) }))
}

/// A scheduled change. Times are strings in milliseconds, as elsewhere.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    schedule_id: String,
    ca_sn: String,
    ca_name: String,
    change: &'static str,
    at_time: String,
    scheduled_by: String,
    create_time: String,
    /// The scheduled inactivation that it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<String>,
}

/// A scheduled change as answers show it.
pub(super) fn shown(schedule: &ScheduleView) -> Value {
    let shown = Shown {
        schedule_id: schedule.id.to_string(),
        ca_sn: schedule.ca_sn.to_string(),
        ca_name: schedule.ca_name.clone(),
        change: match schedule.status {
            Status::Inactive => "Inactivate",
            Status::Active => "Activate",
        },
        at_time: schedule.at_ms.to_string(),
        scheduled_by: schedule.principal.clone(),
        create_time: schedule.created_at_ms.to_string(),
        ends: schedule.ends.map(|ends| ends.to_string()),
    };
    json!(shown)
}

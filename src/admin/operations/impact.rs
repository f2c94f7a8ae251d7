//! `PreviewCaCertificateChange` and `PreviewDeviceCertificateChange`, which are ours: operations of
//! their own, so that a broker that does not know them does nothing.

use serde::Serialize;
use serde_json::json;

use super::{Outcome, field, no_device, required};
use crate::admin::errors::ApiError;
use crate::admin::params::Params;
use crate::ca::lifecycle::Status;
use crate::ca::outlook::Shift;
use crate::ca::registry::Purpose;
use crate::ca::topology::SameKey;
use crate::control::impact::{
    CaImpact, CaLine, ClientLine, DeviceImpact, DeviceTally, Few, Intended, Other, Seen, Way,
};
use crate::control::lockout::LockedOut;
use crate::control::{Caller, Control, OnInactivate};

/// What a change of a CA would do.
pub(super) async fn of_ca(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let (sn, change) = (required(params, "Sn")?, intended(params)?);
    let impact = control
        .preview_ca_change(caller, instance, sn, change)
        .await?;
    Ok(json!({ "Data": ca(impact, control.began_ms()) }))
}

/// What a change of a device would do.
pub(super) async fn of_device(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let (ca_sn, sn) = (required(params, "CaSn")?, required(params, "DeviceSn")?);
    let impact = control
        .preview_device_change(caller, instance, ca_sn, sn, intended(params)?)
        .await
        .map_err(no_device)?;
    Ok(json!({ "Data": device(impact, control.began_ms()) }))
}

fn intended(params: &Params) -> Result<Intended, ApiError> {
    match required(params, "Change")? {
        "Inactivate" => Ok(Intended::Inactivate),
        "Delete" => Ok(Intended::Delete),
        _ => Err(field("Change must be Inactivate or Delete.".to_owned())),
    }
}

/// Of a CA. Serial numbers, states and times are strings, as elsewhere; counts are numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ca {
    change: &'static str,
    #[serde(flatten)]
    ca: Line,
    /// `cut` or `keep`: what becomes of connections whose trust ends.
    on_inactivate: &'static str,
    /// Connections whose trust would end.
    connections: usize,
    /// Connections whose trust has ended, which are ending over a time and would end at once.
    connections_ending: usize,
    /// Those that would be ended for it: all of both, or none.
    connections_ended: usize,
    /// The first of them; absent if the caller may not see sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<Vec<Client>>,
    /// Devices recorded under the CAs that would admit nobody any more.
    devices_refused: Tally,
    /// `deny` or `allow_active`.
    same_key_policy: &'static str,
    same_key: Listed<Line>,
    below: Listed<Line>,
    above: Listed<Line>,
    still_admitted_by: Listed<Still>,
    let_in_again: Listed<Line>,
    /// `caller`, `administrators` or empty.
    locked_out: &'static str,
    locked_out_detail: String,
}

/// Of a device.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Device {
    change: &'static str,
    ca_sn: String,
    device_sn: String,
    device_name: String,
    status: &'static str,
    on_inactivate: &'static str,
    connections: usize,
    connections_ended: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<Vec<Client>>,
    connected: bool,
    /// When it was last connected; empty if it was not since `SeenSince`, or is now.
    last_seen: String,
    seen_since: String,
}

/// A CA certificate that the change concerns.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    sn: String,
    ca_name: String,
    /// Whether it is an administrators' CA.
    administrators: bool,
    status: &'static str,
    effective_status: &'static str,
    /// Why it admits nobody now; empty if it does.
    effective_reason: String,
    /// `off`, `on` or `stays`.
    becomes: &'static str,
    /// Why it would admit nobody after the change.
    becomes_reason: String,
    devices: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Client {
    /// Empty before CONNECT, and so is the address.
    client_id: String,
    peer_address: String,
    ca_sn: String,
    device_sn: String,
    device_name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tally {
    recorded: usize,
    /// Of them, those that are inactive themselves.
    inactive: usize,
    connected: usize,
    /// Of those that are not connected: when they were last.
    seen_within_day: usize,
    seen_within_week: usize,
    seen_earlier: usize,
    not_seen: usize,
    last_seen: String,
    /// Since when that is noted: the start of the broker.
    seen_since: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Still {
    sn: String,
    ca_name: String,
    /// `same_key`, `above` or `seen`.
    why: &'static str,
}

/// The first of many.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed<T> {
    total: usize,
    cas: Vec<T>,
}

impl<T, U: From<T>> From<Few<T>> for Listed<U> {
    fn from(few: Few<T>) -> Self {
        Self {
            total: few.total,
            cas: few.items.into_iter().map(U::from).collect(),
        }
    }
}

fn ca(impact: CaImpact, began_ms: i64) -> Ca {
    let (locked_out, locked_out_detail) = match impact.locked_out {
        None => ("", String::new()),
        Some(out) => (
            match out {
                LockedOut::Caller { .. } | LockedOut::Certificate { .. } => "caller",
                LockedOut::Administrators { .. } => "administrators",
            },
            out.to_string(),
        ),
    };
    Ca {
        change: change(impact.change),
        ca: impact.ca.into(),
        on_inactivate: on_inactivate(impact.on_inactivate),
        connections: impact.connections,
        connections_ending: impact.ending,
        connections_ended: ended(impact.on_inactivate, impact.connections + impact.ending),
        clients: impact.clients.map(clients),
        devices_refused: tally(impact.devices, began_ms),
        same_key_policy: match impact.same_key_policy {
            SameKey::Deny => "deny",
            SameKey::AllowActive => "allow_active",
        },
        same_key: impact.same_key.into(),
        below: impact.below.into(),
        above: impact.above.into(),
        still_admitted_by: impact.still_admitted_by.into(),
        let_in_again: impact.let_in_again.into(),
        locked_out,
        locked_out_detail,
    }
}

fn device(impact: DeviceImpact, began_ms: i64) -> Device {
    Device {
        change: change(impact.change),
        ca_sn: impact.ca_sn.to_string(),
        device_sn: impact.sn.to_string(),
        device_name: impact.name,
        status: digit(impact.status),
        on_inactivate: on_inactivate(impact.on_inactivate),
        connections: impact.connections,
        connections_ended: ended(impact.on_inactivate, impact.connections),
        clients: impact.clients.map(clients),
        connected: impact.seen == Seen::Now,
        last_seen: match impact.seen {
            Seen::At(at_ms) => at_ms.to_string(),
            Seen::No | Seen::Now => String::new(),
        },
        seen_since: began_ms.to_string(),
    }
}

impl From<CaLine> for Line {
    fn from(line: CaLine) -> Self {
        let reason = |off: Option<crate::ca::error::OffReason>| off.map(|it| it.to_string());
        Self {
            sn: line.sn.to_string(),
            ca_name: line.name,
            administrators: line.purpose == Purpose::Admin,
            status: digit(line.status),
            effective_status: digit(match line.off {
                Some(_) => Status::Inactive,
                None => Status::Active,
            }),
            effective_reason: reason(line.off).unwrap_or_default(),
            becomes: match line.shift {
                Shift::Off => "off",
                Shift::On => "on",
                Shift::None => "stays",
            },
            becomes_reason: reason(line.off_after).unwrap_or_default(),
            devices: line.devices,
        }
    }
}

impl From<Other> for Still {
    fn from(other: Other) -> Self {
        Self {
            sn: other.sn.to_string(),
            ca_name: other.name,
            why: match other.way {
                Way::SameKey => "same_key",
                Way::Above => "above",
                Way::Seen => "seen",
            },
        }
    }
}

fn tally(of: DeviceTally, began_ms: i64) -> Tally {
    Tally {
        recorded: of.recorded,
        inactive: of.inactive,
        connected: of.connected,
        seen_within_day: of.within_day,
        seen_within_week: of.within_week,
        seen_earlier: of.earlier,
        not_seen: of.not_seen,
        last_seen: of.last_seen_ms.map(|it| it.to_string()).unwrap_or_default(),
        seen_since: began_ms.to_string(),
    }
}

fn clients(clients: Vec<ClientLine>) -> Vec<Client> {
    let client = |client: ClientLine| {
        let (client_id, peer_address) = match client.called {
            Some((client_id, address)) => (client_id, address.to_string()),
            None => (String::new(), String::new()),
        };
        Client {
            client_id,
            peer_address,
            ca_sn: client.ca_sn.to_string(),
            device_sn: client.device_sn.to_string(),
            device_name: client.name,
        }
    };
    clients.into_iter().map(client).collect()
}

fn ended(on_inactivate: OnInactivate, connections: usize) -> usize {
    match on_inactivate {
        OnInactivate::Cut => connections,
        OnInactivate::Keep => 0,
    }
}

fn change(change: Intended) -> &'static str {
    match change {
        Intended::Inactivate => "Inactivate",
        Intended::Delete => "Delete",
    }
}

fn on_inactivate(on_inactivate: OnInactivate) -> &'static str {
    match on_inactivate {
        OnInactivate::Cut => "cut",
        OnInactivate::Keep => "keep",
    }
}

fn digit(status: Status) -> &'static str {
    match status {
        Status::Inactive => "0",
        Status::Active => "1",
    }
}

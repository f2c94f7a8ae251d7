//! `ExplainCertificate`, which is ours: its parameters and its answer.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Outcome, required};
use crate::admin::params::Params;
use crate::ca::explain::{Facts, Path, Recorded, Sent, Source, Standing, Step};
use crate::ca::id::CaId;
use crate::ca::lifecycle::Status;
use crate::control::explain::Explained;
use crate::control::{Caller, Control};

/// What a handshake with the certificates in `ChainContent` would come to.
pub(super) async fn explain(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let chain = required(params, "ChainContent")?;
    let explained = control.explain(caller, instance, chain).await?;
    Ok(answer(&explained))
}

/// The answer. Times are strings in milliseconds, as elsewhere.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    accepted: bool,
    /// One word, as in the log and the metrics; empty if it is accepted.
    reason: &'static str,
    /// The words of the log; empty if it is accepted.
    detail: String,
    /// What would change it, in words; empty if nothing is known to.
    hint: String,
    /// The arguments of `portcullis` that do it; empty if none do.
    hint_command: String,
    /// Serial number of the registered CA that lets it in, or was to.
    ca_sn: String,
    device_sn: String,
    checked_at: String,
    certificates: Vec<Certificate>,
    paths: Vec<Tried>,
    /// Registered CAs whose name fits and that were not looked at one by one.
    paths_left_out: usize,
}

/// A certificate as it was sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Certificate {
    sn: String,
    subject: String,
    issuer: String,
    valid_begin: String,
    valid_end: String,
    /// Whether a path that was tried goes over it.
    used: bool,
    /// Why it cannot be read; empty if it can.
    fault: String,
}

/// A path that was tried.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tried {
    accepted: bool,
    reason: &'static str,
    detail: String,
    certificates: Vec<OnPath>,
}

/// A certificate of a path, the device's first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct OnPath {
    sn: String,
    subject: String,
    ca_name: String,
    /// `device`, `sent` or `registered`: whether the path ends at it.
    role: &'static str,
    valid_begin: String,
    valid_end: String,
    /// Whether its dates hold.
    current: bool,
    /// `active`, `inactive`, `off`, `not recorded` or `not registered`; empty for the device on a path
    /// that does not hold.
    state: &'static str,
    /// Why it is off, if it is so for the sake of another certificate.
    state_reason: String,
}

fn answer(explained: &Explained) -> Value {
    let Explained {
        explanation,
        names,
        at,
    } = explained;
    let refused = explanation.decision.as_ref().err();
    let accepted = explanation.paths.first().filter(|_| refused.is_none());
    let nearest = accepted.and_then(|path| {
        let mut steps = path.steps.iter();
        steps.find(|step| matches!(step.standing, Standing::Registered { .. }))
    });
    let first = explanation.sent.first();
    let advice = explanation.advice.as_ref();
    let answer = Answer {
        accepted: refused.is_none(),
        reason: refused.map_or("", |refused| refused.refusal.reason()),
        detail: text(refused.map(|refused| &refused.refusal)),
        hint: text(advice),
        hint_command: advice.and_then(|it| it.command()).unwrap_or_default(),
        ca_sn: match refused {
            Some(refused) => text(refused.ca.as_ref()),
            None => text(nearest.map(|step| &step.facts.serial)),
        },
        device_sn: text(
            first
                .and_then(|sent| sent.facts.as_ref().ok())
                .map(|it| &it.serial),
        ),
        checked_at: milliseconds(*at),
        certificates: explanation.sent.iter().map(certificate).collect(),
        paths: explanation
            .paths
            .iter()
            .map(|path| tried(path, names, *at))
            .collect(),
        paths_left_out: explanation.left_out,
    };
    json!({ "Data": answer })
}

fn certificate(sent: &Sent) -> Certificate {
    let facts = sent.facts.as_ref().ok();
    let date = |of: fn(&Facts) -> i64| facts.map(|it| milliseconds(of(it))).unwrap_or_default();
    Certificate {
        sn: text(facts.map(|it| &it.serial)),
        subject: text(facts.map(|it| &it.subject)),
        issuer: text(facts.map(|it| &it.issuer)),
        valid_begin: date(|it| it.not_before),
        valid_end: date(|it| it.not_after),
        used: sent.used,
        fault: text(sent.facts.as_ref().err()),
    }
}

fn tried(path: &Path, names: &HashMap<CaId, String>, at: i64) -> Tried {
    Tried {
        accepted: path.fault.is_none(),
        reason: path.fault.as_ref().map_or("", |fault| fault.reason()),
        detail: text(path.fault.as_ref()),
        certificates: path.steps.iter().map(|it| on_path(it, names, at)).collect(),
    }
}

fn on_path(step: &Step, names: &HashMap<CaId, String>, at: i64) -> OnPath {
    let (state, state_reason) = match &step.standing {
        Standing::Device(Recorded::Unknown) => ("", String::new()),
        Standing::Device(Recorded::No) => ("not recorded", String::new()),
        Standing::Device(Recorded::As(status)) => (word(*status), String::new()),
        Standing::Registered {
            status: Status::Active,
            off: Some(off),
            ..
        } => ("off", off.to_string()),
        Standing::Registered { status, .. } => (word(*status), String::new()),
        Standing::Copy { off: Some(off) } => ("off", off.to_string()),
        Standing::Copy { off: None } | Standing::Unregistered => ("not registered", String::new()),
    };
    let ca_name = match step.standing {
        Standing::Registered { ca, .. } => names.get(&ca).cloned(),
        Standing::Device(_) | Standing::Copy { .. } | Standing::Unregistered => None,
    };
    OnPath {
        sn: step.facts.serial.to_string(),
        subject: step.facts.subject.clone(),
        ca_name: ca_name.unwrap_or_default(),
        role: match (&step.standing, step.source) {
            (Standing::Device(_), _) => "device",
            (_, Source::Sent) => "sent",
            (_, Source::Registered) => "registered",
        },
        valid_begin: milliseconds(step.facts.not_before),
        valid_end: milliseconds(step.facts.not_after),
        current: step.facts.is_current(at),
        state,
        state_reason,
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Inactive => "inactive",
        Status::Active => "active",
    }
}

/// What is there, in words.
fn text<T: ToString>(of: Option<T>) -> String {
    of.map(|it| it.to_string()).unwrap_or_default()
}

fn milliseconds(seconds: i64) -> String {
    seconds.saturating_mul(1000).to_string()
}

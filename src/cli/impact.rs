//! What a change would cut: shown by `--dry-run`, and before the question whether to go on.

use serde_json::Value;

use super::client::{ClientError, Connection};
use super::lookup;
use super::show::{self, Ask, field, number};
use crate::admin::action::Action;
use crate::admin::errors::Code;

/// A change that is thought of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Inactivate,
    Delete,
}

impl Change {
    fn parameter(self) -> &'static str {
        match self {
            Self::Inactivate => "Inactivate",
            Self::Delete => "Delete",
        }
    }

    /// The name of the command.
    fn command(self) -> &'static str {
        match self {
            Self::Inactivate => "inactivate",
            Self::Delete => "delete",
        }
    }
}

/// What the broker says of a change of a CA.
///
/// # Errors
/// If it refuses or cannot be reached.
pub(super) fn of_ca(
    connection: &Connection,
    sn: &str,
    change: Change,
) -> Result<Value, ClientError> {
    let wanted = [("Sn", sn), ("Change", change.parameter())];
    let answer = connection.call(Action::PreviewCaCertificateChange, &wanted)?;
    Ok(lookup::data(answer))
}

/// What the broker says of a change of a device.
///
/// # Errors
/// If it refuses or cannot be reached.
pub(super) fn of_device(
    connection: &Connection,
    ca_sn: &str,
    sn: &str,
    change: Change,
) -> Result<Value, ClientError> {
    let wanted = [
        ("CaSn", ca_sn),
        ("DeviceSn", sn),
        ("Change", change.parameter()),
    ];
    let answer = connection.call(Action::PreviewDeviceCertificateChange, &wanted)?;
    Ok(lookup::data(answer))
}

/// Print what a change of a CA would cut, and how to go on.
/// `typed` are the options that belong to it.
pub(super) fn show_ca(connection: &Connection, impact: &Value, change: Change, typed: &str) {
    show::result(connection, impact, || {
        let force = match field(impact, "LockedOut").is_empty() {
            true => "",
            false => " --force",
        };
        format!(
            "Nothing was changed. To {} CA {}:\n\n{}{}\nGo on  portcullis ca {} {}{typed}{force}{}\n",
            change.command(),
            named(impact),
            summary(impact),
            clients(impact),
            change.command(),
            field(impact, "Sn"),
            connection.options
        )
    });
}

/// Print what a change of a device would cut, and how to go on.
pub(super) fn show_device(connection: &Connection, impact: &Value, change: Change) {
    show::result(connection, impact, || {
        let seen = match (
            impact.get("Connected") == Some(&Value::Bool(true)),
            field(impact, "LastSeen").is_empty(),
        ) {
            (true, _) => "connected".to_owned(),
            (false, false) => show::time(impact, "LastSeen"),
            (false, true) => format!("not since {}", show::time(impact, "SeenSince")),
        };
        let (sn, ca_sn) = (field(impact, "DeviceSn"), field(impact, "CaSn"));
        format!(
            "Nothing was changed. To {} device {} ({sn} of CA {ca_sn}):\n\n{}{}\nGo on  portcullis device {} {sn} --ca {ca_sn}{}\n",
            change.command(),
            field(impact, "DeviceName"),
            show::fields(&[
                ("Now", show::status(impact)),
                ("Connections", connections(impact)),
                ("Last seen", seen),
            ]),
            clients(impact),
            change.command(),
            connection.options
        )
    });
}

/// Ask whether to make a change of a CA, if there is somebody to ask: shows what it would cut first.
///
/// Whoever would cut something off has to type the name: a habit of typing `y` cuts off the wrong
/// CA at night.
///
/// # Errors
/// [`ClientError::Declined`] unless it is to be made, [`ClientError::LocksOut`] if it needs
/// `--force`.
pub(super) fn confirm_ca(
    connection: &Connection,
    ca: &Value,
    change: Change,
    force: bool,
) -> Result<(), ClientError> {
    if connection.asks() == Ask::No {
        return Ok(());
    }
    let (name, sn) = (field(ca, "CaName"), field(ca, "Sn"));
    let impact = match of_ca(connection, &sn, change) {
        Ok(impact) => impact,
        // Whoever may change it, but not look, is told less. So is whoever asks while the broker is
        // busy, and that may be the CA of very many: then it takes more than a habit, too.
        Err(ClientError::Refused { code, .. }) => {
            let change = capital(change.command());
            return match never_shown(&code) {
                true => show::confirm(
                    connection,
                    &format!("{change} CA {name} ({sn})? What that would cut is not shown to you."),
                ),
                false => show::confirm_by_name(
                    &format!(
                        "{change} CA {name} ({sn})? What that would cut is not known now ({code})."
                    ),
                    &[&name, &sn],
                ),
            };
        }
        Err(error) => return Err(error),
    };
    let locked_out = field(&impact, "LockedOutDetail");
    if !locked_out.is_empty() && !force {
        return Err(ClientError::LocksOut(locked_out));
    }
    let text = format!(
        "{} CA {}?\n\n{}",
        capital(change.command()),
        named(&impact),
        summary(&impact)
    );
    match cuts(&impact) {
        false => show::confirm(connection, &format!("{text}\nGo on?")),
        true => show::confirm_by_name(&text, &[&name, &sn]),
    }
}

/// Whether the broker refuses a preview for good: the right is missing, or it does not know previews.
fn never_shown(code: &str) -> bool {
    [Code::PermissionCheckFailed, Code::ApiNotFound]
        .iter()
        .any(|never| never.as_str() == code)
}

/// Whether somebody would be cut off or refused.
fn cuts(impact: &Value) -> bool {
    let some = |pointer: &str| impact.pointer(pointer).and_then(Value::as_u64) != Some(0);
    some("/Connections")
        || some("/DevicesRefused/Recorded")
        || ending(impact) > 0
        || goes(impact, "off")
}

/// Connections that are ending over a time, for an earlier change.
fn ending(impact: &Value) -> u64 {
    let ending = impact.get("ConnectionsEnding").and_then(Value::as_u64);
    ending.unwrap_or_default()
}

/// Whether a CA goes this way.
fn goes(impact: &Value, way: &str) -> bool {
    let below = ["SameKey", "Below"]
        .into_iter()
        .flat_map(|it| cas(impact, it));
    below.chain([impact]).any(|ca| field(ca, "Becomes") == way)
}

/// One line for each question that an operator has.
fn summary(impact: &Value) -> String {
    let mut lines = vec![
        ("Now", show::status(impact)),
        ("Connections", connections(impact)),
        ("Devices", devices(impact)),
    ];
    let policy = field(impact, "SameKeyPolicy");
    for (title, list) in [("CAs below", "Below"), ("CAs above", "Above")] {
        lines.push((title, listed(impact, list, line)));
    }
    let same_key = listed(impact, "SameKey", line);
    lines.push((
        "Same key",
        match same_key.as_str() {
            NONE => same_key,
            some => format!("{some} (policy {policy})"),
        },
    ));
    let still = listed(impact, "StillAdmittedBy", |ca| {
        let how = match field(ca, "Why").as_str() {
            "same_key" => "has the same key",
            "above" => "stands above; the device has to send the CA's certificate",
            _ => "has devices of the same intermediate connected",
        };
        format!("{}: {how}", named(ca))
    });
    lines.push(("Still let in", still));
    if goes(impact, "on") {
        lines.push(("Let in again", listed(impact, "LetInAgain", named)));
    }
    if field(impact, "Change") == "Delete" {
        let undo = "only by registering it anew; the records of its devices are gone";
        lines.push(("Undo", undo.to_owned()));
    }
    let locked_out = field(impact, "LockedOutDetail");
    if !locked_out.is_empty() {
        lines.push(("LOCKED OUT", format!("{locked_out}; needs --force")));
    }
    show::fields(&lines)
}

fn connections(impact: &Value) -> String {
    let count = number(impact, "Connections");
    let text = match (count.as_str(), field(impact, "OnInactivate").as_str()) {
        ("0", _) => "0".to_owned(),
        (_, "keep") => format!("{count} go on until they end by themselves (on_inactivate = keep)"),
        _ => format!("{count} would be ended"),
    };
    match ending(impact) {
        0 => text,
        more => format!("{text}, and at once {more} that are ending over a time"),
    }
}

fn devices(impact: &Value) -> String {
    let Some(tally) = impact.get("DevicesRefused") else {
        return "?".to_owned();
    };
    let recorded = number(tally, "Recorded");
    if recorded == "0" {
        return "no recorded device would be refused".to_owned();
    }
    let mut parts = Vec::new();
    for (name, words) in [
        ("Connected", "connected"),
        ("SeenWithinDay", "last seen within a day"),
        ("SeenWithinWeek", "within a week"),
        ("SeenEarlier", "earlier"),
        ("Inactive", "of all inactive themselves"),
    ] {
        let count = number(tally, name);
        if count != "0" {
            parts.push(format!("{count} {words}"));
        }
    }
    let unseen = number(tally, "NotSeen");
    if unseen != "0" {
        let since = show::time(tally, "SeenSince");
        parts.push(format!("{unseen} not seen since the start at {since}"));
    }
    format!("{recorded} recorded would be refused: {}", parts.join(", "))
}

const NONE: &str = "none";

fn listed(impact: &Value, name: &str, line: impl Fn(&Value) -> String) -> String {
    const MOST: usize = 5;
    let shown: Vec<_> = cas(impact, name).take(MOST).map(line).collect();
    let total = impact.pointer(&format!("/{name}/Total"));
    let total = total.and_then(Value::as_u64).unwrap_or_default();
    let more = total.saturating_sub(u64::try_from(shown.len()).unwrap_or_default());
    match (shown.is_empty(), more) {
        (true, _) => NONE.to_owned(),
        (false, 0) => shown.join("; "),
        (false, more) => format!("{}; and {more} more", shown.join("; ")),
    }
}

fn line(ca: &Value) -> String {
    let devices = match number(ca, "Devices").as_str() {
        "0" => String::new(),
        "1" => ", 1 device".to_owned(),
        count => format!(", {count} devices"),
    };
    let what = match field(ca, "Becomes").as_str() {
        "off" => "would be off too".to_owned(),
        "on" => "would be on again".to_owned(),
        _ => format!("stays {}", show::status(ca)),
    };
    format!("{} {what}{devices}", named(ca))
}

fn named(ca: &Value) -> String {
    let (name, sn) = (field(ca, "CaName"), field(ca, "Sn"));
    match (name.is_empty(), ca.get("Administrators")) {
        (true, Some(Value::Bool(true))) => format!("of the administrators ({sn})"),
        (true, _) => sn,
        (false, _) => format!("{name} ({sn})"),
    }
}

fn cas<'a>(impact: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    let list = impact.pointer(&format!("/{name}/Cas"));
    list.and_then(Value::as_array).into_iter().flatten()
}

/// The first clients, in a table.
fn clients(impact: &Value) -> String {
    let Some(clients) = impact.get("Clients").and_then(Value::as_array) else {
        return "\nWhich clients: not shown to you (mq:ListSessions).\n".to_owned();
    };
    if clients.is_empty() {
        return String::new();
    }
    let row = |client: &Value| {
        ["ClientId", "PeerAddress", "DeviceName", "DeviceSn", "CaSn"]
            .map(|name| field(client, name))
            .to_vec()
    };
    let heads = ["CLIENT ID", "FROM", "NAME", "DEVICE SN", "CA SN"];
    let table = show::table(&heads, clients.iter().map(row));
    let all = impact.get("Connections").and_then(Value::as_u64);
    let all = all.unwrap_or_default().saturating_add(ending(impact));
    let shown = u64::try_from(clients.len()).unwrap_or_default();
    match all.saturating_sub(shown) {
        0 => format!("\n{table}"),
        more => format!("\n{table}and {more} more\n"),
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn impact() -> Value {
        json!({
            "Change": "Inactivate", "Sn": "0a", "CaName": "plant-7", "Status": "1",
            "EffectiveStatus": "1", "EffectiveReason": "", "Becomes": "off",
            "OnInactivate": "cut", "Connections": 1204, "ConnectionsEnded": 1204,
            "DevicesRefused": {
                "Recorded": 3310, "Inactive": 10, "Connected": 1204, "SeenWithinDay": 2000,
                "SeenWithinWeek": 0, "SeenEarlier": 6, "NotSeen": 100, "LastSeen": "",
                "SeenSince": "1795509582000",
            },
            "SameKeyPolicy": "deny",
            "SameKey": {"Total": 1, "Cas": [{
                "Sn": "0b", "CaName": "plant-7-old", "Status": "1", "EffectiveStatus": "1",
                "Becomes": "off", "Devices": 1,
            }]},
            "Below": {"Total": 7, "Cas": [{
                "Sn": "0c", "CaName": "", "Administrators": true, "Status": "1",
                "EffectiveStatus": "1", "Becomes": "stays", "Devices": 0,
            }]},
            "Above": {"Total": 0, "Cas": []},
            "StillAdmittedBy": {"Total": 0, "Cas": []},
            "LetInAgain": {"Total": 0, "Cas": []},
            "LockedOut": "", "LockedOutDetail": "",
        })
    }

    #[test]
    fn summary_has_a_line_for_each_question() {
        let text = summary(&impact());
        for line in [
            "Now           active",
            "Connections   1204 would be ended",
            "Devices       3310 recorded would be refused: 1204 connected, 2000 last seen within a day, 6 earlier, 10 of all inactive themselves, 100 not seen since the start at 2026-11-24 08:39:42Z",
            "CAs below     of the administrators (0c) stays active; and 6 more",
            "CAs above     none",
            "Same key      plant-7-old (0b) would be off too, 1 device (policy deny)",
            "Still let in  none",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
        assert!(!text.contains("LOCKED OUT"), "{text}");
    }

    #[test]
    fn name_has_to_be_typed_if_somebody_is_cut_off() {
        assert!(cuts(&impact()));
        let mut nothing = impact();
        nothing["Connections"] = json!(0);
        nothing["DevicesRefused"]["Recorded"] = json!(0);
        assert!(cuts(&nothing), "CAs go off");
        nothing["SameKey"] = json!({"Total": 0, "Cas": []});
        nothing["Becomes"] = json!("stays");
        assert!(!cuts(&nothing));
        nothing["ConnectionsEnding"] = json!(9000);
        assert!(cuts(&nothing), "they would end at once");
        let text = summary(&nothing);
        assert!(
            text.contains("0, and at once 9000 that are ending"),
            "{text}"
        );
        // What is not understood cuts.
        assert!(cuts(&json!({})));
    }

    #[test]
    fn busy_broker_does_not_weaken_the_question() {
        assert!(never_shown("PermissionCheckFailed") && never_shown("InvalidApi.NotFound"));
        for passing in ["ServiceUnavailable", "InternalError", "Throttling"] {
            assert!(!never_shown(passing), "{passing}");
        }
    }

    #[test]
    fn what_the_broker_says_cannot_upset_a_terminal() {
        let mut hostile = impact();
        hostile["CaName"] = json!("\u{1b}[2J");
        hostile["Clients"] = json!([{"ClientId": "\u{1b}]0;x\u{7}"}]);
        let text = named(&hostile) + &summary(&hostile) + &clients(&hostile);
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{7}'),
            "{text:?}"
        );
    }
}

//! Results on the screen, and questions before something is cut off.

use std::time::Duration;

use std::io::{self, BufRead, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use time::OffsetDateTime;

use super::client::{ClientError, Confirm, Connection, Output, printable};

/// Print what the broker answered, for programs.
pub(super) fn json(value: &Value) {
    print(&format!("{value:#}\n"));
}

/// Print the text or, for programs, the value.
pub(super) fn result(connection: &Connection, value: &Value, text: impl FnOnce() -> String) {
    match connection.output {
        Output::Json => json(value),
        Output::Text => print(&text()),
    }
}

/// Whoever closes standard output early has seen enough.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// A table with these column heads, without colours and lines.
pub(super) fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(heads);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().fold(String::new(), |mut text, line| {
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

/// Name and value, one a line.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    fields.iter().fold(String::new(), |text, (name, value)| {
        text + &format!("{name:<14}{value}\n")
    })
}

/// The field as a text that a terminal can take.
pub(super) fn field(value: &Value, name: &str) -> String {
    printable(value.get(name).and_then(Value::as_str).unwrap_or_default())
}

/// The field as a number.
pub(super) fn number(value: &Value, name: &str) -> String {
    let number = value.get(name).and_then(Value::as_u64);
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}

/// `"1"` and `"0"` in words, and why an active CA admits nobody if it does not.
pub(super) fn status(value: &Value) -> String {
    let off = field(value, "EffectiveStatus") == "0";
    match value.get("Status").and_then(Value::as_str) {
        Some("1") if off => format!("active, but off: {}", field(value, "EffectiveReason")),
        Some("1") => "active".to_owned(),
        Some("0") => "inactive".to_owned(),
        _ => "?".to_owned(),
    }
}

/// How many live connections a change ended, in words.
pub(super) fn ended(answer: &Value) -> String {
    let number = |name| answer.get(name).and_then(Value::as_u64);
    let over = number("EndConnectionsOverSeconds");
    if let (Some(count), Some(over)) = (number("ConnectionsEnding"), over) {
        let time = humantime::format_duration(Duration::from_secs(over));
        return format!("{count} live connections end one after the other, the last in {time}");
    }
    match answer.get("ConnectionsEnded").and_then(Value::as_u64) {
        None => "Its devices were cut off".to_owned(),
        Some(1) => "1 live connection was ended".to_owned(),
        Some(count) => format!("{count} live connections were ended"),
    }
}

/// A time in milliseconds, written out.
pub(super) fn time(value: &Value, name: &str) -> String {
    let format =
        time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    let Some(at) = moment(value, name) else {
        return "?".to_owned();
    };
    let text = at.format(format).unwrap_or_else(|_| "?".to_owned());
    match name {
        "ValidEnd" if at < OffsetDateTime::now_utc() => text + " (expired)",
        _ => text,
    }
}

fn moment(value: &Value, name: &str) -> Option<OffsetDateTime> {
    let milliseconds: i64 = value.get(name)?.as_str()?.parse().ok()?;
    OffsetDateTime::from_unix_timestamp(milliseconds.div_euclid(1000)).ok()
}

/// Whether there is somebody to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Nobody is at a terminal, or nobody wants to be asked.
    No,
    /// Somebody is.
    Yes,
}

impl Connection {
    /// Whether there is somebody to ask.
    pub(super) fn asks(&self) -> Ask {
        match self.confirm == Confirm::Assume || !io::stdin().is_terminal() {
            true => Ask::No,
            false => Ask::Yes,
        }
    }
}

/// Ask, if there is somebody to ask.
///
/// # Errors
/// [`ClientError::Declined`] unless the answer is yes.
pub(super) fn confirm(connection: &Connection, question: &str) -> Result<(), ClientError> {
    if connection.asks() == Ask::No {
        return Ok(());
    }
    let answer = answer(&format!("{question} [y/N] ")).to_ascii_lowercase();
    match ["y", "yes"].contains(&answer.as_str()) {
        true => Ok(()),
        false => Err(ClientError::Declined),
    }
}

/// Have one of these names typed. Only where there is somebody to ask.
///
/// # Errors
/// [`ClientError::Declined`] unless it is.
pub(super) fn confirm_by_name(text: &str, names: &[&str]) -> Result<(), ClientError> {
    let first = names.first().copied().unwrap_or_default();
    let answer = answer(&format!(
        "{text}\nType the name of the CA ({first}) to go on: "
    ));
    match !answer.is_empty() && names.contains(&answer.as_str()) {
        true => Ok(()),
        false => Err(ClientError::Declined),
    }
}

/// What is typed in answer to a question.
fn answer(question: &str) -> String {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question}");
    let _ = stderr.flush();
    let mut answer = String::new();
    // No answer is no.
    let _ = io::stdin().lock().read_line(&mut answer);
    answer.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn table_is_aligned_and_plain() {
        let rows = [
            vec!["ca-a".to_owned(), "00f2".to_owned()],
            vec!["b".to_owned(), "1".to_owned()],
        ];
        let text = table(&["NAME", "SN"], rows);
        assert_eq!(text, "NAME  SN\nca-a  00f2\nb     1\n");
    }

    #[test]
    fn values_of_the_broker_cannot_upset_a_terminal() {
        let value = json!({ "CaName": "a\u{1b}[31mb", "Status": "0", "ValidBegin": "1795509582000", "ValidEnd": "0" });
        assert!(!field(&value, "CaName").contains('\u{1b}'));
        assert_eq!(field(&value, "Sn"), "");
        assert_eq!(status(&value), "inactive");
        let off = json!({ "Status": "1", "EffectiveStatus": "0", "EffectiveReason": "CA 01 above it is inactive" });
        assert_eq!(status(&off), "active, but off: CA 01 above it is inactive");
        assert_eq!(
            ended(&json!({ "ConnectionsEnded": 3 })),
            "3 live connections were ended"
        );
        assert_eq!(time(&value, "ValidBegin"), "2026-11-24 08:39:42Z");
        assert_eq!(time(&value, "ValidEnd"), "1970-01-01 00:00:00Z (expired)");
    }
}

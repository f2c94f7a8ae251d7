//! `portcullis schedule`, and the times of `portcullis ca`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{ClientError, Connection, EXIT_CODES};
use super::lookup;
use super::show::{self, field};
use crate::admin::action::Action;

/// See and cancel changes that are to be made at a time; `portcullis ca inactivate --at` and
/// `portcullis ca activate --at` plan them.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum ScheduleCommand {
    /// List them, the next first.
    List,
    /// Cancel one.
    Cancel(Which),
}

/// One scheduled change.
#[derive(Debug, Args)]
pub struct Which {
    /// Its id.
    #[arg(value_name = "ID")]
    id: String,
}

impl ScheduleCommand {
    /// Carry out the command.
    ///
    /// # Errors
    /// Why it did not succeed.
    pub fn run(self, connection: &Connection) -> Result<(), ClientError> {
        match self {
            Self::List => list(connection),
            Self::Cancel(which) => cancel(connection, &which.id),
        }
    }
}

fn list(connection: &Connection) -> Result<(), ClientError> {
    let all = lookup::all_pages(connection, Action::ListSchedules, "ScheduleVOS", &[])?;
    show::result(connection, &json!(all), || {
        if all.is_empty() {
            return "Nothing is scheduled.\n".to_owned();
        }
        let row = |schedule: &Value| {
            vec![
                field(schedule, "ScheduleId"),
                show::time(schedule, "AtTime"),
                field(schedule, "Change").to_lowercase(),
                field(schedule, "CaName"),
                field(schedule, "CaSn"),
                field(schedule, "ScheduledBy"),
            ]
        };
        let heads = ["ID", "AT", "CHANGE", "CA", "SN", "BY"];
        show::table(&heads, all.iter().map(row))
    });
    Ok(())
}

fn cancel(connection: &Connection, id: &str) -> Result<(), ClientError> {
    let answer = connection.call(Action::CancelSchedule, &[("ScheduleId", id)])?;
    let schedule = lookup::data(answer);
    show::result(connection, &schedule, || {
        format!("Cancelled: {}", told(&schedule))
    });
    Ok(())
}

/// What is to be made, when.
fn told(schedule: &Value) -> String {
    format!(
        "{} CA {} ({}) at {}\n",
        field(schedule, "Change").to_lowercase(),
        field(schedule, "CaName"),
        field(schedule, "CaSn"),
        show::time(schedule, "AtTime")
    )
}

/// Plan a change of a CA; `fields` are the parameters besides which and when.
///
/// # Errors
/// If the broker refuses or cannot be reached.
pub(super) fn plan(
    connection: &Connection,
    change: &str,
    at: SystemTime,
    fields: Vec<(&str, &str)>,
) -> Result<Value, ClientError> {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = at.as_millis().to_string();
    let mut fields: Vec<(&str, &str)> = fields;
    fields.extend([("Change", change), ("AtTime", &at)]);
    let answer = connection.call(Action::ScheduleCaCertificateChange, &fields)?;
    Ok(lookup::data(answer))
}

/// What is said of a planned change, and of what ends it.
pub(super) fn said(connection: &Connection, schedule: &Value) -> String {
    let end = schedule.get("Activation").map(|end| said(connection, end));
    format!(
        "Scheduled: {}Undo  portcullis schedule cancel {}{}\n{}",
        told(schedule),
        field(schedule, "ScheduleId"),
        connection.options,
        end.unwrap_or_default()
    )
}

/// A time in UTC, such as 2026-11-25T22:00:00Z, or one from now, such as 90m.
pub(super) fn moment(text: &str) -> Result<SystemTime, String> {
    if let Ok(from_now) = humantime::parse_duration(text) {
        return Ok(SystemTime::now() + from_now.min(FARTHEST));
    }
    humantime::parse_rfc3339_weak(text).map_err(|error| {
        format!("{error}; a time in UTC such as 2026-11-25T22:00:00Z, or one from now such as 90m")
    })
}

/// Far enough to be refused, and not so far that it cannot be said.
pub(super) const FARTHEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

//! `portcullis audit`

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::CliError;
use super::client::printable;
use super::show;
use crate::audit::{self, Entry, Phase};

/// Look after the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show who changed what, when, from where, and what became of it.
    List(ListArgs),
    /// Check that no record was removed, changed or moved.
    Verify(VerifyArgs),
}

/// Arguments of `portcullis audit list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The audit log
    #[arg(default_value = DEFAULT_FILE)]
    file: PathBuf,
    /// How many records to show, counted from the newest; 0 is all
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    last: usize,
    /// Only records that have this text in action, subject or principal
    #[arg(long, value_name = "TEXT")]
    about: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `portcullis audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The audit log
    #[arg(default_value = DEFAULT_FILE)]
    file: PathBuf,
}

const DEFAULT_FILE: &str = "data/audit.log";

/// Carry out the command.
///
/// # Errors
/// If the file cannot be read, or its chain does not hold: then with the first bad line.
pub fn run(command: AuditCommand) -> Result<ExitCode, CliError> {
    match command {
        AuditCommand::List(arguments) => list(&arguments),
        AuditCommand::Verify(arguments) => verify(&arguments),
    }
}

fn list(arguments: &ListArgs) -> Result<ExitCode, CliError> {
    let mut kept = VecDeque::new();
    let read = audit::read(&arguments.file, |entry| {
        if !is_about(&entry, arguments.about.as_deref()) {
            return;
        }
        if arguments.last > 0 && kept.len() == arguments.last {
            kept.pop_front();
        }
        kept.push_back(entry);
    });
    if arguments.json {
        show::json(&json!(kept));
    } else {
        let heads = ["TIME", "WHO", "FROM", "ACTION", "SUBJECT", "RESULT"];
        show::print(&show::table(&heads, kept.iter().map(row)));
    }
    // What is shown may be trusted up to the first record that does not hold; say so last.
    read?;
    Ok(ExitCode::SUCCESS)
}

fn is_about(entry: &Entry, text: Option<&str>) -> bool {
    let event = &entry.event;
    text.is_none_or(|text| {
        [&event.action, &event.subject, &event.origin.principal]
            .iter()
            .any(|field| field.contains(text))
    })
}

fn row(entry: &Entry) -> Vec<String> {
    let event = &entry.event;
    let result = match (event.phase, &event.before, &event.after) {
        (Phase::Intent, Some(before), Some(after)) => format!("intent: {before} to {after}"),
        (Phase::Intent, _, Some(after)) => format!("intent: {after}"),
        (Phase::Intent, _, None) => "intent".to_owned(),
        (Phase::Done, _, _) => "done".to_owned(),
        (Phase::Refused, _, _) => "refused".to_owned(),
        (Phase::Failed, _, _) => "failed".to_owned(),
        (Phase::Closed, _, _) => "cut short".to_owned(),
    };
    let detail = event.detail.as_ref();
    let result = detail.map_or(result.clone(), |detail| format!("{result}: {detail}"));
    let from = match &event.origin.address {
        Some(address) => format!("{} {address}", event.origin.door),
        None => event.origin.door.clone(),
    };
    [
        &entry.time,
        &event.origin.principal,
        &from,
        &event.action,
        &event.subject,
        &result,
    ]
    .map(|text| printable(text))
    .to_vec()
}

fn verify(arguments: &VerifyArgs) -> Result<ExitCode, CliError> {
    let verified = audit::verify(&arguments.file)?;
    let in_files = match verified.files {
        1 => String::new(),
        files => format!(" in {files} files"),
    };
    let older = match verified.first {
        1 => String::new(),
        first => format!(" from {first} on (older ones were removed, as a record says)"),
    };
    println!(
        "{}: the chain of {} records{in_files}{older} holds; head {}",
        arguments.file.display(),
        verified.records,
        verified.head
    );
    Ok(ExitCode::SUCCESS)
}

//! `portcullis audit`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::CliError;
use crate::audit;

/// Look after the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no record was removed, changed or moved.
    Verify(VerifyArgs),
}

/// Arguments of `portcullis audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The audit log.
    #[arg(default_value = "data/audit.log")]
    file: PathBuf,
}

/// Carry out the command.
///
/// # Errors
/// If the file cannot be read, or its chain does not hold: then with the first bad line.
pub fn run(command: AuditCommand) -> Result<ExitCode, CliError> {
    let AuditCommand::Verify(VerifyArgs { file }) = command;
    let verified = audit::verify(&file)?;
    println!(
        "{}: the chain of {} records holds; head {}",
        file.display(),
        verified.records,
        verified.head
    );
    Ok(ExitCode::SUCCESS)
}

//! `portcullis pki`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use time::OffsetDateTime;

use super::CliError;
use crate::app::dev_pki::DevPki;
use crate::config::{Config, DEVELOPMENT_CERTS, Overrides};

/// Make certificates for development.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Make the tree of development certificates, or complete and renew the one that is there.
    Dev(DevArgs),
}

/// Arguments of `portcullis pki dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Directory of the certificates.
    #[arg(long, value_name = "DIR", default_value = DEVELOPMENT_CERTS)]
    certs_dir: PathBuf,
}

/// Carry out the command.
///
/// # Errors
/// If the certificates cannot be made.
pub fn run(command: PkiCommand) -> Result<ExitCode, CliError> {
    let PkiCommand::Dev(DevArgs { certs_dir }) = command;
    let config = Config::development(Some(certs_dir.clone()), &Overrides::default())?;
    let endpoint = format!("http://{}", config.admin.listen);
    if let Some(instance) = config.instances.first() {
        let now = OffsetDateTime::now_utc();
        let pki = DevPki::ensure(&certs_dir, &endpoint, &instance.id, now)?;
        for note in pki.notes() {
            println!("{note}");
        }
        println!("{} is complete", certs_dir.display());
    }
    Ok(ExitCode::SUCCESS)
}

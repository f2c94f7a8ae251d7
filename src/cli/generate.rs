//! `portcullis completion` and `portcullis man`: made from the same description as the commands.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, CliError};

/// Arguments of `portcullis completion`.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell.
    shell: Shell,
}

/// Arguments of `portcullis man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for a page of each command; made if it is not there. Without it the main page is
    /// printed.
    directory: Option<PathBuf>,
}

/// Print the script for a shell.
pub fn completion(arguments: &CompletionArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Cli::command(),
        "portcullis",
        &mut script,
    );
    print(&script)
}

/// Print the main manual page, or write all of them.
///
/// # Errors
/// If a page cannot be written.
pub fn man(arguments: &ManArgs) -> Result<ExitCode, CliError> {
    let failed = |source| CliError::System {
        what: "the manual pages cannot be written",
        source,
    };
    let Some(directory) = &arguments.directory else {
        let mut page = Vec::new();
        // As in the pages that are written: there is none for `help`.
        Man::new(Cli::command().disable_help_subcommand(true))
            .render(&mut page)
            .map_err(failed)?;
        return Ok(print(&page));
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

/// Whoever closes standard output early has seen enough.
fn print(octets: &[u8]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(octets);
    let _ = out.flush();
    ExitCode::SUCCESS
}

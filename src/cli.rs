//! The command line.

pub mod audit;
pub mod ca;
pub mod client;
pub mod crl;
pub mod device;
pub mod explain;
pub mod generate;
mod impact;
pub mod instance;
pub mod key;
mod lookup;
pub mod pki;
mod proof;
pub mod schedule;
pub mod serve;
pub mod session;
mod show;
mod transport;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::StartError;
use crate::app::dev_pki::DevPkiError;
use crate::config::ConfigError;
use crate::telemetry::TelemetryError;

/// A TLS MQTT broker whose gate is the certificate authority.
///
/// Without a command it serves in development mode: certificates, registry and access key are
/// made on the first start, and what to try next is printed.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, long_about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Serve(serve::ServeArgs),
    /// Make certificates for development.
    #[command(subcommand)]
    Pki(pki::PkiCommand),
    /// Look after the audit log.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Register the CAs that sign device certificates, and switch them off and on.
    #[command(after_help = client::EXIT_CODES)]
    Ca {
        #[command(flatten)]
        connection: client::ConnectionArgs,
        #[command(subcommand)]
        command: ca::CaCommand,
    },
    /// Import the lists of certificates that CAs have revoked, and say what is demanded of them.
    #[command(after_help = client::EXIT_CODES)]
    Crl {
        #[command(flatten)]
        connection: client::ConnectionArgs,
        #[command(subcommand)]
        command: crl::CrlCommand,
    },
    /// See and cancel changes that are to be made at a time.
    #[command(after_help = client::EXIT_CODES)]
    Schedule {
        #[command(flatten)]
        connection: client::ConnectionArgs,
        #[command(subcommand)]
        command: schedule::ScheduleCommand,
    },
    /// Look at the device certificates that connected, and switch single ones off and on.
    #[command(after_help = client::EXIT_CODES)]
    Device {
        #[command(flatten)]
        connection: client::ConnectionArgs,
        #[command(subcommand)]
        command: device::DeviceCommand,
    },
    /// Create, limit, disable and delete the access keys that sign requests; on the broker's host.
    #[command(after_help = client::EXIT_CODES)]
    Key {
        #[command(flatten)]
        connection: client::ConnectionArgs,
        #[command(subcommand)]
        command: key::KeyCommand,
    },
    /// Look at the sessions of clients, and end their connections.
    #[command(after_help = client::EXIT_CODES)]
    Session {
        #[command(flatten)]
        connection: client::ConnectionArgs,
        #[command(subcommand)]
        command: session::SessionCommand,
    },
    /// Look at the instances of the broker.
    #[command(after_help = client::EXIT_CODES)]
    Instance {
        #[command(flatten)]
        connection: client::ConnectionArgs,
        #[command(subcommand)]
        command: instance::InstanceCommand,
    },
    /// Say whether a chain of certificates would be let in, over which path, and if not, why.
    #[command(after_help = client::EXIT_CODES)]
    Explain {
        #[command(flatten)]
        connection: client::ConnectionArgs,
        #[command(flatten)]
        arguments: explain::ExplainArgs,
    },
    /// Print what makes a shell complete the commands.
    Completion(generate::CompletionArgs),
    /// Print the manual page, or write the pages of all commands to a directory.
    Man(generate::ManArgs),
}

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is bad.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log could not be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The broker could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The development certificates could not be made.
    #[error(transparent)]
    DevPki(#[from] DevPkiError),
    /// The audit log does not hold, or cannot be read.
    #[error(transparent)]
    Audit(#[from] crate::audit::AuditError),
    /// A call of the admin API did not succeed.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// The system refused something the process needs.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// Why it could not be had.
        source: std::io::Error,
    },
}

impl CliError {
    /// The exit code that scripts see: 64 for a bad configuration, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 64,
            Self::Client(error) => error.exit_code(),
            Self::Telemetry(_)
            | Self::Start(_)
            | Self::DevPki(_)
            | Self::Audit(_)
            | Self::System { .. } => 1,
        }
    }
}

impl Cli {
    /// Carry out the command.
    ///
    /// # Errors
    /// Why it did not succeed.
    pub fn run(self) -> Result<ExitCode, CliError> {
        match self
            .command
            .unwrap_or_else(|| Command::Serve(serve::ServeArgs::default()))
        {
            Command::Serve(arguments) => serve::run(arguments),
            Command::Pki(command) => pki::run(command),
            Command::Audit(command) => audit::run(command),
            Command::Ca {
                connection,
                command,
            } => {
                command.run(&connection.open()?)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Crl {
                connection,
                command,
            } => {
                command.run(&connection.open()?)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Schedule {
                connection,
                command,
            } => {
                command.run(&connection.open()?)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Device {
                connection,
                command,
            } => {
                command.run(&connection.open()?)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Key {
                connection,
                command,
            } => {
                command.run(&connection.open()?)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Session {
                connection,
                command,
            } => {
                command.run(&connection.open()?)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Instance {
                connection,
                command,
            } => {
                command.run(&connection.open()?)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Explain {
                connection,
                arguments,
            } => Ok(arguments.run(&connection.open()?)?),
            Command::Completion(arguments) => Ok(generate::completion(&arguments)),
            Command::Man(arguments) => generate::man(&arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn configuration_file_excludes_development_certificates() {
        let both = ["portcullis", "serve", "--config", "x", "--certs-dir", "y"];
        assert!(Cli::try_parse_from(both).is_err());
        assert!(Cli::try_parse_from(["portcullis"]).is_ok());
    }
}

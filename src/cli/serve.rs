//! `portcullis serve`

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::CliError;
use crate::app::{App, StartError, process};
use crate::config::{Config, Overrides};
use crate::telemetry;

/// Arguments of `portcullis serve`.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Run on this configuration. Without it: development mode, with generated certificates.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the registry and the audit log [development mode: data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Directory of the development certificates [development mode: certs/dev].
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    certs_dir: Option<PathBuf>,
    /// Where to listen for MQTT over TLS; port 0 takes any that is free
    /// [development mode: 127.0.0.1:8883].
    #[arg(long, value_name = "ADDR:PORT")]
    mqtt_listen: Option<SocketAddr>,
    /// Where to listen for the admin API; port 0 takes any that is free
    /// [development mode: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR:PORT")]
    admin_listen: Option<SocketAddr>,
}

/// Run the broker until it is told to end.
///
/// # Errors
/// If the configuration is bad or the broker cannot start.
pub fn run(arguments: ServeArgs) -> Result<ExitCode, CliError> {
    let config = configuration(arguments)?;
    telemetry::init_log(&config.log)?;
    process::protect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::System {
            what: "the threads of the broker cannot be started",
            source,
        })?;
    let code = runtime.block_on(serve(config))?;
    // What is left is blocked in a system call, and has had its grace time.
    runtime.shutdown_background();
    Ok(code)
}

fn configuration(arguments: ServeArgs) -> Result<Config, CliError> {
    let overrides = Overrides {
        data_dir: arguments.data_dir,
        mqtt_listen: arguments.mqtt_listen,
        admin_listen: arguments.admin_listen,
    };
    Ok(match arguments.config {
        Some(path) => Config::load(&path, &overrides)?,
        None => Config::development(arguments.certs_dir, &overrides)?,
    })
}

async fn serve(config: Config) -> Result<ExitCode, CliError> {
    let shutdown = CancellationToken::new();
    end_on_signal(shutdown.clone())?;
    let app = match App::build_until(config, &shutdown).await {
        Err(StartError::Interrupted) if shutdown.is_cancelled() => return Ok(ExitCode::SUCCESS),
        built => built?,
    };
    // Whoever closed standard output does not want to read it.
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(app.banner().as_bytes());
    let _ = stdout.flush();
    process::tell_supervisor(&shutdown);
    app.run(shutdown).await;
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM and SIGINT end the broker in order; a second one ends it at once.
fn end_on_signal(shutdown: CancellationToken) -> Result<(), CliError> {
    let watch = |kind| {
        signal(kind).map_err(|source| CliError::System {
            what: "signals cannot be received",
            source,
        })
    };
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                tracing::warn!("told to end a second time, ending at once");
                std::process::exit(1);
            }
            tracing::info!("told to end");
            shutdown.cancel();
        }
    });
    Ok(())
}

//! What operators see: the log and the metrics of the process.

pub mod metrics;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which events are logged, and how they look.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// How a line looks.
    pub format: LogFormat,
    /// Directives such as `info,portcullis::tls=debug`.
    pub filter: String,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be understood.
    #[error("the log filter {filter:?} cannot be understood: {source}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a subscriber already.
    #[error("logging is already set up: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Check that the filter can be understood.
///
/// # Errors
/// If it cannot.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    parse_filter(filter).map(|_| ())
}

/// Send log events to standard error from now on. The router inside the broker is silent: it
/// opens a span for each message, and its events name internal ids only.
///
/// # Errors
/// If the filter cannot be understood, or the process has a subscriber already.
pub fn init_log(settings: &LogSettings) -> Result<(), TelemetryError> {
    let mut filter = parse_filter(&settings.filter)?;
    if let Ok(silent) = "rumqttd=off".parse() {
        filter = filter.add_directive(silent);
    }
    let registry = tracing_subscriber::registry().with(filter);
    match settings.format {
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(io::stderr)
                    .with_ansi(io::stderr().is_terminal()),
            )
            .try_init()?,
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_span_list(false)
                    .with_writer(io::stderr),
            )
            .try_init()?,
    }
    Ok(())
}

fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter {
            filter: filter.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        check_filter("info,portcullis::tls=debug").unwrap();
        assert!(check_filter("portcullis=loud").is_err());
    }
}

//! The program put together: everything that is bound, opened, started and stopped.

mod banner;
pub mod dev_pki;
pub mod private_file;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use dev_pki::DevPkiError;

/// The broker, ready to serve: every socket is bound, the registry is read.
pub struct App {
    banner: String,
}

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The development certificates cannot be made or used.
    #[error(transparent)]
    DevPki(#[from] DevPkiError),
}

impl App {
    /// Bind and open everything that `config` names.
    ///
    /// # Errors
    /// What cannot be bound, opened or read.
    pub async fn build(_config: Config) -> Result<Self, StartError> {
        Ok(Self {
            banner: String::new(),
        })
    }

    /// What to tell whoever started it: addresses, directories, and in the development mode
    /// what to try next.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// Serve until `shutdown` is cancelled, then end what is connected within the grace time.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.cancelled().await;
    }
}

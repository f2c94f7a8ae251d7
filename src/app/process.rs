//! What the process does to itself before it holds a secret, and what it tells who started it.

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::Uid;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// Keep keys and secrets out of core dumps, and other processes of the same user from reading
/// this one's memory. What the system refuses is told and not fatal.
pub fn protect() {
    // The limit alone does not hold where cores are piped to a program (core(5)).
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "core dumps cannot be limited");
    }
    if let Err(error) = prctl::set_dumpable(false) {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
    if Uid::effective().is_root() {
        tracing::warn!(
            "the broker runs as root and needs not: give it a user of its own \
             (config/systemd/portcullis.service does)"
        );
    }
}

/// Tell systemd, if it started the process, that the broker is ready, and later that it ends.
pub fn tell_supervisor(shutdown: &CancellationToken) {
    tell(NotifyState::Ready);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        shutdown.cancelled().await;
        tell(NotifyState::Stopping);
    });
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

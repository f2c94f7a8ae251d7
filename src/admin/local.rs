//! The door for administrators on the host: a Unix socket instead of signatures.
//!
//! The kernel says who is at the other end. Whoever the broker itself runs as, and root, could read
//! and change its files anyway; they may do everything here, and nobody else gets in, whatever
//! the mode of the socket's file.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::{Extension, Router};
use nix::unistd::{Uid, User};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::metrics::{self, Connection};
use crate::admin::router::Peer;
use crate::admin::server::{ConnectionLimits, http};

/// The bound socket. Its file goes when this is dropped.
pub struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
}

/// An administrator on the host, as the kernel told. Only this file makes one.
#[derive(Debug, Clone)]
pub(super) struct HostUser(Arc<str>);

impl HostUser {
    pub(super) fn name(&self) -> &str {
        &self.0
    }
}

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Another broker listens there.
    #[error("another broker listens on {}; stop it, or set admin.socket", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else than a socket has that name.
    #[error("{} is no socket; move it away, or set admin.socket", path.display())]
    NoSocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("the local admin socket {} cannot be made: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Connections at a time; there are only administrators at the other end.
const MOST_CONNECTIONS: usize = 64;

impl LocalListener {
    /// Bind the socket. What a broker that was killed left behind is replaced. Must be called in
    /// a tokio runtime.
    ///
    /// # Errors
    /// If another broker has it, something else is in the way, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, LocalError> {
        let failed = |source| LocalError::Io {
            path: path.to_owned(),
            source,
        };
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(LocalError::InUse {
                        path: path.to_owned(),
                    });
                }
                std::fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => {
                return Err(LocalError::NoSocket {
                    path: path.to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let bound = Self {
            listener,
            path: path.to_owned(),
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(bound)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serve until `shutdown` is cancelled, then until every request under way is answered.
    pub(super) async fn serve(
        self,
        router: Router,
        limits: ConnectionLimits,
        shutdown: CancellationToken,
    ) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!(%error, "local admin connections cannot be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(user) = administrator(&stream) else {
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                metrics::connection(Connection::RefusedTotal);
                continue;
            };
            metrics::connection(Connection::Accepted);
            let router = router.clone().layer(Extension(Peer::Host(user)));
            let (limits, shutdown) = (limits.clone(), shutdown.clone());
            tasks.spawn(async move {
                let _place = place;
                http(stream, router, &limits, &shutdown).await;
            });
        }
        drop(self);
        tasks.close();
        tasks.wait().await;
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        // If it stays, the next start replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Who is at the other end, if it is an administrator.
fn administrator(stream: &UnixStream) -> Option<HostUser> {
    let uid = match stream.peer_cred() {
        Ok(credentials) => Uid::from_raw(credentials.uid()),
        Err(error) => {
            tracing::error!(%error, "who connects to the local admin socket cannot be told");
            return None;
        }
    };
    if !uid.is_root() && uid != Uid::effective() {
        metrics::connection(Connection::RefusedUser);
        tracing::warn!(user.id = uid.as_raw(), "local admin connection refused");
        return None;
    }
    let name = match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    };
    Some(HostUser(name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn socket_is_private_replaced_when_stale_and_gone_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        // What a killed broker leaves.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = LocalListener::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = LocalListener::bind(&path).err().unwrap();
        assert!(matches!(second, LocalError::InUse { .. }), "{second}");
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn file_in_the_way_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = LocalListener::bind(&path).err().unwrap();
        assert!(matches!(error, LocalError::NoSocket { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}

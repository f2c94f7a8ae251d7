//! The HTTP door without a network, for the fuzz targets.

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use super::router::{self, Api, Peer};

/// Answers connections that are octets in memory.
pub struct Door {
    runtime: Runtime,
    router: Router,
}

impl Door {
    /// Answer with `api`.
    ///
    /// # Panics
    /// If the system gives no resources.
    #[allow(clippy::expect_used, reason = "not in the program")]
    pub fn new(api: Api) -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime"),
            router: router::router(api).layer(Extension(Peer::Network(([127, 0, 0, 1], 1).into()))),
        }
    }

    /// What is answered to a client that sends these octets and no more.
    pub fn answer(&self, octets: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let (client, server) = tokio::io::duplex(64 * 1024);
            let (mut from, mut to) = tokio::io::split(client);
            let connection = http1::Builder::new()
                .max_buf_size(64 * 1024)
                .max_headers(200)
                .serve_connection(
                    TokioIo::new(server),
                    TowerToHyperService::new(self.router.clone()),
                );
            let mut answers = Vec::new();
            let send = async {
                let _ = to.write_all(octets).await;
                let _ = to.shutdown().await;
            };
            let _ = tokio::join!(connection, send, from.read_to_end(&mut answers));
            answers
        })
    }
}

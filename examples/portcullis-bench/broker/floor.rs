//! The floor: TLS with a client certificate verified by rustls's own verifier, CONNACK for whatever
//! comes first, and nothing else.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use ::portcullis::tls::server_config::no_resumption;
use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::Place;
use crate::Result;
use crate::pki::rustls_as_it_comes;

/// How this program is the floor.
#[derive(Debug, Args)]
pub struct FloorArgs {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    certs: PathBuf,
}

pub(super) fn command(at: &Place<'_>) -> Result<Command> {
    let mut command = Command::new(at.program);
    command.args(["floor", "--port", &at.port.to_string(), "--certs"]);
    command.arg(at.certs);
    Ok(command)
}

/// Be the floor until killed.
pub fn serve(args: &FloorArgs) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(args.certs.join("ca.pem"))?)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), rustls_as_it_comes())
            .build()?;
    let mut config = ServerConfig::builder_with_provider(rustls_as_it_comes())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(
                args.certs.join("server.pem"),
            )?],
            PrivateKeyDer::from_pem_file(args.certs.join("server.key"))?,
        )?;
    // Portcullis does not either; it makes a connection cheaper.
    no_resumption(&mut config);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let acceptor = acceptor.clone();
            // What goes wrong with one client is of no interest.
            tokio::spawn(async move { client(acceptor, stream).await.ok() });
        }
    })
}

async fn client(acceptor: TlsAcceptor, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut octets = [0; 512];
    let mut connected = false;
    while stream.read(&mut octets).await? > 0 {
        if !connected {
            stream.write_all(&[0x20, 2, 0, 0]).await?;
            connected = true;
        }
    }
    Ok(())
}

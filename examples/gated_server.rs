//! The gate in a server of your own: a TLS echo server that admits the devices of registered CAs.
//!
//! ```text
//! cargo run --example gated_server -- 127.0.0.1:4433 server.pem server.key device-ca.pem
//! openssl s_client -connect 127.0.0.1:4433 -cert device.pem -key device.key -quiet
//! ```
//!
//! Type `off` or `on` on its standard input to switch the CA: connections end at once, and new
//! handshakes are refused with the alert `access_denied` until it is on again.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis::ca::certificate::CaCertificate;
use portcullis::ca::id::InstanceId;
use portcullis::ca::lifecycle::Status;
use portcullis::ca::registry::{Purpose, Registry};
use portcullis::ca::topology::SameKey;
use portcullis::tls::acceptor::{Accepted, GateAcceptor};
use portcullis::tls::live::LivePeers;
use portcullis::tls::server_config::{TlsVersions, algorithms, provider, server_config};
use portcullis::tls::verifier::CaVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [listen, chain, key, ca] = arguments.as_slice() else {
        return Err("usage: gated_server ADDR:PORT SERVER.pem SERVER.key DEVICE-CA.pem".into());
    };

    // The registry says whom the gate admits. It starts empty, which admits nobody.
    let registry = Arc::new(Registry::new(SameKey::Deny, algorithms()));
    let ca = CaCertificate::from_pem(&std::fs::read_to_string(ca)?)?;
    let ca_id = ca.id();
    registry.insert(Arc::new(ca), Purpose::Device, Status::Active)?;

    // The verifier asks the registry. It works in any rustls configuration that has no session
    // resumption; `server_config` makes one.
    let instance: InstanceId = "example".parse()?;
    let verifier = Arc::new(CaVerifier::new(
        instance,
        Arc::clone(&registry),
        provider().signature_verification_algorithms,
    ));
    let config = server_config(
        verifier,
        CertificateDer::pem_file_iter(chain)?.collect::<Result<_, _>>()?,
        PrivateKeyDer::from_pem_file(key)?,
        TlsVersions::From12,
    )?;

    // The acceptor runs handshakes and knows who is connected, so that a change finds them.
    let peers = LivePeers::new();
    let acceptor = GateAcceptor::new(
        Arc::new(config),
        Arc::clone(&registry),
        Arc::clone(&peers),
        Duration::from_secs(10),
    );
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    tokio::spawn(accept(listener, acceptor));

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let status = match line.trim() {
            "off" => Status::Inactive,
            "on" => Status::Active,
            _ => continue,
        };
        // Deny, wait for the handshakes that are running a step, then end the connections.
        let effects = registry.set_status(ca_id, status);
        registry.barrier();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let ended = peers.cut_over(&effects.denied, &registry, now.try_into()?);
        println!("the CA is {status}; {ended} connections end");
    }
    std::future::pending().await
}

async fn accept(listener: TcpListener, acceptor: GateAcceptor) {
    while let Ok((stream, remote)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(accepted) = acceptor.accept(stream, remote).await {
                serve(accepted).await;
            }
        });
    }
}

async fn serve(accepted: Accepted<TcpStream>) {
    let Accepted { stream, live } = accepted;
    println!("{} is in", live.peer().common_name().unwrap_or("a device"));
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::select! {
        _ = tokio::io::copy(&mut read, &mut write) => {}
        cut = live.until_cut() => println!("it has to go: {cut}"),
    }
}

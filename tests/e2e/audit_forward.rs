//! Audit records that are sent to a collector as well.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::harness::{Broker, DEADLINE};

/// The collector, which shows the certificate of the broker's own server: it is for `localhost`.
fn collector(broker: &Broker) -> Arc<ServerConfig> {
    let certs = broker.home().path().join("certs");
    let chain = CertificateDer::from_pem_file(certs.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certs.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key);
    Arc::new(config.unwrap())
}

/// The next connection.
fn accept(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
) -> BufReader<StreamOwned<ServerConnection, std::net::TcpStream>> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let tls = ServerConnection::new(Arc::clone(config)).unwrap();
    BufReader::new(StreamOwned::new(tls, stream))
}

/// The record in the next message (RFC 5424) after its length (RFC 5425); `None` at the end.
fn message(stream: &mut impl BufRead) -> Option<Value> {
    let mut length = Vec::new();
    if stream.read_until(b' ', &mut length).ok()? == 0 {
        return None;
    }
    let length: usize = std::str::from_utf8(&length)
        .unwrap()
        .trim_end()
        .parse()
        .unwrap();
    let mut message = vec![0; length];
    stream.read_exact(&mut message).unwrap();
    let message = String::from_utf8(message).unwrap();
    let (head, record) = message.split_once(" - {").unwrap();
    assert!(
        head.starts_with("<85>1 20") || head.starts_with("<84>1 20"),
        "{head}"
    );
    assert!(head.contains(" portcullis "), "{head}");
    Some(serde_json::from_str(&format!("{{{record}")).unwrap())
}

/// A broker that sends its records to this port over TLS, to whom this CA vouches for.
fn forwarding(port: u16, ca: &str) -> Broker {
    Broker::start_with_lines(|_| {
        format!("[audit.forward]\nto = \"tls:localhost:{port}\"\nca_file = \"certs/{ca}.pem\"\n")
    })
}

fn hashes(records: &[Value]) -> Vec<&str> {
    let hashes = records.iter().map(|it| it["hash"].as_str().unwrap());
    hashes.collect()
}

#[test]
fn collector_over_tls_gets_every_record_also_those_it_missed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = forwarding(listener.local_addr().unwrap().port(), "server-ca");
    let config = collector(&broker);
    let sn = broker.api().sn_of("ca-a");
    broker.api().inactivate(&sn);
    let mut stream = accept(&listener, &config);
    let mut received = Vec::new();
    while received.len() < broker.audit_records().len() {
        received.push(message(&mut stream).unwrap());
    }
    drop(stream);

    // It is away, and the broker goes and comes.
    broker.api().activate(&sn);
    let home = broker.kill9();
    let broker = Broker::start_with_config(home.clone(), &home.path().join("portcullis.toml"));
    broker.api().inactivate(&sn);
    let written = broker.audit_records();
    // The first connection may still be the one of the broker that was killed.
    let mut stream = accept(&listener, &config);
    while received.last() != written.last() {
        match message(&mut stream) {
            Some(record) => received.push(record),
            None => stream = accept(&listener, &config),
        }
    }
    // What was on its way when the broker or the collector went may come twice.
    received.sort_by_key(|it| it["seq"].as_u64());
    received.dedup();
    assert_eq!(hashes(&received), hashes(&written));
    broker.stop();
    let mut rest = Vec::new();
    // What ends with the broker's end is no more than that.
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn collector_that_nobody_vouches_for_gets_nothing_and_holds_nobody_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = forwarding(listener.local_addr().unwrap().port(), "admin-ca");
    let mut stream = accept(&listener, &collector(&broker));
    let mut heard = Vec::new();
    assert!(stream.read_to_end(&mut heard).is_err());
    assert!(heard.is_empty(), "{heard:?}");
    let sn = broker.api().sn_of("ca-a");
    broker.api().inactivate(&sn);
    broker.wait_log("it is told", |line| {
        line.contains("audit records cannot be forwarded") && line.contains("UnknownIssuer")
    });
    broker.stop();
}

//! Who has no business here at all.

use rustls::AlertDescription::{self, CertificateRequired, UnknownCA};

use crate::harness::pki::{Ca, device_params};
use crate::harness::tls::{BOTH, TlsClient, Version};
use crate::harness::{Broker, End};

#[test]
fn device_of_unregistered_ca_is_refused_as_unknown() {
    let broker = Broker::start();
    let x1 = broker.identity("device-x1");
    for version in BOTH {
        broker.client(&x1, version).refused_with(UnknownCA);
    }
    let tools = broker.mosquitto("device-x1");
    assert_ne!(tools.publish(&["-t", "x", "-m", "x"]).code, 0);
    let line = broker.wait_log("the refusal", |line| {
        line.contains(&crate::harness::pki::sn(&x1.chain[0]))
    });
    assert!(line.contains("unknown"), "{line}");
}

#[test]
fn client_without_certificate_is_refused() {
    let broker = Broker::start();
    for version in BOTH {
        let client = TlsClient::new(broker.mqtt, &broker.cert("server-ca.pem"), None, version);
        let expected = match version {
            Version::V13 => CertificateRequired,
            // TLS 1.2 has no alert of its own for it (RFC 5246, 7.4.6).
            Version::V12 => AlertDescription::HandshakeFailure,
        };
        let end = client.refusal();
        let allowed = [expected, CertificateRequired];
        assert!(
            matches!(end, End::Alert(alert) if allowed.contains(&alert)),
            "{version:?}: {end}"
        );
    }
}

#[test]
fn ca_certificate_used_as_a_device_is_refused() {
    let broker = Broker::start();
    let ca = broker.identity("ca-a");
    for version in BOTH {
        let end = broker.client(&ca, version).refusal();
        assert!(matches!(end, End::Alert(_)), "{version:?}: {end}");
    }
}

#[test]
fn server_certificate_used_as_a_device_is_refused() {
    let broker = Broker::start();
    let ca = Ca::load(&broker, "ca-a");
    let mut params = device_params("a server");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let server = ca.issue_device(params, &[]);
    for version in BOTH {
        let end = broker.client(&server, version).refusal();
        assert!(matches!(end, End::Alert(_)), "{version:?}: {end}");
    }
}

#[test]
fn plain_text_client_is_dropped_and_others_go_on() {
    use std::io::{Read, Write};
    let broker = Broker::start();
    let mut socket = std::net::TcpStream::connect(broker.mqtt).unwrap();
    socket
        .set_read_timeout(Some(crate::harness::DEADLINE))
        .unwrap();
    // An MQTT 3.1.1 CONNECT without TLS.
    let connect = [16, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'x'];
    socket.write_all(&connect).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert!(
        answer.is_empty() || answer[0] == 21,
        "nothing, or a TLS alert: {answer:?}"
    );
    assert!(broker.admits(&broker.identity("device-a1")));
}

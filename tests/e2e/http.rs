//! Health and metrics.

use crate::harness::api::get;
use crate::harness::{Broker, Version, wait_until};

#[test]
fn live_and_ready_answer_200() {
    let broker = Broker::start();
    for path in ["/live", "/ready"] {
        let answer = get(broker.admin, path).unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

#[test]
fn metrics_count_handshakes_and_refusals() {
    let broker = Broker::start();
    let api = broker.api();
    assert!(broker.admits(&broker.identity("device-a1")));
    api.inactivate(&api.sn_of("ca-a"));
    broker
        .client(&broker.identity("device-a1"), Version::V13)
        .refused_with(rustls::AlertDescription::AccessDenied);
    let text = wait_until("the refusal is counted", || {
        let answer = get(broker.admin, "/metrics").unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.headers.contains("content-type: text/plain"));
        let refused = r#"portcullis_handshakes_total{outcome="ca_inactive"} 1"#;
        answer.text.contains(refused).then_some(answer.text)
    });
    let accepted = r#"portcullis_handshakes_total{outcome="accepted"} 1"#;
    assert!(text.contains(accepted), "{text}");
    let help = text.lines().filter(|l| l.starts_with("# HELP")).count();
    let kinds = text.lines().filter(|l| l.starts_with("# TYPE")).count();
    assert!(kinds > 0 && help == kinds, "each family is described");
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("portcullis_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(!line.contains("device-a1"), "a name of a client's: {line}");
    }
}

#[test]
fn hostile_requests_do_not_end_the_admin_api() {
    use std::io::{Read, Write};
    let broker = Broker::start();
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(20_000));
    for request in [
        "\0\0\0\0",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /%zz?a=%&b=%f HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n",
        &long,
        &many,
    ] {
        let mut socket = std::net::TcpStream::connect(broker.admin).unwrap();
        socket
            .set_read_timeout(Some(std::time::Duration::from_millis(500)))
            .unwrap();
        let _ = socket.write_all(request.as_bytes());
        let _ = socket.read(&mut [0; 1024]);
    }
    assert_eq!(get(broker.admin, "/live").unwrap().status, 200);
    assert!(!broker.api().list().is_empty());
}

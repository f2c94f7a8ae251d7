use tokio::io::AsyncReadExt;

use super::*;

/// A request that gets a WebSocket, with the key of RFC 6455, section 1.3.
const GOOD: &str = "GET /mqtt HTTP/1.1\r\n\
    Host: broker.example\r\n\
    Upgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// What comes of a request: the answer, and why there is no WebSocket.
async fn ask(door: &Door, request: &[u8]) -> (String, Option<NoUpgrade>) {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    far.write_all(request).await.unwrap();
    let outcome = upgrade(near, door).await;
    let refusal = outcome.as_ref().err().copied();
    drop(outcome);
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.unwrap();
    (String::from_utf8(answer).unwrap(), refusal)
}

async fn refused(request: &str, refusal: NoUpgrade, status: &str) -> String {
    let (answer, found) = ask(&Door::default(), request.as_bytes()).await;
    assert_eq!(found, Some(refusal), "{request}");
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{answer}"
    );
    answer
}

#[tokio::test]
async fn good_request_gets_the_proof_and_the_subprotocol() {
    let (answer, refusal) = ask(&Door::default(), GOOD.as_bytes()).await;
    assert_eq!(refusal, None);
    let answer = answer.to_ascii_lowercase();
    for line in [
        "http/1.1 101 switching protocols",
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
        "sec-websocket-protocol: mqtt",
    ] {
        assert!(
            answer.lines().any(|found| found == line),
            "{line}\n{answer}"
        );
    }
    assert!(!answer.contains("extensions"), "{answer}");
}

#[tokio::test]
async fn request_that_is_not_good_is_told_why() {
    for (from, to, refusal, status) in [
        ("/mqtt", "/", NoUpgrade::Path, "404"),
        ("/mqtt", "/mqtt/", NoUpgrade::Path, "404"),
        ("GET", "POST", NoUpgrade::Method, "405"),
        ("Upgrade: websocket\r\n", "", NoUpgrade::NotAsked, "426"),
        ("websocket", "h2c", NoUpgrade::NotAsked, "426"),
        (
            "keep-alive, Upgrade",
            "keep-alive",
            NoUpgrade::NotAsked,
            "426",
        ),
        ("Version: 13", "Version: 8", NoUpgrade::Version, "426"),
        (
            "Version: 13",
            "Version: 13\r\nSec-WebSocket-Version: 13",
            NoUpgrade::Version,
            "426",
        ),
        (
            "dGhlIHNhbXBsZSBub25jZQ==",
            "dGhl",
            NoUpgrade::Malformed,
            "400",
        ),
        ("Host: broker.example\r\n", "", NoUpgrade::Malformed, "400"),
        (
            "mqttv3.1, mqtt",
            "mqttv3.1, MQTT",
            NoUpgrade::Subprotocol,
            "400",
        ),
        (
            "Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n",
            "",
            NoUpgrade::Subprotocol,
            "400",
        ),
        (
            "Host",
            "Origin: https://evil.example\r\nHost",
            NoUpgrade::Origin,
            "403",
        ),
        ("Host", "Origin: null\r\nHost", NoUpgrade::Origin, "403"),
        ("Host", "Origin:\r\nHost", NoUpgrade::Origin, "403"),
        ("HTTP/1.1", "HTTP/2.0", NoUpgrade::NoRequest, ""),
        ("GET /mqtt", "G\0T /mqtt", NoUpgrade::NoRequest, "400"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let answer = refused(&GOOD.replacen(from, to, 1), refusal, status).await;
        assert!(
            status.is_empty() || answer.contains("onnection: "),
            "{answer}"
        );
    }
    let answer = refused(
        "GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n",
        NoUpgrade::NotAsked,
        "426",
    )
    .await;
    assert!(answer.contains("upgrade: websocket"), "{answer}");
}

#[tokio::test]
async fn listed_pages_may_connect() {
    let door = Door {
        path: "/".to_owned(),
        origins: vec!["https://console.example".parse().unwrap()],
    };
    let from = |origin: &str| {
        let request = GOOD.replacen("/mqtt", "/?x=1", 1);
        request.replacen("Host", &format!("Origin: {origin}\r\nHost"), 1)
    };
    let (_, refusal) = ask(&door, from("https://console.example").as_bytes()).await;
    assert_eq!(refusal, None);
    for origin in [
        "http://console.example",
        "https://console.example:8443",
        "https://console.example.evil.example",
        "https://console.example\r\nOrigin: https://console.example",
    ] {
        let (_, refusal) = ask(&door, from(origin).as_bytes()).await;
        assert_eq!(refusal, Some(NoUpgrade::Origin), "{origin}");
    }
}

/// As Eclipse Paho does.
#[tokio::test]
async fn client_may_name_the_address_that_it_connects_to() {
    let named = |host: &str, origin: &str| {
        let named = format!("Host: {host}\r\nOrigin: {origin}");
        GOOD.replacen("Host: broker.example", &named, 1)
    };
    for (host, origin) in [
        ("broker.example:8884", "https://broker.example:8884"),
        ("broker.example", "https://broker.example:443"),
        ("[::1]:8884", "https://[::1]:8884"),
    ] {
        let request = named(host, origin);
        let (_, refusal) = ask(&Door::default(), request.as_bytes()).await;
        assert_eq!(refusal, None, "{request}");
    }
    for (host, origin) in [
        ("broker.example:8884", "http://broker.example:8884"),
        ("broker.example:8884", "https://broker.example"),
        ("broker.example:8884", "https://evil.example:8884"),
        ("evil.example@broker.example", "https://broker.example"),
        ("", "https://"),
    ] {
        let request = named(host, origin);
        let (_, refusal) = ask(&Door::default(), request.as_bytes()).await;
        assert_eq!(refusal, Some(NoUpgrade::Origin), "{request}");
    }
}

#[tokio::test]
async fn request_that_is_too_long_is_not_read_to_its_end() {
    let long = format!("x: {}\r\nHost", "x".repeat(REQUEST_MAX));
    refused(
        &GOOD.replacen("Host", &long, 1),
        NoUpgrade::NoRequest,
        "431",
    )
    .await;
    let many = format!("{}Host", "x: x\r\n".repeat(200));
    refused(
        &GOOD.replacen("Host", &many, 1),
        NoUpgrade::NoRequest,
        "431",
    )
    .await;
}

#[tokio::test]
async fn request_that_ends_early_is_none() {
    for end in [0, 1, 20, GOOD.len() - 1] {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        far.write_all(&GOOD.as_bytes()[..end]).await.unwrap();
        drop(far);
        let outcome = upgrade(near, &Door::default()).await;
        assert_eq!(outcome.err(), Some(NoUpgrade::NoRequest), "{end}");
    }
}

#[tokio::test]
async fn octets_behind_the_request_are_passed_on() {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let frame = [0x82, 0x83, 0, 0, 0, 0, b'a', b'b', b'c'];
    far.write_all(&[GOOD.as_bytes(), &frame].concat())
        .await
        .unwrap();
    let mut socket = upgrade(near, &Door::default()).await.unwrap();
    let mut read = [0; 3];
    socket.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"abc");
}

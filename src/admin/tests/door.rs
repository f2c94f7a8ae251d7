//! What the HTTP door lets through and how it refuses.

use super::*;
use crate::testing::TestCa;

#[test]
fn signed_request_is_carried_out_once() {
    let server = Server::echo(Setup::default());
    let request = server.signed("InactivateCaCertificate", "Sn=a+b*~%C3%A4&MqttInstanceId=i");
    let answer = server.raw(request.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["Sn"], "a b*~ä");
    assert_eq!(body["Account"], "owner");
    assert_eq!(body["RequestId"], answer.headers["x-acs-request-id"]);
    assert!(body.get("Code").is_none());

    let again = server.raw(request.as_bytes());
    assert_eq!(again.code(), (400, text(Code::SignatureNonceUsed)));
}

#[test]
fn tampering_with_any_signed_part_is_refused() {
    let server = Server::echo(Setup::default());
    for (from, to) in [
        ("Sn=1", "Sn=2"),
        ("InactivateCa", "ActiveCa"),
        ("POST", "GET"),
        ("x-acs-version: 2020-04-20", "x-acs-version: 2020-04-21"),
        ("x-acs-signature-nonce: ", "x-acs-signature-nonce: 0"),
        ("host: 127", "host: 128"),
    ] {
        let request = server.signed("InactivateCaCertificate", "Sn=1");
        let tampered = request.replacen(from, to, 1);
        assert_ne!(request, tampered, "{from}");
        let answer = server.raw(tampered.as_bytes());
        assert_eq!(
            answer.code(),
            (400, text(Code::SignatureDoesNotMatch)),
            "{from}"
        );
        let message = answer.json()["Message"].as_str().unwrap().to_owned();
        assert!(message.contains("sign is:ACS3-HMAC-SHA256\n"), "{message}");
    }
}

#[test]
fn every_refusal_before_a_call_is_json_with_a_request_id() {
    let server = Server::echo(Setup::default());
    let long = "a".repeat(40 * 1024);
    let many: String = (0..120).map(|n| format!("h{n}: x\r\n")).collect();
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    for (request, status, code) in [
        (
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            400,
            Code::MissingAccessKeyId,
        ),
        (
            "GET /nothing HTTP/1.1\r\n\r\n".to_owned(),
            404,
            Code::ApiNotFound,
        ),
        (
            "GET //live/.. HTTP/1.1\r\n\r\n".to_owned(),
            404,
            Code::ApiNotFound,
        ),
        (
            "PUT / HTTP/1.1\r\n\r\n".to_owned(),
            405,
            Code::UnsupportedHttpMethod,
        ),
        (
            "DELETE / HTTP/1.1\r\n\r\n".to_owned(),
            405,
            Code::UnsupportedHttpMethod,
        ),
        (
            "BREW / HTTP/1.1\r\n\r\n".to_owned(),
            405,
            Code::UnsupportedHttpMethod,
        ),
        (
            "POST /live HTTP/1.1\r\n\r\n".to_owned(),
            405,
            Code::UnsupportedHttpMethod,
        ),
        (
            format!("GET /?a={long} HTTP/1.1\r\n\r\n"),
            431,
            Code::HeadTooLarge,
        ),
        (
            format!("GET / HTTP/1.1\r\na: {long}\r\n\r\n"),
            431,
            Code::HeadTooLarge,
        ),
        (
            format!("GET / HTTP/1.1\r\n{many}\r\n"),
            431,
            Code::HeadTooLarge,
        ),
        (
            "GET /?Sn=1&Sn=2 HTTP/1.1\r\n\r\n".to_owned(),
            400,
            Code::ParameterCheckFailed,
        ),
        (
            "GET /?Sn=%zz HTTP/1.1\r\n\r\n".to_owned(),
            400,
            Code::ParameterCheckFailed,
        ),
        (
            "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
            400,
            Code::ParameterCheckFailed,
        ),
        (
            format!("POST /?Signature=1 HTTP/1.1\r\n{form}content-length: 4\r\n\r\nSn=1"),
            400,
            Code::MissingSignatureMethod,
        ),
        (
            "GET /?SignatureType=BEARERTOKEN HTTP/1.1\r\nx-acs-bearer-token: t\r\n\r\n".to_owned(),
            400,
            Code::InvalidSignatureMethod,
        ),
        (
            "GET / HTTP/1.1\r\nauthorization: ACS3-HMAC-SM3 x\r\n\r\n".to_owned(),
            400,
            Code::InvalidSignatureMethod,
        ),
        (
            "GET / HTTP/1.1\r\nauthorization: Basic x\r\n\r\n".to_owned(),
            400,
            Code::IncompleteSignature,
        ),
    ] {
        let request = request.replacen("\r\n", "\r\nhost: h\r\nconnection: close\r\n", 1);
        let answer = server.raw(request.as_bytes());
        assert_eq!(answer.code(), (status, text(code)), "{request:.80}");
    }
}

#[test]
fn what_cannot_be_read_as_a_request_is_answered_in_json_too() {
    let server = Server::echo(Setup::default());
    let long = "a".repeat(70_000);
    let many = "h: x\r\n".repeat(250);
    for (request, status, code) in [
        ("\0\r\n\r\n", 400, Code::ParameterCheckFailed),
        ("GET / HTTP/9.9\r\n\r\n", 400, Code::ParameterCheckFailed),
        (
            "GET / HTTP/1.1\r\nno field\r\n\r\n",
            400,
            Code::ParameterCheckFailed,
        ),
        (
            "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            400,
            Code::ParameterCheckFailed,
        ),
        (
            &format!("GET / HTTP/1.1\r\n{many}\r\n"),
            431,
            Code::HeadTooLarge,
        ),
        (
            &format!("GET /?{long} HTTP/1.1\r\n\r\n"),
            414,
            Code::HeadTooLarge,
        ),
    ] {
        let answer = server.raw(request.as_bytes());
        assert_eq!(answer.code(), (status, text(code)), "{request:.40}");
        assert_eq!(
            answer.headers["content-length"],
            answer.body.len().to_string()
        );
        assert_eq!(answer.json()["HostId"], "portcullis");
    }
    // Behind a request that is one, on the same connection.
    let one = server
        .signed("GetCaCertificate", "Sn=1")
        .replace("connection: close\r\n", "");
    let both = server.raw(format!("{one}nonsense\r\n\r\n").as_bytes());
    assert_eq!(both.status, 200);
    assert!(
        both.body.contains("HTTP/1.1 400") && both.body.ends_with('}'),
        "{both:?}"
    );
}

#[test]
fn other_formats_than_json_are_refused() {
    let server = Server::echo(Setup::default());
    for format in ["XML", "xml", "RAW"] {
        let request = server.signed("GetCaCertificate", &format!("Sn=1&Format={format}"));
        let answer = server.raw(request.as_bytes());
        assert_eq!(answer.code(), (400, text(Code::InvalidParameterFormat)));
    }
    for format in ["JSON", "json", ""] {
        let request = server.signed("GetCaCertificate", &format!("Sn=1&Format={format}"));
        assert_eq!(server.raw(request.as_bytes()).status, 200);
    }
}

#[test]
fn body_over_the_limit_is_refused_whether_announced_or_not() {
    let server = Server::echo(Setup {
        limits: RequestLimits {
            body: 10,
            ..RequestLimits::default()
        },
        ..Setup::default()
    });
    for request in [
        "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 11\r\n\r\n01234567890",
        "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n",
    ] {
        let answer = server.raw(request.as_bytes());
        assert_eq!(answer.code(), (413, text(Code::BodyTooLarge)));
    }
}

#[test]
fn slow_head_and_slow_body_are_not_waited_for() {
    let impatient = Duration::from_millis(50);
    let server = Server::echo(Setup {
        limits: RequestLimits {
            body_timeout: impatient,
            ..RequestLimits::default()
        },
        ..Setup::default()
    });
    let answer = server
        .raw(b"POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 9\r\n\r\nx");
    assert_eq!(answer.code(), (408, text(Code::RequestTimeout)));
    let server = Server::echo(Setup {
        connections: ConnectionLimits {
            head_timeout: impatient,
            ..ConnectionLimits::default()
        },
        ..Setup::default()
    });
    for silent in ["", "GET / HTTP/1.1\r\nhost"] {
        let answer = server.raw(silent.as_bytes());
        assert_ne!(answer.status, 200);
    }
}

#[test]
fn panic_in_one_call_is_an_internal_error_and_ends_nothing_else() {
    let server = Server::echo(Setup::default());
    for sn in ["panic", "fail"] {
        let answer = server.raw(
            server
                .signed("GetCaCertificate", &format!("Sn={sn}"))
                .as_bytes(),
        );
        assert_eq!(answer.code(), (500, text(Code::InternalError)));
        assert!(!answer.body.contains("a cause") && !answer.body.contains("as asked"));
    }
    let answer = server.raw(server.signed("GetCaCertificate", "Sn=1").as_bytes());
    assert_eq!(answer.status, 200);
}

#[test]
fn call_that_takes_too_long_is_answered() {
    let settings = ServiceSettings {
        call_timeout: Duration::from_millis(20),
        ..ServiceSettings::default()
    };
    let server = Server::echo(Setup {
        settings,
        ..Setup::default()
    });
    let answer = server.raw(server.signed("GetCaCertificate", "Sn=never").as_bytes());
    assert_eq!(answer.code(), (503, text(Code::ServiceUnavailable)));
}

#[test]
fn account_over_its_rate_is_told_when_to_come_again() {
    let server = Server::echo(Setup {
        settings: per_second(1),
        ..Setup::default()
    });
    // At one a second, one of these is over the rate however slow this host is.
    let throttled = (0..100)
        .map(|_| server.raw(server.signed("GetCaCertificate", "Sn=1").as_bytes()))
        .find(|answer| answer.status != 200)
        .unwrap();
    assert_eq!(throttled.code(), (429, text(Code::ThrottlingUser)));
    let wait: u64 = throttled.headers["x-acs-retry-after"].parse().unwrap();
    assert!((1..=1000).contains(&wait));
}

#[test]
fn call_over_the_rate_uses_nothing_up_and_costs_no_flush() {
    let keeper = Arc::new(TestKeeper::default());
    let server = Server::echo(Setup {
        settings: per_second(1),
        keeper: Arc::clone(&keeper),
        ..Setup::default()
    });
    let mut carried_out = 0;
    let throttled = loop {
        let request = server.signed("GetCaCertificate", "Sn=1");
        match server.raw(request.as_bytes()).status {
            200 => carried_out += 1,
            _ => break request,
        }
    };
    assert_eq!(keeper.kept.lock().unwrap().len(), carried_out);
    // A client may send the same once more: it was not carried out.
    while server.raw(throttled.as_bytes()).status == 429 {}
    assert_eq!(keeper.kept.lock().unwrap().len(), carried_out + 1);
    let again = server.raw(throttled.as_bytes());
    assert_eq!(again.code(), (400, text(Code::SignatureNonceUsed)));
}

#[test]
fn repeated_requests_do_not_use_up_the_rate_of_the_account() {
    let server = Server::echo(Setup {
        settings: per_second(2),
        ..Setup::default()
    });
    // Whoever recorded one could keep the account from calling otherwise.
    let recorded = server.signed("GetCaCertificate", "Sn=1");
    assert_eq!(server.raw(recorded.as_bytes()).status, 200);
    for _ in 0..20 {
        let answer = server.raw(recorded.as_bytes());
        assert_eq!(answer.code(), (400, text(Code::SignatureNonceUsed)));
    }
    let fresh = server.signed("GetCaCertificate", "Sn=1");
    assert_eq!(server.raw(fresh.as_bytes()).status, 200);
}

#[test]
fn failing_disk_keeps_nobody_from_denying_and_reading() {
    let keeper = Arc::new(TestKeeper::default());
    keeper
        .broken
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let server = Server::echo(Setup {
        keeper,
        ..Setup::default()
    });
    for (action, status) in [
        ("InactivateCaCertificate", 200),
        ("InactivateDeviceCertificate", 200),
        ("ListCaCertificate", 200),
        ("ActiveCaCertificate", 503),
        ("RegisterCaCertificate", 503),
        ("DeleteCaCertificate", 503),
    ] {
        let request = server.signed(action, "Sn=1");
        let answer = server.raw(request.as_bytes());
        assert_eq!(answer.status, status, "{action}: {answer:?}");
        if status == 503 {
            assert_eq!(answer.code(), (503, text(Code::ServiceUnavailable)));
            assert!(answer.body.contains("cannot be written to disk"));
        }
        let again = server.raw(request.as_bytes());
        assert_eq!(again.code(), (400, text(Code::SignatureNonceUsed)));
    }
}

#[test]
fn too_much_at_once_is_refused_and_health_still_answers() {
    let limits = RequestLimits {
        concurrent: 0,
        ..RequestLimits::default()
    };
    let server = Server::echo(Setup {
        limits,
        ..Setup::default()
    });
    let answer = server.raw(server.signed("GetCaCertificate", "Sn=1").as_bytes());
    assert_eq!(answer.code(), (503, text(Code::ServiceUnavailable)));
    assert!(answer.headers.contains_key("x-acs-retry-after"));
    let answer = server.raw(b"GET /live HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    assert_eq!(answer.status, 200);
}

#[test]
fn slow_bodies_of_strangers_take_no_turn() {
    let server = Server::echo(Setup {
        limits: RequestLimits {
            concurrent: 1,
            ..RequestLimits::default()
        },
        ..Setup::default()
    });
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            let head = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nx";
            stream.write_all(head).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    let answer = server.raw(server.signed("GetCaCertificate", "Sn=1").as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    drop(slow);
}

#[test]
fn health_and_metrics_need_no_signature() {
    let server = Server::echo(Setup::default());
    let get = |path| {
        server
            .raw(format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").as_bytes())
    };
    assert_eq!(get("/live").json(), json!({ "Status": "live" }));
    let ready = get("/ready");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["Reason"], "no store");
    let metrics = get("/metrics");
    assert_eq!(
        (metrics.status, metrics.body.as_str()),
        (200, "portcullis_up 1\n")
    );
    assert!(metrics.headers["content-type"].starts_with("text/plain; version=0.0.4"));
}

#[test]
fn unknown_and_unsupported_operations_are_told_apart() {
    let server = Server::echo(Setup::default());
    for (action, code) in [
        ("NoSuchOperation", Code::ApiNotFound),
        ("getcacertificate", Code::ApiNotFound),
        ("SendMessage", Code::ApiNotSupport),
    ] {
        let answer = server.raw(server.signed(action, "").as_bytes());
        assert_eq!(answer.code(), (404, text(code)), "{action}");
    }
    let answer = server.raw(server.signed("SetSniConfig", "").as_bytes());
    assert_eq!(answer.code(), (404, text(Code::ApiNotSupport)));
    let message = answer.json()["Message"].to_string();
    assert!(message.contains("configuration file"), "{message}");
}

#[test]
fn one_address_cannot_take_all_connections() {
    let connections = ConnectionLimits {
        per_address: 2,
        ..ConnectionLimits::default()
    };
    let server = Server::echo(Setup {
        connections,
        ..Setup::default()
    });
    let live = b"GET /live HTTP/1.1\r\nhost: h\r\n\r\n";
    let open = || {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let _ = stream.write_all(live);
        (stream.read_exact(&mut [0]).is_ok(), stream)
    };
    let (first, second) = (open(), open());
    assert!(first.0 && second.0);
    assert!(!open().0);
    drop((first, second));
    // The places come back once the server has seen the connections end.
    while !open().0 {}
}

#[test]
fn connection_is_kept_for_the_next_request() {
    let server = Server::echo(Setup::default());
    let one = server
        .signed("GetCaCertificate", "Sn=1")
        .replace("connection: close\r\n", "");
    let two = server.signed("GetCaCertificate", "Sn=2");
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(one.as_bytes()).unwrap();
    stream.write_all(two.as_bytes()).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2);
}

#[test]
fn shutdown_does_not_wait_for_idle_connections() {
    let mut server = Server::echo(Setup::default());
    let mut idle = TcpStream::connect(server.address).unwrap();
    idle.write_all(b"GET /live HTTP/1.1\r\nhost: h\r\n\r\n")
        .unwrap();
    let mut first = [0; 1];
    idle.read_exact(&mut first).unwrap();
    server.shutdown.cancel();
    let serving = server.serving.take().unwrap();
    server.runtime.block_on(serving).unwrap();
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn https_is_trusted_by_the_ca_that_is_named() {
    let ca = TestCa::root("server ca", 1);
    let mut params = crate::testing::device_params("localhost", 2);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = vec![rcgen::SanType::IpAddress([127, 0, 0, 1].into())];
    let certificate = ca.issue_device(params);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der.clone()], certificate.private_key())
        .unwrap();
    let server = Server::echo(Setup {
        tls: Some(Arc::new(tls)),
        ..Setup::default()
    });
    let file = server.files.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let trusting = server.client("https", "operator", &["--ca-file", file.to_str().unwrap()]);
    let answer = trusting
        .call(Action::GetCaCertificate, &[("Sn", "1")])
        .unwrap();
    assert_eq!(answer["Sn"], "1");
    let other = server.files.path().join("other.pem");
    std::fs::write(&other, TestCa::root("server ca", 1).pem()).unwrap();
    let doubting = server.client("https", "operator", &["--ca-file", other.to_str().unwrap()]);
    let error = doubting
        .call(Action::GetCaCertificate, &[("Sn", "1")])
        .unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    let plain = server.client("http", "operator", &[]);
    let error = plain
        .call(Action::GetCaCertificate, &[("Sn", "1")])
        .unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
}

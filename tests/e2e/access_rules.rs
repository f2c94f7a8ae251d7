//! Who may publish and subscribe where, and who may be called what.

use rcgen::{CertificateParams, DnType, SanType};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Connect, Packet, PublishProperties, SubscribeAckReason};

use crate::harness::api::get;
use crate::harness::mosquitto::BOTH;
use crate::harness::mqtt::{Mqtt, will};
use crate::harness::pki::{Ca, device_params};
use crate::harness::tls::Identity;
use crate::harness::{Broker, Version, wait_until};

/// A rule of the configuration, from `EFFECT ACTION TOPIC`.
fn rule(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let [effect, action, topic] = words[..] else {
        panic!("{words:?}");
    };
    format!(
        "[[instance.access]]\neffect = \"{effect}\"\naction = \"{action}\"\ntopic = \"{topic}\"\n"
    )
}

fn with_rules(rules: &[&str]) -> Broker {
    Broker::start_with_lines(|_| rules.iter().map(|words| rule(words)).collect())
}

/// Each device has its own topics, and reads what is for all.
fn own_topics() -> Broker {
    with_rules(&[
        "deny subscribe +/${common_name}/secret",
        "allow both devices/${common_name}/#",
        "allow subscribe news/+",
    ])
}

/// A device of `ca-a` with a certificate of this kind.
fn issue(broker: &Broker, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let mut params = device_params(name);
    change(&mut params);
    Ca::load(broker, "ca-a").issue_device(params, &[])
}

fn connect(broker: &Broker, identity: &Identity, connect: Connect) -> Mqtt {
    let stream = broker.client(identity, Version::V13).handshake().unwrap();
    Mqtt::connect(stream, connect).unwrap()
}

/// The CONNACK of a CONNECT that is refused.
fn refusal(broker: &Broker, identity: &Identity, connect: Connect) -> String {
    let stream = broker.client(identity, Version::V13).handshake().unwrap();
    match Mqtt::connect(stream, connect) {
        Ok(_) => panic!("it was accepted"),
        Err(end) => end.to_string(),
    }
}

/// Publish, and give the reason code of the acknowledgement.
fn publish(mqtt: &mut Mqtt, topic: &str, qos: QoS) -> u8 {
    mqtt.send(Packet::from(Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.to_owned().into(),
        packet_id: std::num::NonZeroU16::new(9),
        payload: "x".into(),
        properties: Some(PublishProperties::default()),
    }))
    .unwrap();
    match mqtt.next().unwrap() {
        Packet::PublishAck(ack) => ack.reason_code.into(),
        Packet::PublishReceived(ack) => ack.reason_code.into(),
        other => panic!("{other:?} in place of an acknowledgement"),
    }
}

fn subscribe(mqtt: &mut Mqtt, filter: &str) -> u8 {
    mqtt.subscribe(filter, QoS::AtLeastOnce).unwrap().into()
}

const NOT_AUTHORIZED: u8 = 0x87;

#[test]
fn own_topics_are_open_and_those_of_others_closed_in_both_versions() {
    let broker = own_topics();
    for protocol in BOTH {
        let own = broker.mosquitto_in("device-a1", protocol);
        let other = broker.mosquitto_in("device-b1", protocol);
        let subscriber = own.subscribe(&["-t", "devices/device-a1/x", "-q", "1"]);

        // A device cannot write to another one, whatever the version has to say about it.
        let plant = ["-t", "devices/device-a1/x", "-q", "1", "-m", "planted"];
        let finished = other.publish(&plant);
        match protocol {
            crate::harness::mosquitto::Protocol::V5 => {
                assert!(finished.stderr.contains("Not authorized"), "{finished:?}");
            }
            crate::harness::mosquitto::Protocol::V311 => assert_ne!(finished.code, 0),
        }
        other.publish(&["-t", "devices/device-a1/x", "-m", "planted at 0"]);

        // Nor read from it, with or without wildcards.
        for filter in ["devices/device-a1/x", "devices/+/x", "#", "$share/g/#"] {
            let refused = other.start_subscriber(&["-t", filter]).process.finish();
            assert!(
                refused.stderr.contains("requests were denied"),
                "{filter}: {refused:?}"
            );
        }
        own.publish_ok(&["-t", "devices/device-a1/x", "-q", "1", "-m", "own"]);
        subscriber.wait_payload("own");
        assert_eq!(subscriber.wait_messages(1).len(), 1, "nothing was planted");
    }
}

#[test]
fn denials_have_the_right_reason_codes_are_counted_and_told() {
    let broker = own_topics();
    let mut device = connect(&broker, &broker.identity("device-a1"), Mqtt::hello("a1"));
    for (filter, code) in [
        ("devices/device-a1/x", 0x01),
        ("devices/device-a1/x/#", 0x01),
        ("devices/device-a1/+", NOT_AUTHORIZED),
        ("devices/device-a1/#", NOT_AUTHORIZED),
        ("devices/device-a1/secret", NOT_AUTHORIZED),
        ("$share/g/devices/device-a1/y", 0x01),
        ("$share/g/devices/device-b1/y", NOT_AUTHORIZED),
        ("news/+", 0x01),
        ("news/#", NOT_AUTHORIZED),
        ("#", NOT_AUTHORIZED),
        ("$SYS/#", NOT_AUTHORIZED),
    ] {
        assert_eq!(subscribe(&mut device, filter), code, "{filter}");
    }
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for topic in ["devices/device-b1/x", "news/1", "devices", "$SYS/x"] {
            assert_eq!(publish(&mut device, topic, qos), NOT_AUTHORIZED, "{topic}");
        }
    }
    // The client goes on.
    device.ping().unwrap();
    assert_eq!(
        publish(&mut device, "devices/device-a1/secret", QoS::AtLeastOnce),
        0x10
    );

    let with_will = Connect {
        last_will: Some(will("devices/device-b1/x", "gone")),
        ..Mqtt::hello("willful")
    };
    let answer = refusal(&broker, &broker.identity("device-a1"), with_will);
    assert!(answer.contains("NotAuthorized"), "{answer}");

    let line = broker.wait_log("the denial", |line| {
        line.contains("devices/device-a1/secret")
    });
    assert!(
        line.contains("access[0]") && line.contains("subscribe"),
        "{line}"
    );
    broker.wait_log("the default", |line| line.contains("access_default"));
    let counted = [("subscribe", 7), ("publish", 8), ("will", 1)];
    wait_until("the denials are counted", || {
        let text = get(broker.admin, "/metrics").unwrap().text;
        let is = |(action, count): (&str, u32)| {
            let line = format!("portcullis_mqtt_denied_total{{action=\"{action}\"}} {count}\n");
            text.contains(&line)
        };
        counted.into_iter().all(is).then_some(())
    });
}

#[test]
fn a_client_that_is_denied_again_and_again_does_not_fill_the_log() {
    let mut broker = own_topics();
    let mut device = connect(&broker, &broker.identity("device-a1"), Mqtt::hello("a1"));
    for _ in 0..50 {
        assert_eq!(publish(&mut device, "x", QoS::AtLeastOnce), NOT_AUTHORIZED);
    }
    drop(device);
    broker.wait_log("the end", |line| line.contains("client disconnected"));
    let log = broker.process().stderr();
    let denials = log.iter().filter(|line| line.contains("access_default"));
    assert_eq!(denials.count(), 10);
}

#[test]
fn a_name_with_wildcards_or_separators_opens_nothing() {
    let broker = own_topics();
    for name in ["#", "+", "x/#", "+/x", "device-b1/x", "\u{1}"] {
        let device = issue(&broker, name, |_| {});
        let mut device = connect(&broker, &device, Mqtt::hello(""));
        for filter in [
            "devices/#",
            "devices/+/x",
            "devices/device-b1/x",
            "devices/+/#",
            "devices/x",
            "#",
        ] {
            let code = subscribe(&mut device, filter);
            assert_eq!(code, NOT_AUTHORIZED, "{name:?}: {filter}");
        }
        for topic in ["devices/device-b1/x", "devices/x/y", "devices/x"] {
            let code = publish(&mut device, topic, QoS::AtLeastOnce);
            assert_eq!(code, NOT_AUTHORIZED, "{name:?}: {topic}");
        }
        // What is for all is for it as well.
        assert_eq!(subscribe(&mut device, "news/1"), 0x01, "{name:?}");
    }
}

#[test]
fn rules_speak_of_the_names_in_the_certificate() {
    let broker = with_rules(&[
        "allow both ${organization}/${organizational_unit}/+",
        "allow subscribe hosts/${san_dns}/#",
        "allow publish ${ca_sn}/${device_sn}",
    ]);
    let identity = issue(&broker, "pump", |params| {
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, "plant");
        name.push(DnType::OrganizationalUnitName, "line-4");
        params.subject_alt_names = ["h1.example", "h2.example"]
            .map(|host| SanType::DnsName(host.try_into().unwrap()))
            .to_vec();
    });
    let serial = crate::harness::pki::sn(&identity.chain[0]);
    let own = format!("{}/{serial}", broker.api().sn_of("ca-a"));
    let mut device = connect(&broker, &identity, Mqtt::hello("pump"));
    for (filter, code) in [
        ("plant/line-4/x", 0x01),
        ("plant/line-5/x", NOT_AUTHORIZED),
        ("hosts/h1.example/#", 0x01),
        ("hosts/h2.example/+", 0x01),
        ("hosts/+/#", NOT_AUTHORIZED),
        ("hosts/h3.example/#", NOT_AUTHORIZED),
    ] {
        assert_eq!(subscribe(&mut device, filter), code, "{filter}");
    }
    assert_eq!(publish(&mut device, &own, QoS::AtLeastOnce), 0x10);
    assert_eq!(
        publish(&mut device, "plant/line-4/y", QoS::AtLeastOnce),
        0x10
    );
    // A certificate that has none of these names.
    let bare = issue(&broker, "bare", |_| {});
    let mut bare = connect(&broker, &bare, Mqtt::hello("bare"));
    for filter in ["plant/line-4/x", "+/+/+", "hosts/h1.example/#", "hosts//#"] {
        assert_eq!(subscribe(&mut bare, filter), NOT_AUTHORIZED, "{filter}");
    }
    assert_eq!(publish(&mut bare, &own, QoS::AtLeastOnce), NOT_AUTHORIZED);
}

#[test]
fn a_rule_for_a_ca_or_a_name_is_for_no_other() {
    let broker = Broker::start_with_lines(|broker| {
        let sn = broker.api().sn_of("ca-a").to_uppercase();
        let (plant, orders) = (rule("allow both plant-a/#"), rule("allow publish orders"));
        let ca = format!("ca = [\"{sn}\"]\n");
        format!("{plant}{ca}{orders}{ca}common_name = [\"device-a1\"]")
    });
    let of = |name: &str| connect(&broker, &broker.identity(name), Mqtt::hello(name));
    let [mut a1, mut a2, mut b1] = ["device-a1", "device-a2", "device-b1"].map(of);
    for (device, plant, orders) in [
        (&mut a1, true, true),
        (&mut a2, true, false),
        (&mut b1, false, false),
    ] {
        let code = subscribe(device, "plant-a/#");
        assert_eq!(code == 0x01, plant);
        let code = publish(device, "orders", QoS::AtLeastOnce);
        assert_eq!(code != NOT_AUTHORIZED, orders);
    }
    // The same name out of another CA is another client.
    let b = Ca::load(&broker, "ca-b-issuing");
    let chain = [&Ca::load(&broker, "ca-b-issuing")];
    let impostor = b.issue_device(device_params("device-a1"), &chain);
    let mut impostor = connect(&broker, &impostor, Mqtt::hello("impostor"));
    assert_eq!(
        publish(&mut impostor, "orders", QoS::AtLeastOnce),
        NOT_AUTHORIZED
    );
}

#[test]
fn a_renewed_certificate_with_other_names_keeps_only_what_it_may_read() {
    let broker = with_rules(&[
        "allow subscribe ${organizational_unit}/#",
        "allow both all/#",
        "allow publish #",
    ]);
    let of = |unit: &'static str| {
        issue(&broker, "pump", |params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::OrganizationalUnitName, unit);
        })
    };
    let lasting = || Connect {
        clean_start: false,
        session_expiry_interval_secs: 600,
        ..Mqtt::hello("pump")
    };
    let mut device = connect(&broker, &of("line-4"), lasting());
    assert_eq!(subscribe(&mut device, "line-4/#"), 0x01);
    assert_eq!(subscribe(&mut device, "all/#"), 0x01);
    drop(device);
    broker.wait_log("the end", |line| line.contains("client disconnected"));
    let from = broker.mosquitto("device-b1");
    from.publish_ok(&["-t", "line-4/x", "-q", "1", "-m", "queued for line 4"]);
    from.publish_ok(&["-t", "all/x", "-q", "1", "-m", "queued for all"]);

    let mut device = connect(&broker, &of("line-5"), lasting());
    assert!(device.ack.session_present);
    assert_eq!(device.next_publish().unwrap().payload, "queued for all");
    from.publish_ok(&["-t", "line-4/x", "-q", "1", "-m", "for line 4"]);
    from.publish_ok(&["-t", "all/x", "-q", "1", "-m", "for all"]);
    assert_eq!(device.next_publish().unwrap().payload, "for all");
    assert_eq!(subscribe(&mut device, "line-5/#"), 0x01);
    let text = get(broker.admin, "/metrics").unwrap().text;
    let line = r#"portcullis_mqtt_denied_total{action="resume"} 1"#;
    assert!(text.contains(line), "{text}");
}

#[test]
fn client_id_is_one_of_the_alternative_names() {
    let broker = Broker::start_with_lines(|_| "client_id = \"san\"".to_owned());
    let identity = issue(&broker, "pump", |params| {
        params.subject_alt_names = vec![
            SanType::URI("urn:pump:7".try_into().unwrap()),
            SanType::DnsName("pump-7.example".try_into().unwrap()),
            SanType::Rfc822Name("pump@example.com".try_into().unwrap()),
        ];
    });
    for id in ["urn:pump:7", "pump-7.example", "pump@example.com"] {
        connect(&broker, &identity, Mqtt::hello(id));
    }
    for id in ["pump", "PUMP-7.example", "pump-7.example.", "urn:pump:7/x"] {
        let answer = refusal(&broker, &identity, Mqtt::hello(id));
        assert!(answer.contains("NotAuthorized"), "{id}: {answer}");
    }
    // The server chooses the first host name.
    let chosen = connect(&broker, &identity, Mqtt::hello(""));
    let id = chosen.ack.assigned_client_id.as_deref();
    assert_eq!(id, Some("pump-7.example"));
    // Without alternative names there is no client id.
    for id in ["", "bare"] {
        let bare = issue(&broker, "bare", |_| {});
        let answer = refusal(&broker, &bare, Mqtt::hello(id));
        assert!(answer.contains("NotAuthorized"), "{id}: {answer}");
    }
}

#[test]
fn administrators_keep_their_topics_and_follow_the_rules_elsewhere() {
    let broker = own_topics();
    let mut admin = connect(&broker, &broker.identity("admin"), Mqtt::hello("admin"));
    let answers = "$CONTROL/portcullis/v1/response";
    assert_eq!(
        admin.subscribe(answers, QoS::AtLeastOnce).unwrap(),
        SubscribeAckReason::GrantedQos1
    );
    assert_eq!(subscribe(&mut admin, "#"), NOT_AUTHORIZED);
    let command = br#"{"Action": "ListCaCertificate", "MqttInstanceId": "post-cn-dev00001", "PageNo": "1", "PageSize": "9"}"#;
    admin
        .publish(
            "$CONTROL/portcullis/v1",
            command,
            PublishProperties::default(),
        )
        .unwrap();
    let answer = admin.next_publish().unwrap();
    assert!(String::from_utf8_lossy(&answer.payload).contains("ca-b-issuing"));
    // Last, since figures come from then on.
    assert_eq!(subscribe(&mut admin, "$SYS/#"), 0x01);
}

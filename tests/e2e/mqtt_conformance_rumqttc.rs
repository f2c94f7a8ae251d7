//! What MQTT demands, as an unmodified rumqttc sees it. The names begin with the section of the
//! standard, MQTT 5 (`s`) or 3.1.1 (`v3_s`).

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, DisconnectReasonCode, Filter, LastWill, Packet, PubAckReason,
    PubRecReason, Publish, PublishProperties, RetainForwardRule, SubAck, SubscribeProperties,
    SubscribeReasonCode,
};
use rumqttc::v5::{ConnectionError, StateError};

use crate::harness::Broker;
use crate::harness::rumqttc::{Tunnel, V4, V5};

const QUALITIES: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// What the clients may not do, and how long they may be silent.
const RULES: &str = r##"
[[instance.access]]
effect = "deny"
action = "both"
topic = "secret/#"
[[instance.access]]
effect = "allow"
action = "both"
topic = "#"
[mqtt]
max_keep_alive_seconds = 7
"##;

fn tunnel() -> (Broker, Tunnel) {
    let broker = Broker::start();
    let tunnel = Tunnel::start(&broker, "device-a1");
    (broker, tunnel)
}

fn with_rules() -> (Broker, Tunnel) {
    let broker = Broker::start_with_lines(|_| RULES.to_owned());
    let tunnel = Tunnel::start(&broker, "device-a1");
    (broker, tunnel)
}

impl V5 {
    fn connack(&mut self) -> ConnAck {
        self.wait("CONNACK", |packet| match packet {
            Packet::ConnAck(ack) => Some(ack.clone()),
            _ => None,
        })
    }

    fn suback(&mut self) -> SubAck {
        self.wait("SUBACK", |packet| match packet {
            Packet::SubAck(ack) => Some(ack.clone()),
            _ => None,
        })
    }

    fn subscribe(&mut self, filter: &str, qos: QoS) -> SubscribeReasonCode {
        self.client.subscribe(filter, qos).unwrap();
        self.suback().return_codes[0]
    }

    /// Publish, and wait until the broker has answered for the last time.
    fn publish(&mut self, topic: &str, qos: QoS, payload: &str) {
        self.client
            .publish(topic, qos, false, payload.to_owned())
            .unwrap();
        self.published(qos);
    }

    fn published(&mut self, qos: QoS) {
        self.wait("the acknowledgement", |packet| match (qos, packet) {
            (QoS::AtLeastOnce, Packet::PubAck(ack)) => {
                assert_eq!(ack.reason, PubAckReason::Success);
                Some(())
            }
            (QoS::ExactlyOnce, Packet::PubComp(_)) => Some(()),
            // Something that comes after it.
            (QoS::AtMostOnce, _) => Some(()),
            _ => None,
        });
    }

    fn message(&mut self) -> Publish {
        self.wait("PUBLISH", |packet| match packet {
            Packet::Publish(publish) => Some(publish.clone()),
            _ => None,
        })
    }

    fn payload(&mut self) -> String {
        String::from_utf8(self.message().payload.to_vec()).unwrap()
    }
}

impl V4 {
    fn connack(&mut self) -> rumqttc::ConnAck {
        self.wait("CONNACK", |packet| match packet {
            rumqttc::Packet::ConnAck(ack) => Some(ack.clone()),
            _ => None,
        })
    }

    fn subscribe(&mut self, filter: &str, qos: rumqttc::QoS) -> rumqttc::SubscribeReasonCode {
        self.client.subscribe(filter, qos).unwrap();
        self.wait("SUBACK", |packet| match packet {
            rumqttc::Packet::SubAck(ack) => Some(ack.return_codes[0]),
            _ => None,
        })
    }

    /// Publish at QoS 1, and wait for the acknowledgement.
    fn publish(&mut self, topic: &str, retain: bool, payload: &str) {
        let qos = rumqttc::QoS::AtLeastOnce;
        self.client
            .publish(topic, qos, retain, payload.to_owned())
            .unwrap();
        self.wait("PUBACK", |packet| match packet {
            rumqttc::Packet::PubAck(_) => Some(()),
            _ => None,
        });
    }

    fn message(&mut self) -> rumqttc::Publish {
        self.wait("PUBLISH", |packet| match packet {
            rumqttc::Packet::Publish(publish) => Some(publish.clone()),
            _ => None,
        })
    }

    fn payload(&mut self) -> String {
        String::from_utf8(self.message().payload.to_vec()).unwrap()
    }
}

#[test]
fn s4_3_message_comes_at_the_lower_of_both_qualities() {
    let (_broker, tunnel) = tunnel();
    let mut from = V5::connect(tunnel.v5("from"));
    let mut to = V5::connect(tunnel.v5("to"));
    for granted in QUALITIES {
        let code = to.subscribe("q/+", granted);
        assert_eq!(code, SubscribeReasonCode::Success(granted));
        for sent in QUALITIES {
            let payload = format!("{granted:?} {sent:?}");
            from.client
                .publish("q/x", sent, false, payload.clone())
                .unwrap();
            if sent == QoS::AtMostOnce {
                // Whatever has an answer, so that it goes out.
                from.subscribe("other", QoS::AtMostOnce);
            } else {
                from.published(sent);
            }
            let message = to.message();
            assert_eq!(message.payload, payload);
            assert_eq!(message.qos as u8, (granted as u8).min(sent as u8));
            assert!(!message.dup);
            if message.qos == QoS::ExactlyOnce {
                to.wait("PUBREL", |packet| match packet {
                    Packet::PubRel(_) => Some(()),
                    _ => None,
                });
            }
        }
    }
}

#[test]
fn v3_s4_3_message_comes_at_the_lower_of_both_qualities() {
    use rumqttc::{Packet, QoS};
    let (_broker, tunnel) = tunnel();
    let mut from = V4::connect(tunnel.v4("from"));
    let mut to = V4::connect(tunnel.v4("to"));
    let qualities = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for granted in qualities {
        let code = to.subscribe("q/+", granted);
        assert_eq!(code, rumqttc::SubscribeReasonCode::Success(granted));
        for sent in qualities {
            let payload = format!("{granted:?} {sent:?}");
            from.client
                .publish("q/x", sent, false, payload.clone())
                .unwrap();
            match sent {
                QoS::AtMostOnce => {
                    from.subscribe("other", QoS::AtMostOnce);
                }
                QoS::AtLeastOnce => from.wait("PUBACK", |packet| {
                    matches!(packet, Packet::PubAck(_)).then_some(())
                }),
                QoS::ExactlyOnce => from.wait("PUBCOMP", |packet| {
                    matches!(packet, Packet::PubComp(_)).then_some(())
                }),
            }
            let message = to.message();
            assert_eq!(message.payload, payload);
            assert_eq!(message.qos as u8, (granted as u8).min(sent as u8));
        }
    }
}

#[test]
fn v3_s3_3_1_3_retained_message_is_set_replaced_and_cleared() {
    let (_broker, tunnel) = tunnel();
    let mut from = V4::connect(tunnel.v4("from"));
    let mut number = 0;
    // What is retained, and a mark that comes after it.
    let mut kept = |from: &mut V4| {
        number += 1;
        let mut to = V4::connect(tunnel.v4(&format!("to-{number}")));
        to.subscribe("kept/+", rumqttc::QoS::AtLeastOnce);
        from.publish("kept/mark", false, "mark");
        let mut found = Vec::new();
        loop {
            let message = to.message();
            if message.payload == "mark" {
                return found;
            }
            assert!(message.retain);
            found.push(message.payload);
        }
    };
    from.publish("kept/x", true, "old");
    from.publish("kept/x", true, "new");
    assert_eq!(kept(&mut from), ["new"]);
    // An empty payload that is not retained is a message like any.
    from.publish("kept/x", false, "");
    assert_eq!(kept(&mut from), ["new"]);
    from.publish("kept/x", true, "");
    assert!(kept(&mut from).is_empty());
}

#[test]
fn s3_8_3_1_retained_message_comes_as_the_subscription_asks() {
    let (_broker, tunnel) = tunnel();
    let mut from = V5::connect(tunnel.v5("from"));
    from.client
        .publish("kept", QoS::AtLeastOnce, true, "old")
        .unwrap();
    from.wait("PUBACK", |packet| match packet {
        Packet::PubAck(ack) => {
            assert_eq!(ack.reason, PubAckReason::NoMatchingSubscribers);
            Some(())
        }
        _ => None,
    });
    let handlings = [
        (RetainForwardRule::OnEverySubscribe, [true, true]),
        (RetainForwardRule::OnNewSubscribe, [true, false]),
        (RetainForwardRule::Never, [false, false]),
    ];
    for (rule, expected) in handlings {
        let mut to = V5::connect(tunnel.v5(&format!("{rule:?}")));
        for comes in expected {
            let mut filter = Filter::new("kept", QoS::AtLeastOnce);
            filter.retain_forward_rule = rule.clone();
            to.client.subscribe_many([filter]).unwrap();
            to.suback();
            from.publish("kept", QoS::AtLeastOnce, "mark");
            let first = to.message();
            assert_eq!((first.payload == "old", first.retain), (comes, comes));
            if comes {
                assert_eq!(to.payload(), "mark");
            }
        }
    }
}

#[test]
fn s3_1_2_5_will_is_published_when_the_client_vanishes_and_not_when_it_leaves() {
    let (_broker, tunnel) = tunnel();
    let mut watcher = V5::connect(tunnel.v5("watcher"));
    watcher.subscribe("will/#", QoS::ExactlyOnce);
    let connect = |name: &str| {
        let mut options = tunnel.v5(name);
        let topic = format!("will/{name}");
        options.set_last_will(LastWill::new(topic, "gone", QoS::ExactlyOnce, false, None));
        let mut client = V5::connect(options);
        client.connack();
        client
    };
    connect("leaves").leave();
    drop(connect("vanishes"));
    let message = watcher.message();
    assert_eq!(message.topic, "will/vanishes");
    assert_eq!(
        (&message.payload[..], message.qos),
        (&b"gone"[..], QoS::ExactlyOnce)
    );
}

#[test]
fn v3_s3_1_2_5_will_is_published_when_the_client_vanishes_and_not_when_it_leaves() {
    let (_broker, tunnel) = tunnel();
    let qos = rumqttc::QoS::AtLeastOnce;
    let mut watcher = V4::connect(tunnel.v4("watcher"));
    watcher.subscribe("will/#", qos);
    let connect = |name: &str| {
        let mut options = tunnel.v4(name);
        let topic = format!("will/{name}");
        options.set_last_will(rumqttc::LastWill::new(topic, "gone", qos, false));
        let mut client = V4::connect(options);
        client.connack();
        client
    };
    connect("leaves").leave();
    drop(connect("vanishes"));
    assert_eq!(watcher.message().topic, "will/vanishes");
}

#[test]
fn s3_1_2_4_session_is_present_only_if_it_was_kept_and_has_its_queue() {
    let (_broker, tunnel) = tunnel();
    let lasting = || {
        let mut options = tunnel.v5("a");
        options.set_clean_start(false);
        options.set_connect_properties(ConnectProperties {
            session_expiry_interval: Some(300),
            ..ConnectProperties::new()
        });
        options
    };
    let mut a = V5::connect(lasting());
    assert!(!a.connack().session_present);
    a.subscribe("s", QoS::ExactlyOnce);
    a.leave();
    let mut from = V5::connect(tunnel.v5("from"));
    for (qos, payload) in [(QoS::AtLeastOnce, "one"), (QoS::ExactlyOnce, "two")] {
        from.publish("s", qos, payload);
    }
    let mut a = V5::connect(lasting());
    assert!(a.connack().session_present);
    assert_eq!([a.payload(), a.payload()], ["one", "two"]);
    a.leave();
    let mut a = V5::connect(tunnel.v5("a"));
    assert!(!a.connack().session_present);
}

#[test]
fn v3_s3_1_2_4_session_is_present_only_if_it_was_kept_and_has_its_queue() {
    let (_broker, tunnel) = tunnel();
    let connect = |clean: bool| {
        let mut options = tunnel.v4("a");
        options.set_clean_session(clean);
        V4::connect(options)
    };
    let mut a = connect(false);
    assert!(!a.connack().session_present);
    a.subscribe("s", rumqttc::QoS::AtLeastOnce);
    a.leave();
    let mut from = V4::connect(tunnel.v4("from"));
    for payload in ["one", "two", "three"] {
        from.publish("s", false, payload);
    }
    let mut a = connect(false);
    assert!(a.connack().session_present);
    assert_eq!(
        [a.payload(), a.payload(), a.payload()],
        ["one", "two", "three"]
    );
    a.leave();
    let mut a = connect(true);
    assert!(!a.connack().session_present);
}

#[test]
fn s4_4_message_without_acknowledgement_comes_again_with_its_packet_id() {
    let (_broker, tunnel) = tunnel();
    let lasting = |manual: bool| {
        let mut options = tunnel.v5("a");
        options.set_clean_start(false);
        options.set_manual_acks(manual);
        options.set_session_expiry_interval(Some(300));
        options
    };
    let mut a = V5::connect(lasting(true));
    a.subscribe("again", QoS::AtLeastOnce);
    let mut from = V5::connect(tunnel.v5("from"));
    for payload in ["one", "two"] {
        from.publish("again", QoS::AtLeastOnce, payload);
    }
    let sent = [a.message(), a.message()];
    drop(a);
    let mut a = V5::connect(lasting(false));
    assert!(a.connack().session_present);
    for before in sent {
        let again = a.message();
        assert!(again.dup && !before.dup);
        assert_eq!((again.pkid, again.payload), (before.pkid, before.payload));
    }
}

#[test]
fn s4_8_2_shared_subscription_balances_and_outlives_its_members() {
    let (mut broker, tunnel) = tunnel();
    let mut a = V5::connect(tunnel.v5("a"));
    let mut b = V4::connect(tunnel.v4("b"));
    a.subscribe("$share/g/work/+", QoS::AtLeastOnce);
    b.subscribe("$share/g/work/+", rumqttc::QoS::AtLeastOnce);
    let mut boss = V5::connect(tunnel.v5("boss"));
    for number in 0..20 {
        boss.publish(
            &format!("work/{number}"),
            QoS::AtLeastOnce,
            &number.to_string(),
        );
    }
    let mut got: Vec<u32> = Vec::new();
    for _ in 0..10 {
        got.push(a.payload().parse().unwrap());
        got.push(b.payload().parse().unwrap());
    }
    got.sort();
    assert_eq!(got, (0..20).collect::<Vec<_>>());
    broker.until_left(|| a.leave());
    for name in ["x", "y", "z"] {
        boss.publish(&format!("work/{name}"), QoS::AtLeastOnce, name);
    }
    assert_eq!([b.payload(), b.payload(), b.payload()], ["x", "y", "z"]);
    b.leave();
    boss.client
        .publish("work/late", QoS::AtLeastOnce, false, "late")
        .unwrap();
    boss.wait("PUBACK", |packet| match packet {
        Packet::PubAck(ack) => {
            // 3.4.2.1: nobody is there any more, and the publisher is told.
            assert_eq!(ack.reason, PubAckReason::NoMatchingSubscribers);
            Some(())
        }
        _ => None,
    });
}

#[test]
fn s3_3_2_3_properties_and_aliases_arrive_as_they_were_sent() {
    let (_broker, tunnel) = tunnel();
    let mut options = tunnel.v5("a");
    options.set_topic_alias_max(Some(4));
    let mut a = V5::connect(options);
    let most = a.connack().properties.unwrap().topic_alias_max.unwrap();
    assert!(most >= 1);
    let given = SubscribeProperties {
        id: Some(9),
        user_properties: vec![("any".to_owned(), "thing".to_owned())],
    };
    a.client
        .subscribe_with_properties("p/+", QoS::AtLeastOnce, given)
        .unwrap();
    a.suback();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: None,
        topic_alias: Some(1),
        response_topic: Some("answer/here".to_owned()),
        correlation_data: Some("which".into()),
        // In order, whatever their names.
        user_properties: vec![pair("b", "1"), pair("a", "2"), pair("b", "1"), pair("", "")],
        subscription_identifiers: Vec::new(),
        content_type: Some("text/x".to_owned()),
    };
    for (topic, arrives) in [
        ("p/one", "p/one"),
        ("", "p/one"),
        ("p/two", "p/two"),
        ("", "p/two"),
    ] {
        a.client
            .publish_with_properties(topic, QoS::AtLeastOnce, false, "x", sent.clone())
            .unwrap();
        a.published(QoS::AtLeastOnce);
        let message = a.message();
        let mut found = message.properties.unwrap();
        // The topic is left out where the alias of the broker stands for it already.
        assert!(
            found
                .topic_alias
                .is_some_and(|alias| (1..=4).contains(&alias))
        );
        assert!(message.topic == arrives || (topic.is_empty() && message.topic.is_empty()));
        assert_eq!(std::mem::take(&mut found.subscription_identifiers), [9]);
        found.topic_alias = sent.topic_alias;
        assert_eq!(found, sent);
    }
}

#[test]
fn s3_1_2_10_client_is_held_to_the_keep_alive_of_the_server() {
    let (_broker, tunnel) = with_rules();
    for (wanted, told) in [(60, Some(7)), (7, None), (5, None)] {
        let mut options = tunnel.v5("a");
        options.set_keep_alive(std::time::Duration::from_secs(wanted));
        let ack = V5::connect(options).connack();
        assert_eq!(ack.properties.unwrap().server_keep_alive, told);
    }
}

#[test]
fn s3_1_2_11_7_answers_give_no_reasons_to_a_client_that_wants_none() {
    let (_broker, tunnel) = with_rules();
    for wanted in [0, 1] {
        let mut options = tunnel.v5("a");
        options.set_request_problem_info(Some(wanted));
        let mut a = V5::connect(options);
        a.client.subscribe("secret/x", QoS::AtMostOnce).unwrap();
        let refused = a.suback();
        assert_eq!(refused.return_codes, [SubscribeReasonCode::NotAuthorized]);
        let reason = refused.properties.and_then(|given| given.reason_string);
        assert!(wanted == 1 || reason.is_none(), "{reason:?}");
        // DISCONNECT may give it, and does: here as another connection takes over.
        V5::connect(tunnel.v5("a")).connack();
        match a.ended() {
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_string, .. }) => {
                assert!(reason_string.is_some());
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn s3_9_3_what_is_refused_has_its_reason_code_and_the_rest_goes_on() {
    let (_broker, tunnel) = with_rules();
    let mut a = V5::connect(tunnel.v5("a"));
    let filters = ["ok", "secret/x", "two"].map(|path| Filter::new(path, QoS::AtLeastOnce));
    a.client.subscribe_many(filters).unwrap();
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    let denied = SubscribeReasonCode::NotAuthorized;
    assert_eq!(a.suback().return_codes, [granted, denied, granted]);
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        a.client.publish("secret/x", qos, false, "x").unwrap();
        let is_refused = a.wait("a refusal", |packet| match packet {
            Packet::PubAck(ack) => Some(ack.reason == PubAckReason::NotAuthorized),
            Packet::PubRec(rec) => Some(rec.reason == PubRecReason::NotAuthorized),
            _ => None,
        });
        assert!(is_refused, "{qos:?}");
    }
    a.publish("ok", QoS::AtLeastOnce, "x");
    assert_eq!(a.payload(), "x");
}

#[test]
fn v3_s3_9_3_filter_that_is_refused_has_0x80_and_a_message_ends_the_connection() {
    let (_broker, tunnel) = with_rules();
    let mut a = V4::connect(tunnel.v4("a"));
    let qos = rumqttc::QoS::AtLeastOnce;
    assert_eq!(
        a.subscribe("secret/x", qos),
        rumqttc::SubscribeReasonCode::Failure
    );
    assert_eq!(
        a.subscribe("ok", qos),
        rumqttc::SubscribeReasonCode::Success(qos)
    );
    a.publish("ok", false, "x");
    assert_eq!(a.payload(), "x");
    // 3.3.5: there is no answer that says no to a message, so the connection ends.
    a.client.publish("secret/x", qos, false, "x").unwrap();
    a.ended();
    assert!(
        !a.passed
            .iter()
            .any(|packet| matches!(packet, rumqttc::Packet::PubAck(_)))
    );
}

#[test]
fn s3_1_4_second_connection_takes_over_and_says_so() {
    let (_broker, tunnel) = tunnel();
    let mut old = V5::connect(tunnel.v5("same"));
    old.connack();
    let mut new = V5::connect(tunnel.v5("same"));
    new.connack();
    match old.ended() {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            assert_eq!(reason_code, DisconnectReasonCode::SessionTakenOver);
        }
        other => panic!("{other}"),
    }
    new.subscribe("t", QoS::AtLeastOnce);
    new.publish("t", QoS::AtLeastOnce, "x");
    assert_eq!(new.payload(), "x");
}

#[test]
fn v3_s3_1_4_second_connection_takes_over() {
    let (_broker, tunnel) = tunnel();
    let mut old = V4::connect(tunnel.v4("same"));
    old.connack();
    let mut new = V4::connect(tunnel.v4("same"));
    new.connack();
    old.ended();
    new.subscribe("t", rumqttc::QoS::AtLeastOnce);
    new.publish("t", false, "x");
    assert_eq!(new.payload(), "x");
}

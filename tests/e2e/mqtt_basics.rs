//! Messages, with mosquitto's tools, in MQTT 3.1.1 and 5.

use crate::harness::Broker;
use crate::harness::mosquitto::BOTH;

#[test]
fn messages_arrive_at_every_quality_of_service() {
    let broker = Broker::start();
    for protocol in BOTH {
        let to = broker.mosquitto_in("device-b1", protocol);
        let from = broker.mosquitto_in("device-a1", protocol);
        for granted in ["0", "1", "2"] {
            let subscriber = to.subscribe(&["-t", "qos/+", "-q", granted]);
            for sent in ["0", "1", "2"] {
                let payload = format!("sent at {sent}");
                from.publish_ok(&["-t", "qos/x", "-m", &payload, "-q", sent]);
                let lower = granted.min(sent);
                assert_eq!(
                    subscriber.wait_payload(&payload),
                    format!("qos/x|{lower}|0|{payload}"),
                    "{protocol:?}"
                );
            }
            assert_eq!(subscriber.wait_messages(3).len(), 3, "each of them once");
        }
    }
}

#[test]
fn messages_cross_protocol_versions() {
    let broker = Broker::start();
    for (from, to) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let subscriber = broker
            .mosquitto_in("device-b1", to)
            .subscribe(&["-t", "cross", "-q", "1"]);
        let tools = broker.mosquitto_in("device-a1", from);
        tools.publish_ok(&["-t", "cross", "-m", "over", "-q", "1"]);
        assert_eq!(subscriber.wait_payload("over"), "cross|1|0|over");
    }
}

#[test]
fn messages_of_one_publisher_arrive_in_order() {
    let broker = Broker::start();
    let subscriber = broker
        .mosquitto("device-b1")
        .subscribe(&["-t", "order", "-q", "1"]);
    let file = broker.home().path().join("lines");
    let lines: Vec<_> = (0..500).map(|n| format!("{n}")).collect();
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let mut sh = std::process::Command::new("sh");
    let publish = format!(
        "exec mosquitto_pub -h localhost -p {} --cafile {} --cert {} --key {} -t order -q 1 -l < {}",
        broker.mqtt.port(),
        broker.cert("server-ca.pem").display(),
        broker.cert("device-a1.pem").display(),
        broker.cert("device-a1.key").display(),
        file.display()
    );
    let done = crate::harness::process::Process::spawn(sh.args(["-c", &publish])).finish();
    assert_eq!(done.code, 0, "{done:?}");
    let expected: Vec<_> = lines.iter().map(|n| format!("order|1|0|{n}")).collect();
    assert_eq!(subscriber.wait_messages(500), expected);
}

#[test]
fn wildcards_match_what_they_should() {
    let broker = Broker::start();
    let from = broker.mosquitto("device-a1");
    for protocol in BOTH {
        let to = broker.mosquitto_in("device-b1", protocol);
        for (filter, matching, other) in [
            ("w/+/c", "w/b/c", "w/b/d"),
            ("w/#", "w", "v"),
            ("w/#", "w/1/2/3", "v/1"),
            ("+/+", "w/x", "w/x/y"),
            ("+", "w", "w/x"),
            ("#", "anything/at/all", "$SYS/not"),
            ("/+", "/w", "w"),
        ] {
            let subscriber = to.subscribe(&["-t", filter, "-q", "1"]);
            from.publish(&["-t", other, "-m", "no", "-q", "1"]);
            from.publish_ok(&["-t", matching, "-m", "yes", "-q", "1"]);
            subscriber.wait_payload("yes");
            let messages = subscriber.wait_messages(1);
            assert_eq!(messages, [format!("{matching}|1|0|yes")], "{filter}");
        }
    }
}

#[test]
fn overlapping_subscriptions_deliver() {
    let broker = Broker::start();
    let to = broker.mosquitto("device-b1");
    let subscriber = to.subscribe(&["-t", "over/#", "-t", "over/+", "-q", "1"]);
    let from = broker.mosquitto("device-a1");
    from.publish_ok(&["-t", "over/x", "-m", "one", "-q", "1"]);
    from.publish_ok(&["-t", "over/x", "-m", "two", "-q", "1"]);
    subscriber.wait_payload("two");
    let ones = subscriber.wait_messages(2);
    let ones = ones.iter().filter(|m| m.ends_with("one")).count();
    assert!(
        (1..=2).contains(&ones),
        "once or once per subscription: {ones}"
    );
}

#[test]
fn retained_message_is_set_replaced_and_cleared() {
    let broker = Broker::start();
    let from = broker.mosquitto("device-a1");
    for protocol in BOTH {
        let to = broker.mosquitto_in("device-b1", protocol);
        let now = |payload: &str| {
            let subscriber = to.subscribe(&["-t", "kept/+", "-q", "1"]);
            subscriber.wait_payload(payload)
        };
        from.publish_ok(&["-t", "kept/x", "-m", "one", "-q", "1", "-r"]);
        assert_eq!(now("one"), "kept/x|1|1|one");
        from.publish_ok(&["-t", "kept/x", "-m", "two", "-q", "1", "-r"]);
        assert_eq!(now("two"), "kept/x|1|1|two");
        // An empty message that is not retained clears nothing.
        from.publish_ok(&["-t", "kept/x", "-n", "-q", "1"]);
        assert_eq!(now("two"), "kept/x|1|1|two");
        from.publish_ok(&["-t", "kept/x", "-n", "-q", "1", "-r"]);
        let subscriber = to.subscribe(&["-t", "kept/+", "-q", "1"]);
        from.publish_ok(&["-t", "kept/y", "-m", "mark", "-q", "1"]);
        subscriber.wait_payload("mark");
        assert_eq!(subscriber.wait_messages(1), ["kept/y|1|0|mark"]);
    }
}

#[test]
fn retained_message_seen_live_is_not_marked_retained() {
    let broker = Broker::start();
    let subscriber = broker
        .mosquitto("device-b1")
        .subscribe(&["-t", "kept/live", "-q", "1"]);
    let from = broker.mosquitto("device-a1");
    from.publish_ok(&["-t", "kept/live", "-m", "now", "-q", "1", "-r"]);
    assert_eq!(subscriber.wait_payload("now"), "kept/live|1|0|now");
}

#[test]
fn large_message_arrives_whole() {
    let broker = Broker::start();
    let to = broker.mosquitto("device-b1");
    let subscriber = to.subscribe(&["-t", "large", "-q", "1"]);
    let payload = "0123456789abcdef".repeat(4_096);
    let from = broker.mosquitto("device-a1");
    from.publish_ok(&["-t", "large", "-m", &payload, "-q", "1"]);
    let message = &subscriber.wait_messages(1)[0];
    assert_eq!(message.len(), "large|1|0|".len() + payload.len());
}

#[test]
fn multi_byte_topic_does_not_stop_the_broker() {
    let broker = Broker::start();
    let to = broker.mosquitto("device-b1");
    let subscriber = to.subscribe(&["-t", "#", "-q", "1"]);
    let from = broker.mosquitto("device-a1");
    from.publish_ok(&["-t", "überall/日本", "-m", "one", "-q", "1"]);
    from.publish_ok(&["-t", "日", "-m", "two", "-q", "1"]);
    assert_eq!(subscriber.wait_payload("one"), "überall/日本|1|0|one");
    assert_eq!(subscriber.wait_payload("two"), "日|1|0|two");
}

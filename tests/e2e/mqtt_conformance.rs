//! What MQTT demands, as an unmodified client sees it. The names begin with the section of the
//! standard, MQTT 5 (`s`) or 3.1.1 (`v3_s`). What another file shows is not shown here again:
//! `mqtt_basics`, `mqtt_sessions`, and the broker's own tests of each connection.

use serde_json::{Value, json};

use crate::harness::Broker;
use crate::harness::clients::payloads;
use crate::harness::mosquitto::{BOTH, Protocol};
use crate::harness::paho::Paho;

fn clients() -> (Broker, Paho) {
    let broker = Broker::start();
    let paho = Paho::start(&broker, "device-a1");
    (broker, paho)
}

#[test]
fn s3_1_2_4_session_is_present_only_if_it_was_kept() {
    let (_broker, paho) = clients();
    let lasting = json!({"clean": false, "properties": {"SessionExpiryInterval": 300}});
    assert_eq!(paho.connect("a", lasting.clone())["session_present"], false);
    paho.subscribe("a", "s", json!({"qos": 2}));
    paho.ask("a", "disconnect", json!({}));
    paho.connect("b", json!({}));
    for (qos, payload) in [(1, "one"), (2, "two"), (0, "lost"), (1, "three")] {
        paho.publish("b", "s", payload, json!({"qos": qos}));
    }
    assert_eq!(paho.connect("a", lasting.clone())["session_present"], true);
    // paho shows a QoS 2 message when it is released, after others that came later.
    let messages = paho.receive("a", 3);
    let mut got = payloads(&messages);
    got.sort();
    assert_eq!(got, ["one", "three", "two"]);
    // 3.14.2.2.2: a session may be ended with the connection.
    let end = json!({"properties": {"SessionExpiryInterval": 0}});
    paho.ask("a", "disconnect", end);
    assert_eq!(paho.connect("a", lasting.clone())["session_present"], false);
    paho.ask("a", "disconnect", json!({}));
    assert_eq!(paho.connect("a", json!({}))["session_present"], false);
}

#[test]
fn s3_1_3_1_client_without_an_id_is_told_the_one_it_was_given() {
    let (_broker, paho) = clients();
    let one = paho.ask("one", "connect", json!({}));
    let other = paho.ask("other", "connect", json!({}));
    let id = |answer: &Value| answer["properties"]["AssignedClientIdentifier"].clone();
    assert!(id(&one).as_str().is_some_and(|id| !id.is_empty()), "{one}");
    assert_ne!(id(&one), id(&other));
    assert!(id(&paho.connect("named", json!({}))).is_null());
}

#[test]
fn s3_1_4_second_connection_takes_over_and_says_so() {
    let (_broker, paho) = clients();
    paho.ask("old", "connect", json!({"id": "same"}));
    paho.ask("new", "connect", json!({"id": "same"}));
    let end = paho.ask("old", "ended", json!({}));
    assert_eq!(
        (&end["by_server"], &end["code"]),
        (&json!(true), &json!(0x8E))
    );
}

#[test]
fn s3_1_3_2_will_has_its_delay_and_its_properties() {
    let (_broker, paho) = clients();
    paho.connect("watcher", json!({}));
    paho.subscribe("watcher", "will/#", json!({"qos": 1}));
    let will = |topic, delay| {
        json!({
            "properties": {"SessionExpiryInterval": 300},
            "will": {"topic": topic, "payload": "gone", "qos": 1, "properties": {
                "WillDelayInterval": delay, "ContentType": "text/plain",
                "UserProperty": [["k", "1"], ["k", "2"]], "ResponseTopic": "r",
                "CorrelationData": "c", "MessageExpiryInterval": 100,
                "PayloadFormatIndicator": 1}},
        })
    };
    // The one that is back in time leaves no will.
    paho.connect("back", will("will/back", 1));
    paho.ask("back", "vanish", json!({}));
    let mut again = will("will/second", 0);
    again["clean"] = false.into();
    assert_eq!(paho.connect("back", again)["session_present"], true);
    paho.connect("away", will("will/away", 2));
    paho.ask("away", "vanish", json!({}));
    let message = paho.receive("watcher", 1).remove(0);
    assert_eq!(message["topic"], "will/away");
    let found = &message["properties"];
    assert_eq!(found["ContentType"], "text/plain");
    assert_eq!(found["UserProperty"], json!([["k", "1"], ["k", "2"]]));
    assert_eq!(found["ResponseTopic"], "r");
    assert_eq!(found["CorrelationData"], "c");
    assert_eq!(found["PayloadFormatIndicator"], 1);
    assert!(found["MessageExpiryInterval"].as_u64().unwrap() <= 100);
    // 3.14.2.1: DISCONNECT with 0x04 publishes the will, a normal one does not.
    paho.ask(
        "back",
        "disconnect",
        json!({"reason": 4, "properties": {"SessionExpiryInterval": 0}}),
    );
    assert_eq!(paho.receive("watcher", 1)[0]["topic"], "will/second");
}

#[test]
fn s3_3_2_3_properties_arrive_as_they_were_sent() {
    let (_broker, paho) = clients();
    paho.connect("a", json!({}));
    paho.subscribe("a", "p", json!({"qos": 2}));
    let sent = json!({
        "PayloadFormatIndicator": 1, "MessageExpiryInterval": 1_000, "ContentType": "text/x",
        "ResponseTopic": "answer/here", "CorrelationData": "which",
        "UserProperty": [["b", "1"], ["a", "2"], ["b", "1"], ["", ""]],
    });
    for qos in 0..3 {
        paho.publish("a", "p", "x", json!({"qos": qos, "properties": sent}));
        let mut message = paho.receive("a", 1).remove(0);
        assert_eq!(message["qos"], qos);
        let left = message["properties"]["MessageExpiryInterval"].take();
        assert!((900..=1_000).contains(&left.as_u64().unwrap()), "{left}");
        message["properties"]["MessageExpiryInterval"] = 1_000.into();
        assert_eq!(message["properties"], sent);
    }
}

#[test]
fn s3_3_1_3_retained_message_comes_as_the_subscription_asks() {
    let (_broker, paho) = clients();
    paho.connect("a", json!({}));
    let retain = json!({"retain": true});
    paho.publish("a", "kept", "old", retain.clone());
    let next = |marker: &str| {
        paho.publish("a", "kept", marker, json!({}));
        let mut found = Vec::new();
        loop {
            let message = paho.receive("a", 1).remove(0);
            if message["payload"] == marker {
                return found;
            }
            found.push((message["payload"].clone(), message["retain"].clone()));
        }
    };
    let old = vec![(json!("old"), json!(true))];
    // 3.8.3.1: always, if the subscription is new, never.
    for (handling, first, again) in [(0, &old, &old), (1, &old, &vec![]), (2, &vec![], &vec![])] {
        let options = json!({"qos": 1, "retainHandling": handling});
        paho.subscribe("a", "kept", options.clone());
        assert_eq!(next("m1"), *first, "new, handling {handling}");
        paho.subscribe("a", "kept", options);
        assert_eq!(next("m2"), *again, "again, handling {handling}");
        paho.ask("a", "unsubscribe", json!({"filters": ["kept"]}));
    }
    // Retain as published: the flag stays on what arrives while subscribed.
    for kept in [false, true] {
        let options = json!({"qos": 1, "retainHandling": 2, "retainAsPublished": kept});
        paho.subscribe("a", "live", options);
        paho.publish("a", "live", "x", retain.clone());
        assert_eq!(paho.receive("a", 1)[0]["retain"], kept);
    }
}

#[test]
fn s3_3_4_overlapping_subscriptions_deliver_once_at_the_highest_qos() {
    let (_broker, paho) = clients();
    paho.connect("a", json!({}));
    for (filter, qos, id) in [("o/#", 0, 7), ("o/+", 2, 8), ("o/x", 1, 300)] {
        let given = json!({
            "filters": [[filter, {"qos": qos}]], "properties": {"SubscriptionIdentifier": id},
        });
        assert_eq!(paho.ask("a", "subscribe", given)["codes"], json!([qos]));
    }
    paho.publish("a", "o/x", "one", json!({"qos": 2}));
    paho.publish("a", "o/x", "two", json!({"qos": 2}));
    let messages = paho.receive("a", 2);
    assert_eq!(payloads(&messages), ["one", "two"]);
    for message in messages {
        assert_eq!(message["qos"], 2);
        let ids = &message["properties"]["SubscriptionIdentifier"];
        let mut ids: Vec<_> = ids.as_array().unwrap().iter().map(Value::as_u64).collect();
        ids.sort();
        assert_eq!(ids, [Some(7), Some(8), Some(300)]);
    }
}

#[test]
fn s3_8_3_1_no_local_keeps_back_only_what_is_its_own() {
    let (_broker, paho) = clients();
    paho.connect("a", json!({}));
    paho.connect("b", json!({}));
    paho.subscribe("a", "n", json!({"qos": 1, "noLocal": true}));
    paho.publish("a", "n", "mine", json!({}));
    paho.publish("b", "n", "other", json!({}));
    assert_eq!(payloads(&paho.receive("a", 1)), ["other"]);
}

#[test]
fn s3_9_3_each_filter_has_its_own_reason_code() {
    let (_broker, paho) = clients();
    for version in [5, 4] {
        paho.connect("a", json!({"version": version}));
        let filters = json!([["ok", {"qos": 1}], ["$SYS/#", {"qos": 2}], ["two", {"qos": 2}],
            ["$share/g/x", {"qos": 0}]]);
        let codes = paho.ask("a", "subscribe", json!({"filters": filters}))["codes"].clone();
        let refused = codes[1].as_u64().unwrap();
        assert!(refused == if version == 5 { 0x87 } else { 0x80 }, "{codes}");
        assert_eq!([&codes[0], &codes[2], &codes[3]], [1, 2, 0]);
        let given = json!({"filters": ["ok", "never", "$share/g/x", "$share/h/x"]});
        let codes = paho.ask("a", "unsubscribe", given)["codes"].clone();
        if version == 5 {
            assert_eq!(codes, json!([0, 0x11, 0, 0x11]));
        }
    }
}

#[test]
fn s4_8_2_shared_subscription_balances_and_outlives_its_members() {
    let (mut broker, paho) = clients();
    for client in ["a", "b"] {
        paho.connect(client, json!({}));
        paho.subscribe(client, "$share/g/work/+", json!({"qos": 1}));
    }
    paho.connect("boss", json!({}));
    let work = |name: &str| paho.publish("boss", &format!("work/{name}"), name, json!({}));
    for number in 0..20 {
        assert_eq!(work(&number.to_string()), 0);
    }
    let both = [paho.receive("a", 10), paho.receive("b", 10)].concat();
    let mut got: Vec<u32> = payloads(&both).iter().map(|n| n.parse().unwrap()).collect();
    got.sort();
    assert_eq!(got, (0..20).collect::<Vec<_>>());
    broker.until_left(|| drop(paho.ask("a", "disconnect", json!({}))));
    for name in ["x", "y", "z"] {
        work(name);
    }
    assert_eq!(payloads(&paho.receive("b", 3)), ["x", "y", "z"]);
    paho.ask("b", "unsubscribe", json!({"filters": ["$share/g/work/+"]}));
    // 3.4.2.1: nobody is there any more, and the publisher is told.
    assert_eq!(work("late"), 0x10);
}

#[test]
fn s3_3_4_no_more_is_sent_than_the_receive_maximum() {
    let (_broker, paho) = clients();
    let given = json!({"manual_ack": true, "properties": {"ReceiveMaximum": 2}});
    paho.connect("a", given);
    paho.subscribe("a", "r", json!({"qos": 1}));
    paho.connect("b", json!({}));
    for payload in ["1", "2", "3", "4"] {
        paho.publish("b", "r", payload, json!({}));
    }
    let mut open = paho.receive("a", 2);
    for payload in ["3", "4"] {
        // An answer that comes after all that may be sent.
        paho.subscribe("a", "other", json!({"qos": 0}));
        assert_eq!(paho.ask("a", "waiting", json!({})), 0);
        let mid = open.remove(0)["mid"].clone();
        paho.ask("a", "acknowledge", json!({"mid": mid, "qos": 1}));
        let next = paho.receive("a", 1).remove(0);
        assert_eq!(next["payload"], payload);
        open.push(next);
    }
}

#[test]
fn s3_1_2_11_4_message_larger_than_the_client_takes_is_left_out() {
    let (_broker, paho) = clients();
    paho.connect("a", json!({"properties": {"MaximumPacketSize": 100}}));
    paho.subscribe("a", "m", json!({"qos": 1}));
    paho.connect("b", json!({}));
    for payload in ["before", &"x".repeat(100), "after"] {
        paho.publish("b", "m", payload, json!({}));
    }
    assert_eq!(payloads(&paho.receive("a", 2)), ["before", "after"]);
}

#[test]
fn s3_3_2_3_3_message_that_expired_while_the_client_was_away_does_not_come() {
    let (_broker, paho) = clients();
    let lasting = json!({"clean": false, "properties": {"SessionExpiryInterval": 300}});
    paho.connect("a", lasting.clone());
    paho.subscribe("a", "e", json!({"qos": 1}));
    paho.ask("a", "disconnect", json!({}));
    paho.connect("b", json!({}));
    let of_use = |seconds| json!({"properties": {"MessageExpiryInterval": seconds}});
    paho.publish("b", "e", "short", of_use(1));
    paho.publish("b", "e", "long", of_use(1_000));
    // Its will says when the second is over.
    paho.subscribe("b", "clock", json!({"qos": 1}));
    let will = json!({"topic": "clock", "payload": "", "properties": {"WillDelayInterval": 2}});
    let properties = json!({"SessionExpiryInterval": 300});
    paho.connect("clock", json!({"will": will, "properties": properties}));
    paho.ask("clock", "vanish", json!({}));
    paho.receive("b", 1);
    paho.connect("a", lasting);
    assert_eq!(payloads(&paho.receive("a", 1)), ["long"]);
}

#[test]
fn s3_3_2_3_4_topic_alias_of_a_client_stands_for_its_topic() {
    let (_broker, paho) = clients();
    let most = paho.connect("a", json!({}))["properties"]["TopicAliasMaximum"].clone();
    assert!(most.as_u64().unwrap() >= 1, "{most}");
    paho.subscribe("a", "alias/#", json!({"qos": 1}));
    let alias = json!({"properties": {"TopicAlias": 1}});
    paho.publish("a", "alias/one", "1", alias.clone());
    paho.publish("a", "", "2", alias.clone());
    paho.publish("a", "alias/two", "3", alias.clone());
    paho.publish("a", "", "4", alias);
    let topics: Vec<_> = paho
        .receive("a", 4)
        .iter()
        .map(|m| m["topic"].clone())
        .collect();
    assert_eq!(topics, ["alias/one", "alias/one", "alias/two", "alias/two"]);
    // 4.13: an alias that is too high ends the connection.
    let wrong = json!({"topic": "x", "qos": 0, "properties": {"TopicAlias": 65_535}});
    paho.ask("a", "publish", wrong);
    let end = paho.ask("a", "ended", json!({}));
    assert_eq!(end["code"], 0x94);
}

#[test]
fn s3_3_2_3_2_payload_declared_as_text_must_be_text() {
    let (_broker, paho) = clients();
    paho.connect("a", json!({}));
    paho.subscribe("a", "f", json!({"qos": 1}));
    let declared = json!({"PayloadFormatIndicator": 1});
    let given = json!({"topic": "f", "hex": "ff", "qos": 1, "properties": declared});
    assert_eq!(paho.ask("a", "publish", given)["code"], 0x99);
    let good = json!({"properties": declared});
    assert_eq!(paho.publish("a", "f", "ü", good), 0);
    assert_eq!(payloads(&paho.receive("a", 1)), ["ü"]);
}

#[test]
fn s4_10_request_is_answered_where_it_asks_with_its_correlation_data() {
    let (broker, paho) = clients();
    paho.connect("server", json!({}));
    paho.subscribe("server", "ask", json!({"qos": 1}));
    for protocol in BOTH {
        let asking = broker.mosquitto_in("device-b1", protocol).request(&[
            "-t",
            "ask",
            "-e",
            "answer/b1",
            "-m",
            "what?",
            "-q",
            "1",
        ]);
        let request = paho.receive("server", 1).remove(0);
        assert_eq!(request["payload"], "what?");
        let (mut to, mut properties) = (json!("answer/b1"), json!({}));
        if protocol == Protocol::V5 {
            to = request["properties"]["ResponseTopic"].clone();
            properties = request["properties"].clone();
            properties.as_object_mut().unwrap().remove("ResponseTopic");
        }
        let given = json!({"properties": properties});
        paho.publish("server", to.as_str().unwrap(), "that", given);
        let done = asking.finish();
        assert_eq!((done.code, done.stdout.trim()), (0, "that"));
    }
}

#[test]
fn versions_exchange_messages_at_every_quality_of_service() {
    let (_broker, paho) = clients();
    for (from, to) in [(4, 5), (5, 4), (4, 4), (5, 5)] {
        paho.connect("from", json!({"version": from}));
        paho.connect("to", json!({"version": to}));
        for granted in 0..3 {
            assert_eq!(
                paho.subscribe("to", "q/+", json!({"qos": granted})),
                granted
            );
            for sent in 0..3 {
                let payload = format!("{from}{to}{granted}{sent}");
                paho.publish("from", "q/x", &payload, json!({"qos": sent}));
                let message = paho.receive("to", 1).remove(0);
                assert_eq!(message["payload"], payload.as_str());
                assert_eq!(message["qos"], granted.min(sent));
            }
        }
    }
}

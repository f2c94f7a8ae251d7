//! What MQTT demands, as an unmodified MQTT.js sees it, in both versions where it holds in both.
//! The names begin with the section of the standard, MQTT 5 (`s`) or 3.1.1 (`v3_s`).

use serde_json::{Value, json};

use crate::harness::Broker;
use crate::harness::clients::payloads;
use crate::harness::mqtt_js::MqttJs;

/// Both versions, as CONNECT numbers them.
const BOTH: [u8; 2] = [4, 5];

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

fn clients() -> (Broker, MqttJs) {
    let broker = Broker::start();
    let js = MqttJs::start(&broker, "device-a1");
    (broker, js)
}

/// CONNECT of a session that outlives its connection.
fn lasting(version: u8) -> Value {
    json!({
        "version": version, "clean": false, "properties": {"SessionExpiryInterval": 300},
    })
}

#[test]
fn s4_3_message_comes_at_the_lower_of_both_qualities() {
    let (_broker, js) = clients();
    for (from, to) in [(4, 5), (5, 4), (4, 4), (5, 5)] {
        js.connect("from", json!({"version": from}));
        js.connect("to", json!({"version": to}));
        for granted in 0..3 {
            assert_eq!(js.subscribe("to", "q/+", json!({"qos": granted})), granted);
            for sent in 0..3 {
                let payload = format!("{from}{to}{granted}{sent}");
                js.publish("from", "q/x", &payload, json!({"qos": sent}));
                let message = js.receive("to", 1).remove(0);
                assert_eq!(message["payload"], payload.as_str());
                assert_eq!(message["qos"], granted.min(sent));
                assert_eq!(message["dup"], false);
            }
        }
    }
}

#[test]
fn s3_3_1_3_retained_message_is_set_replaced_and_cleared() {
    let (_broker, js) = clients();
    for version in BOTH {
        js.connect("from", json!({"version": version}));
        js.connect("to", json!({"version": version}));
        // What is retained, and a mark that comes after it.
        let kept = || {
            js.subscribe("to", "kept/+", json!({"qos": 1}));
            js.publish("from", "kept/mark", "mark", json!({}));
            let mut found = Vec::new();
            loop {
                let message = js.receive("to", 1).remove(0);
                if message["payload"] == "mark" {
                    let given = json!({"filters": ["kept/+"]});
                    js.ask("to", "unsubscribe", given);
                    return found;
                }
                found.push((message["payload"].clone(), message["retain"].clone()));
            }
        };
        assert_eq!(kept(), []);
        let retain = json!({"retain": true});
        js.publish("from", "kept/x", "old", retain.clone());
        js.publish("from", "kept/x", "new", retain.clone());
        assert_eq!(kept(), [(json!("new"), json!(true))]);
        // An empty payload that is not retained is a message like any.
        js.publish("from", "kept/x", "", json!({}));
        assert_eq!(kept(), [(json!("new"), json!(true))]);
        js.publish("from", "kept/x", "", retain);
        assert_eq!(kept(), []);
    }
}

#[test]
fn s3_1_2_5_will_is_published_when_the_client_vanishes_and_not_when_it_leaves() {
    let (_broker, js) = clients();
    for version in BOTH {
        js.connect("watcher", json!({"version": version}));
        js.subscribe("watcher", "will/#", json!({"qos": 2}));
        let with_will = |topic: &str| {
            json!({
                "version": version,
                "will": {"topic": topic, "payload": "gone", "qos": 2, "retain": false},
            })
        };
        js.connect("leaves", with_will("will/leaves"));
        js.ask("leaves", "disconnect", json!({}));
        js.connect("vanishes", with_will("will/vanishes"));
        js.ask("vanishes", "vanish", json!({}));
        let message = js.receive("watcher", 1).remove(0);
        assert_eq!(
            (&message["topic"], &message["payload"], &message["qos"]),
            (&json!("will/vanishes"), &json!("gone"), &json!(2))
        );
    }
}

#[test]
fn s3_1_3_2_will_has_its_properties_and_a_reason_that_asks_for_it() {
    let (_broker, js) = clients();
    js.connect("watcher", json!({}));
    js.subscribe("watcher", "will", json!({"qos": 1}));
    let properties = json!({
        "ContentType": "text/plain", "UserProperty": [["k", "1"], ["k", "2"]],
        "ResponseTopic": "r", "CorrelationData": "c", "PayloadFormatIndicator": true,
    });
    let will = json!({"topic": "will", "payload": "gone", "qos": 1, "properties": properties});
    js.connect("a", json!({"will": will}));
    // 3.14.2.1: a DISCONNECT with 0x04 leaves the will.
    js.ask("a", "disconnect", json!({"reason": 4}));
    assert_eq!(js.receive("watcher", 1)[0]["properties"], properties);
}

#[test]
fn s3_1_2_4_session_is_present_only_if_it_was_kept_and_has_its_queue() {
    let (_broker, js) = clients();
    for version in BOTH {
        let id = format!("kept-{version}");
        let connect = |given: Value| js.connect(&id, given)["session_present"].clone();
        assert_eq!(connect(lasting(version)), false);
        js.subscribe(&id, "s/+", json!({"qos": 2}));
        js.ask(&id, "disconnect", json!({}));
        js.connect("from", json!({"version": version}));
        for (qos, payload) in [(1, "one"), (2, "two"), (0, "lost"), (1, "three")] {
            let topic = format!("s/{payload}");
            assert_eq!(js.publish("from", &topic, payload, json!({"qos": qos})), 0);
        }
        assert_eq!(connect(lasting(version)), true);
        let messages = js.receive(&id, 3);
        // A QoS 2 message is shown when it is released, after others that came later.
        let mut got = payloads(&messages);
        got.sort();
        assert_eq!(got, ["one", "three", "two"]);
        js.ask(&id, "disconnect", json!({}));
        // A clean start ends it.
        assert_eq!(connect(json!({"version": version})), false);
        js.ask(&id, "disconnect", json!({}));
        assert_eq!(connect(lasting(version)), false);
    }
}

#[test]
fn s4_4_message_without_acknowledgement_comes_again_with_its_packet_id() {
    let (_broker, js) = clients();
    for version in BOTH {
        let mut first = lasting(version);
        first["unacknowledged"] = true.into();
        let id = format!("again-{version}");
        js.connect(&id, first);
        js.subscribe(&id, "again", json!({"qos": 1}));
        js.connect("from", json!({"version": version}));
        js.publish("from", "again", "x", json!({}));
        let sent = js.ask(&id, "raw", json!({}));
        assert_eq!(sent["dup"], false);
        js.ask(&id, "vanish", json!({}));
        assert_eq!(js.connect(&id, lasting(version))["session_present"], true);
        let message = js.receive(&id, 1).remove(0);
        assert_eq!(message["payload"], "x");
        assert_eq!(
            (&message["dup"], &message["mid"]),
            (&json!(true), &sent["mid"])
        );
    }
}

#[test]
fn s4_8_2_shared_subscription_balances_and_outlives_its_members() {
    let (mut broker, js) = clients();
    for version in BOTH {
        for client in ["a", "b"] {
            js.connect(client, json!({"version": version}));
            let filter = "$share/g/work/+";
            assert_eq!(js.subscribe(client, filter, json!({"qos": 1})), 1);
        }
        js.connect("boss", json!({}));
        let work = |name: &str| js.publish("boss", &format!("work/{name}"), name, json!({}));
        for number in 0..20 {
            assert_eq!(work(&number.to_string()), 0);
        }
        let both = [js.receive("a", 10), js.receive("b", 10)].concat();
        let mut got: Vec<u32> = payloads(&both).iter().map(|n| n.parse().unwrap()).collect();
        got.sort();
        assert_eq!(got, (0..20).collect::<Vec<_>>());
        broker.until_left(|| drop(js.ask("a", "disconnect", json!({}))));
        for name in ["x", "y", "z"] {
            work(name);
        }
        assert_eq!(payloads(&js.receive("b", 3)), ["x", "y", "z"]);
        js.ask("b", "unsubscribe", json!({"filters": ["$share/g/work/+"]}));
        // 3.4.2.1: nobody is there any more, and the publisher is told.
        assert_eq!(work("late"), 0x10);
    }
}

#[test]
fn s3_3_2_3_4_topic_aliases_stand_for_their_topics_in_both_directions() {
    let (_broker, js) = clients();
    // The library chooses the aliases of what it sends, within the broker's maximum.
    let given = json!({"alias": true, "properties": {"TopicAliasMaximum": 2}});
    let most = js.connect("a", given)["properties"]["TopicAliasMaximum"].clone();
    assert!(most.as_u64().unwrap() >= 1, "{most}");
    js.subscribe("a", "alias/#", json!({"qos": 1}));
    let topics = ["one", "two", "one", "three", "two", "one", "one"];
    for name in topics {
        js.publish("a", &format!("alias/{name}"), name, json!({}));
    }
    let mut aliased = 0;
    for (message, name) in js.receive("a", topics.len()).iter().zip(topics) {
        assert_eq!(message["topic"], format!("alias/{name}"));
        assert_eq!(message["payload"], name);
        let alias = js.ask("a", "raw", json!({}))["alias"].clone();
        assert!(alias.is_null() || alias == 1 || alias == 2, "{alias}");
        aliased += usize::from(!alias.is_null());
    }
    assert!(aliased > 0, "the broker made no use of aliases");
}

#[test]
fn s3_3_2_3_properties_arrive_as_they_were_sent() {
    let (_broker, js) = clients();
    js.connect("a", json!({}));
    let given = json!({
        "filters": [["p", {"qos": 2}]], "properties": {"SubscriptionIdentifier": 9},
    });
    assert_eq!(js.ask("a", "subscribe", given)["codes"], json!([2]));
    let mut sent = json!({
        "PayloadFormatIndicator": true, "MessageExpiryInterval": 1_000, "ContentType": "text/x",
        "ResponseTopic": "answer/here", "CorrelationData": "which",
        "UserProperty": [["b", "1"], ["b", "2"], ["b", "1"], ["a", ""]],
    });
    for qos in 0..3 {
        let given = json!({"qos": qos, "properties": sent});
        js.publish("a", "p", "x", given);
        let mut message = js.receive("a", 1).remove(0);
        assert_eq!(message["qos"], qos);
        let left = message["properties"]["MessageExpiryInterval"].take();
        assert!((900..=1_000).contains(&left.as_u64().unwrap()), "{left}");
        message["properties"]["MessageExpiryInterval"] = 1_000.into();
        sent["SubscriptionIdentifier"] = 9.into();
        assert_eq!(message["properties"], sent);
        sent.as_object_mut()
            .unwrap()
            .remove("SubscriptionIdentifier");
    }
}

#[test]
fn s3_8_3_1_options_of_a_subscription_hold() {
    let (_broker, js) = clients();
    js.connect("a", json!({}));
    js.connect("b", json!({}));
    js.publish("b", "o", "kept", json!({"retain": true}));
    let options = json!({
        "qos": 1, "noLocal": true, "retainAsPublished": true, "retainHandling": 2,
    });
    js.subscribe("a", "o", options);
    js.publish("a", "o", "mine", json!({}));
    js.publish("b", "o", "other", json!({"retain": true}));
    let message = js.receive("a", 1).remove(0);
    assert_eq!(
        (&message["payload"], &message["retain"]),
        (&json!("other"), &json!(true))
    );
}

#[test]
fn s3_1_2_10_client_is_held_to_the_keep_alive_of_the_server() {
    let broker = Broker::start_with_lines(|_| RULES.to_owned());
    let js = MqttJs::start(&broker, "device-a1");
    let told = |keep_alive: u16| {
        let ack = js.connect("a", json!({"keep_alive": keep_alive}));
        ack["properties"]["ServerKeepAlive"].clone()
    };
    assert_eq!(told(60), 7);
    assert_eq!(told(0), 7);
    assert!(told(5).is_null(), "its own is short enough");
}

#[test]
fn s3_1_2_11_7_answers_give_no_reasons_to_a_client_that_wants_none() {
    let broker = Broker::start_with_lines(|_| RULES.to_owned());
    let js = MqttJs::start(&broker, "device-a1");
    for wanted in [true, false] {
        let properties = json!({"RequestProblemInformation": wanted});
        js.connect("a", json!({"properties": properties}));
        let given = json!({"topic": "secret/x", "payload": "x", "qos": 1});
        let refused = js.ask("a", "publish", given);
        assert_eq!(refused["code"], 0x87);
        let given = json!({"filters": [["secret/x", {"qos": 1}]]});
        let also = js.ask("a", "subscribe", given);
        assert_eq!(also["codes"], json!([0x87]));
        for answer in [refused, also] {
            let reason = &answer["properties"]["ReasonString"];
            assert!(wanted || reason.is_null(), "{answer}");
        }
        // DISCONNECT may give it, and does: here as another connection takes over.
        js.ask("new", "connect", json!({"id": "a"}));
        let end = js.ask("a", "ended", json!({}));
        assert!(end["properties"]["ReasonString"].is_string(), "{end}");
    }
}

#[test]
fn s3_9_3_what_is_refused_has_its_reason_code_and_the_rest_goes_on() {
    let broker = Broker::start_with_lines(|_| RULES.to_owned());
    let js = MqttJs::start(&broker, "device-a1");
    for (version, refused) in [(5, 0x87), (4, 0x80)] {
        js.connect("a", json!({"version": version}));
        let filters = json!([["ok", {"qos": 1}], ["secret/x", {"qos": 2}], ["two", {"qos": 2}]]);
        let codes = js.ask("a", "subscribe", json!({"filters": filters}))["codes"].clone();
        assert_eq!(codes, json!([1, refused, 2]));
    }
    // 3.4.2.1 and 3.5.2.1: a publish that is refused is answered, at either quality.
    js.connect("b", json!({}));
    for qos in [1, 2] {
        assert_eq!(
            js.publish("b", "secret/x", "x", json!({"qos": qos})),
            0x87,
            "{qos}"
        );
        assert_eq!(js.publish("b", "ok", "x", json!({"qos": qos})), 0);
    }
    // 3.11.3: each filter has its own.
    js.connect("c", json!({}));
    js.subscribe("c", "ok", json!({"qos": 0}));
    let given = json!({"filters": ["ok", "never"]});
    let codes = js.ask("c", "unsubscribe", given)["codes"].clone();
    assert_eq!(codes, json!([0, 0x11]));
    // 3.1.1 has no answer that says no to a message: the connection ends (3.3.5).
    js.connect("a", json!({"version": 4}));
    js.ask("a", "publish", json!({"topic": "secret/x", "qos": 0}));
    js.ask("a", "ended", json!({}));
}

#[test]
fn s3_1_4_second_connection_takes_over_and_says_so() {
    let (_broker, js) = clients();
    for (version, by_server, code) in [(5, true, 0x8E), (4, false, 0)] {
        js.ask("old", "connect", json!({"id": "same", "version": version}));
        js.ask("new", "connect", json!({"id": "same", "version": version}));
        let end = js.ask("old", "ended", json!({}));
        assert_eq!(
            (&end["by_server"], &end["code"]),
            (&json!(by_server), &json!(code))
        );
        js.subscribe("new", "t", json!({"qos": 2}));
        assert_eq!(js.publish("new", "t", "x", json!({"qos": 2})), 0);
        assert_eq!(payloads(&js.receive("new", 1)), ["x"]);
        js.ask("new", "disconnect", json!({}));
    }
}

#[test]
fn s3_1_3_1_client_without_an_id_is_told_the_one_it_was_given() {
    let (_broker, js) = clients();
    let id = |client: &str, given: Value| {
        let answer = js.ask(client, "connect", given);
        assert_eq!(answer["code"], 0);
        answer["properties"]["AssignedClientIdentifier"].clone()
    };
    let (one, other) = (id("one", json!({})), id("other", json!({})));
    assert!(one.as_str().is_some_and(|id| !id.is_empty()), "{one}");
    assert_ne!(one, other);
    assert!(id("named", json!({"id": "named"})).is_null());
    // 3.1.1 has no word for it; the session is a clean one.
    assert!(id("old", json!({"version": 4})).is_null());
}

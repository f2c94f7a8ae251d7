//! The admin door inside the broker: `$CONTROL/portcullis/v1`.

use bytes::Bytes;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{PublishProperties, SubscribeAckReason};
use serde_json::{Value, json};

use crate::harness::broker::INSTANCE;
use crate::harness::mqtt::Mqtt;
use crate::harness::{Broker, End, Version};

const COMMANDS: &str = "$CONTROL/portcullis/v1";
const ANSWERS: &str = "$CONTROL/portcullis/v1/response";

#[test]
fn administrator_commands_and_gets_answers_with_correlation() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    let mut admin = Admin::connect(&broker);
    let answer = admin.command("InactivateCaCertificate", json!({"Sn": sn}));
    assert_eq!(answer["Sn"], sn.as_str(), "{answer}");
    assert!(answer["RequestId"].is_string());
    assert_eq!(broker.api().status(&sn), "0");
    assert!(!broker.admits(&broker.identity("device-a1")));

    let answer = admin.command("ActiveCaCertificate", json!({"Sn": sn}));
    assert_eq!(answer["Sn"], sn.as_str(), "{answer}");
    assert!(broker.admits(&broker.identity("device-a1")));
}

#[test]
fn both_doors_answer_the_same() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-b");
    let mut admin = Admin::connect(&broker);
    let cases = [
        ("GetCaCertificate", json!({"Sn": sn})),
        ("ListCaCertificate", json!({"PageNo": "1", "PageSize": "2"})),
        ("InactivateCaCertificate", json!({"Sn": sn})),
        ("ActiveCaCertificate", json!({"Sn": sn})),
        ("GetCaCertificate", json!({"Sn": "00"})),
        ("GetCaCertificate", json!({})),
        ("ListCaCertificate", json!({"PageNo": "0", "PageSize": "2"})),
    ];
    for (action, params) in cases {
        let pairs: Vec<_> = params
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str().unwrap()))
            .collect();
        let http = api.call(action, &pairs);
        let mqtt = admin.command(action, params.clone());
        assert_eq!(mqtt["Action"], action);
        assert_eq!(mqtt["HttpStatus"], http.status, "{action} {params}");
        let (http, mqtt) = (without_names(http.json()), without_names(mqtt));
        assert_eq!(http, mqtt, "{action} {params}");
    }
}

#[test]
fn administrator_without_response_topic_is_answered_on_the_default_topic() {
    let broker = Broker::start();
    let mut admin = Admin::connect(&broker);
    admin
        .mqtt
        .subscribe(ANSWERS, QoS::AtLeastOnce)
        .expect("SUBACK");
    let command = json!({"Action": "ListCaCertificate", "MqttInstanceId": INSTANCE,
                         "PageNo": "1", "PageSize": "10"});
    admin
        .mqtt
        .publish(
            COMMANDS,
            command.to_string().as_bytes(),
            PublishProperties::default(),
        )
        .unwrap();
    let answer = admin.mqtt.next_publish().unwrap();
    assert_eq!(&answer.topic[..], ANSWERS);
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["Data"]["Total"], 3, "{answer}");
}

#[test]
fn administrator_is_told_what_is_wrong_with_a_command() {
    let broker = Broker::start();
    let mut admin = Admin::connect(&broker);
    for payload in [
        &b"no JSON"[..],
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"{\"Action\": 7}",
    ] {
        let answer = admin.raw(payload);
        assert!(answer["Code"].is_string(), "{payload:?}: {answer}");
        assert!(answer["Message"].is_string(), "{payload:?}: {answer}");
    }
    let answer = admin.command("FormatTheDisk", json!({}));
    assert!(answer["Code"].is_string(), "{answer}");
    admin.mqtt.ping().unwrap();
}

#[test]
fn device_that_publishes_a_command_is_refused() {
    let broker = Broker::start();
    let sn = broker.api().sn_of("ca-b");
    let command =
        json!({"Action": "InactivateCaCertificate", "MqttInstanceId": INSTANCE, "Sn": sn})
            .to_string();
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let mut device = client.connect().unwrap();
    device
        .publish(COMMANDS, command.as_bytes(), PublishProperties::default())
        .unwrap();
    match device.next() {
        Ok(rmqtt_codec::v5::Packet::PublishAck(ack)) => assert_eq!(
            ack.reason_code,
            rmqtt_codec::v5::PublishAckReason::NotAuthorized
        ),
        Ok(rmqtt_codec::v5::Packet::Disconnect(end)) => assert_eq!(
            end.reason_code,
            rmqtt_codec::v5::DisconnectReasonCode::NotAuthorized
        ),
        other => panic!("{other:?}"),
    }
    let tools = broker.mosquitto("device-a2");
    tools.publish(&["-t", COMMANDS, "-m", &command, "-q", "1"]);
    assert_eq!(broker.api().status(&sn), "1");
}

#[test]
fn device_that_subscribes_to_answers_is_refused() {
    let broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let mut device = client.connect().unwrap();
    for filter in [COMMANDS, ANSWERS, "$CONTROL/#", "$CONTROL/portcullis/+"] {
        let reason = device.subscribe(filter, QoS::AtLeastOnce).unwrap();
        assert_eq!(reason, SubscribeAckReason::NotAuthorized, "{filter}");
    }
    device.ping().unwrap();
}

#[test]
fn answers_do_not_reach_a_device_that_subscribes_to_everything() {
    let broker = Broker::start();
    let client = broker.client(&broker.identity("device-a1"), Version::V13);
    let mut device = client.connect().unwrap();
    for filter in ["#", "+/portcullis/v1/response", "+/+/+"] {
        device.subscribe(filter, QoS::AtLeastOnce).unwrap();
    }
    let mut admin = Admin::connect(&broker);
    admin.command(
        "ListCaCertificate",
        json!({"PageNo": "1", "PageSize": "10"}),
    );
    let b1 = broker.mosquitto("device-b1");
    b1.publish_ok(&["-t", "plain/topic", "-m", "mark", "-q", "1"]);
    let first = device.next_publish().unwrap();
    assert_eq!(&first.topic[..], "plain/topic");
}

#[test]
fn administrator_is_not_a_way_around_the_device_cas() {
    // A device certificate whose common name is the administrator's is no administrator.
    let broker = Broker::start();
    let admin_der = &broker.identity("admin").chain[0];
    let (_, parsed) = x509_parser::parse_x509_certificate(admin_der).unwrap();
    let name = parsed.subject().iter_common_name().next().unwrap();
    let ca = crate::harness::pki::Ca::load(&broker, "ca-a");
    let fake = ca.device(name.as_str().unwrap());
    let mut fake = broker.client(&fake, Version::V13).connect().unwrap();
    let reason = fake.subscribe(ANSWERS, QoS::AtMostOnce).unwrap();
    assert_eq!(reason, SubscribeAckReason::NotAuthorized);
}

/// An administrator's connection with a topic of its own for the answers.
pub struct Admin {
    pub mqtt: Mqtt,
    count: u32,
}

const OWN_ANSWERS: &str = "$CONTROL/portcullis/v1/response/e2e";

impl Admin {
    pub fn connect(broker: &Broker) -> Self {
        let client = broker.client(&broker.identity("admin"), Version::V13);
        Self::over(client.connect().unwrap())
    }

    /// The administrator that has this connection.
    pub fn over(mut mqtt: Mqtt) -> Self {
        let reason = mqtt.subscribe(OWN_ANSWERS, QoS::AtLeastOnce).unwrap();
        assert_eq!(reason, SubscribeAckReason::GrantedQos1);
        Self { mqtt, count: 0 }
    }

    pub fn command(&mut self, action: &str, params: Value) -> Value {
        let mut command = params;
        command["Action"] = json!(action);
        command["MqttInstanceId"] = json!(INSTANCE);
        self.raw(command.to_string().as_bytes())
    }

    /// Send a command as it is.
    pub fn send(&mut self, command: &Value) -> Value {
        self.raw(command.to_string().as_bytes())
    }

    fn raw(&mut self, payload: &[u8]) -> Value {
        self.count += 1;
        let correlation = Bytes::from(format!("e2e-{}", self.count));
        let properties = PublishProperties {
            response_topic: Some(OWN_ANSWERS.into()),
            correlation_data: Some(correlation.clone()),
            ..PublishProperties::default()
        };
        self.mqtt.publish(COMMANDS, payload, properties).unwrap();
        let answer = self.mqtt.next_publish().unwrap_or_else(|end: End| {
            panic!("no answer to {:?}: {end}", String::from_utf8_lossy(payload))
        });
        assert_eq!(&answer.topic[..], OWN_ANSWERS);
        let properties = answer.properties.unwrap();
        assert_eq!(properties.correlation_data, Some(correlation));
        serde_json::from_slice(&answer.payload).unwrap()
    }
}

/// The answer without what differs between any two requests.
fn without_names(mut answer: Value) -> Value {
    let fields = answer.as_object_mut().unwrap();
    fields.remove("RequestId");
    fields.remove("HostId");
    // The answer over MQTT carries these besides.
    fields.remove("Action");
    fields.remove("HttpStatus");
    answer
}

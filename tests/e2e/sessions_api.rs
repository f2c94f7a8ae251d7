//! The operations on sessions and instances: through HTTP, the vendor's SDK and the control topic.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::DisconnectReasonCode;
use serde_json::{Value, json};

use crate::control_channel::Admin;
use crate::harness::api::Answer;
use crate::harness::broker::INSTANCE;
use crate::harness::mosquitto::{BOTH, Protocol};
use crate::harness::mqtt::Mqtt;
use crate::harness::pki;
use crate::harness::sdk::{Caller, Sdk, Style};
use crate::harness::{Broker, End, Version, wait_until};

impl Broker {
    /// Connect a development device under this client id, with a session that waits for it.
    pub fn connect_as(&self, device: &str, client_id: &str) -> Mqtt {
        let mut hello = Mqtt::hello(client_id);
        hello.session_expiry_interval_secs = 300;
        hello.clean_start = false;
        let client = self.client(&self.identity(device), Version::V13);
        Mqtt::connect(client.handshake().unwrap(), hello).unwrap()
    }

    /// Call an operation that calls the instance `InstanceId`.
    pub fn call_about(&self, action: &str, params: &[(&str, &str)]) -> Answer {
        let api = self.api();
        let mut all = vec![("InstanceId", INSTANCE)];
        all.extend_from_slice(params);
        api.send(&api.request(action, &all))
    }

    fn is_online(&self, client_id: &str) -> bool {
        let body = self
            .call_about("QuerySessionByClientId", &[("ClientId", client_id)])
            .ok();
        body["OnlineStatus"].as_bool().unwrap()
    }

    /// All sessions, one page.
    fn sessions(&self, params: &[(&str, &str)]) -> Vec<Value> {
        let mut all = vec![("PageNo", "1"), ("PageSize", "100")];
        all.extend_from_slice(params);
        let body = self.api().call("ListSessions", &all).ok();
        body["Data"]["SessionVOS"].as_array().unwrap().clone()
    }
}

#[test]
fn sdk_runs_every_session_operation() {
    session_operations(Style::Sync);
}

#[test]
fn sdk_runs_every_session_operation_asynchronously() {
    session_operations(Style::Async);
}

fn session_operations(style: Style) {
    let broker = Broker::start();
    let sdk = Sdk::new(&broker, style);
    let id = "GID_test@@@c 1,+/=*~ü";
    let first = broker.connect_as("device-a1", id);
    let mut other = broker.connect_as("device-b1", "other");
    let named = json!({"ClientId": id});
    let asked = json!({"ClientIdList": ["nobody", id, "other"]});

    let online = sdk.ok("QuerySessionByClientId", named.clone());
    assert_eq!(online["OnlineStatus"], true);
    let batch = sdk.ok("BatchQuerySessionByClientIds", asked.clone());
    assert_eq!(
        batch["OnlineStatusList"],
        json!([
            {"ClientId": "nobody", "OnlineStatus": false},
            {"ClientId": id, "OnlineStatus": true},
            {"ClientId": "other", "OnlineStatus": true},
        ])
    );

    let closed = sdk.ok("CloseConnection", named.clone());
    assert_eq!(closed["Code"], 200, "a number");
    assert_eq!(closed["Success"], true);
    assert_eq!(closed["Message"], "operation success.");
    assert!(closed["RequestId"].is_string());
    assert_eq!(
        first.wait_disconnect(),
        DisconnectReasonCode::AdministrativeAction
    );
    other.ping().unwrap();
    let again = sdk.ok("CloseConnection", named.clone());
    assert_eq!(
        (&again["Code"], &again["Success"]),
        (&json!(200), &json!(false))
    );
    let offline = sdk.ok("QuerySessionByClientId", named);
    assert_eq!(offline["OnlineStatus"], false);
    let back = broker.connect_as("device-a1", id);
    assert!(back.ack.session_present);
    let batch = sdk.ok("BatchQuerySessionByClientIds", asked);
    assert_eq!(batch["OnlineStatusList"][1]["OnlineStatus"], true);

    let listed = sdk.ok("ListInstances", json!({}));
    assert_eq!(listed["Code"], "200", "a text");
    assert_eq!(listed["Success"], "true", "a text");
    let instances = listed["Instances"].as_array().unwrap();
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0]["InstanceId"], INSTANCE);
    assert_eq!(instances[0]["InstanceName"], INSTANCE);
    assert_eq!(instances[0]["InstanceStatus"], 5);
    assert_eq!(instances[0]["RegionId"], "cn-hangzhou");
}

#[test]
fn sdk_sees_what_is_wrong_with_a_session_call() {
    let broker = Broker::start();
    let sdk = Sdk::new(&broker, Style::Sync);
    let eleven: Vec<_> = (0..11).map(|n| format!("c{n}")).collect();
    for (operation, arguments) in [
        ("CloseConnection", json!({})),
        ("CloseConnection", json!({"ClientId": ""})),
        ("CloseConnection", json!({"ClientId": "a\u{0}b"})),
        ("QuerySessionByClientId", json!({"ClientId": "a\nb"})),
        (
            "QuerySessionByClientId",
            json!({"ClientId": "x".repeat(257)}),
        ),
        ("BatchQuerySessionByClientIds", json!({})),
        (
            "BatchQuerySessionByClientIds",
            json!({"ClientIdList": eleven}),
        ),
        (
            "BatchQuerySessionByClientIds",
            json!({"ClientIdList": ["ok", "\u{7f}"]}),
        ),
        ("ListInstances", json!({"Tags": "[{\"key\":\"a\"}]"})),
    ] {
        let error = sdk.error(operation, arguments.clone());
        assert_eq!(
            error["code"], "ParameterFieldCheckFailed",
            "{operation} {arguments}"
        );
        assert_eq!(error["status"], 400);
    }
    let answer = broker.api().call("SetSniConfig", &[]);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (404, "ApiNotSupport")
    );
    assert!(answer.text.contains("configuration file"), "{answer:?}");
}

#[test]
fn closing_reaches_clients_of_both_versions_and_lets_them_come_back() {
    let broker = Broker::start();
    for protocol in BOTH {
        let id = format!("closed-{protocol:?}");
        let tools = broker.mosquitto_in("device-a1", protocol);
        let subscriber = tools.subscribe(&["-i", &id, "-t", "x", "-q", "1"]);
        assert!(broker.is_online(&id));
        let closed = broker
            .call_about("CloseConnection", &[("ClientId", &id)])
            .ok();
        assert_eq!(closed["Success"], true);
        let back = match protocol {
            // It connects again by itself: a second SUBACK, under the same id.
            Protocol::V311 => {
                let suback = |line: &str| line.contains("SUBACK");
                subscriber.process.wait_stdout_lines("SUBACKs", 2, suback);
                subscriber
            }
            // It is told why, and ends.
            Protocol::V5 => {
                let told = |line: &str| line.contains("DISCONNECT (152)").then_some(());
                subscriber.process.wait_stdout("the reason", told);
                tools.subscribe(&["-i", &id, "-t", "x", "-q", "1"])
            }
        };
        assert!(broker.is_online(&id));
        drop(back);
        wait_until("the client is away", || {
            (!broker.is_online(&id)).then_some(())
        });
    }
}

#[test]
fn nothing_of_a_closed_connection_arrives_after_the_answer() {
    let broker = Broker::start();
    let mut watcher = broker.connect_as("device-b1", "watcher");
    watcher.subscribe("flood", QoS::AtLeastOnce).unwrap();
    let mut flood = broker.connect_as("device-a1", "flood");
    let sending = std::thread::spawn(move || {
        let payload = [b'x'; 64];
        while flood.publish("flood", &payload, Default::default()).is_ok() {}
    });
    watcher.next_publish().unwrap();
    let closed = broker
        .call_about("CloseConnection", &[("ClientId", "flood")])
        .ok();
    assert_eq!(closed["Success"], true);
    let session = broker.sessions(&[("ClientId", "flood")]).remove(0);
    assert_eq!(session["OnlineStatus"], false);
    // What is published now comes after everything that the closed connection published.
    let mut marker = broker.connect_as("device-a2", "marker");
    marker
        .publish("flood", b"mark", Default::default())
        .unwrap();
    while watcher.next_publish().unwrap().payload[..] != *b"mark" {}
    sending.join().unwrap();
    marker
        .publish("flood", b"last", Default::default())
        .unwrap();
    assert_eq!(&watcher.next_publish().unwrap().payload[..], b"last");
}

#[test]
fn client_that_is_no_longer_there_is_closed_and_answered() {
    let broker = Broker::start();
    let gone = broker
        .mosquitto("device-a1")
        .subscribe(&["-i", "gone", "-t", "x"]);
    crate::harness::process::signal(gone.process.id(), "STOP");
    let closed = broker
        .call_about("CloseConnection", &[("ClientId", "gone")])
        .ok();
    assert_eq!(closed["Success"], true);
    assert!(!broker.is_online("gone"));
}

#[test]
fn sessions_are_listed_with_who_they_are() {
    let broker = Broker::start();
    let api = broker.api();
    let (a1, ca_a) = (broker.identity("device-a1"), api.sn_of("ca-a"));
    let mut c2 = broker.connect_as("device-a1", "c2");
    c2.subscribe("a/+", QoS::AtLeastOnce).unwrap();
    let _c1 = broker.connect_as("device-b1", "c1");
    let _c3 = broker.connect_as("device-a2", "c3");
    broker
        .call_about("CloseConnection", &[("ClientId", "c2")])
        .ok();
    broker
        .mosquitto("device-b2")
        .publish_ok(&["-t", "a/b", "-m", "waits", "-q", "1"]);

    let ids = |sessions: Vec<Value>| -> Vec<String> {
        let id = |session: &Value| session["ClientId"].as_str().unwrap().to_owned();
        sessions.iter().map(id).collect()
    };
    let all = broker.sessions(&[]);
    let away = &all[1];
    assert_eq!(away["ClientId"], "c2");
    assert_eq!(away["OnlineStatus"], false);
    assert_eq!(away["ConnectedSince"], "");
    assert_eq!(away["CaSn"], ca_a.as_str());
    assert_eq!(away["DeviceSn"], pki::sn(&a1.chain[0]).as_str());
    assert_eq!(away["DeviceName"], "device-a1");
    assert_eq!(away["Subscriptions"], 1);
    assert_eq!(away["QueuedMessages"], 1);
    let online = &all[2];
    assert_eq!(online["OnlineStatus"], true);
    let since = online["ConnectedSince"].as_str().unwrap();
    assert!(since.parse::<u64>().unwrap() > 1_700_000_000_000, "{since}");
    let address = online["PeerAddress"].as_str().unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert_eq!(ids(all), ["c1", "c2", "c3"]);

    assert_eq!(ids(broker.sessions(&[("CaSn", &ca_a)])), ["c2", "c3"]);
    let online = ("OnlineStatus", "true");
    assert_eq!(ids(broker.sessions(&[("CaSn", &ca_a), online])), ["c3"]);
    assert_eq!(ids(broker.sessions(&[("ClientId", "c1")])), ["c1"]);
    assert!(broker.sessions(&[("ClientId", "c")]).is_empty());
    let second = [("PageNo", "2"), ("PageSize", "2")];
    let body = api.call("ListSessions", &second).ok();
    assert_eq!(body["Data"]["Total"], 3);
    assert_eq!(body["Data"]["PageNo"], 2);
    let page = body["Data"]["SessionVOS"].as_array().unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(page[0]["ClientId"], "c3");

    for (bad, code) in [
        (("CaSn", "77"), "FindCaBySnError"),
        (("CaSn", "xyz"), "ParameterFieldCheckFailed"),
        (("OnlineStatus", "yes"), "ParameterFieldCheckFailed"),
        (("ClientId", ""), "ParameterFieldCheckFailed"),
    ] {
        let params = [("PageNo", "1"), ("PageSize", "2"), bad];
        assert_eq!(api.call("ListSessions", &params).code(), code, "{bad:?}");
    }
    let answer = api.call("ListSessions", &[("PageNo", "1")]);
    assert_eq!(answer.code(), "ParameterFieldCheckFailed");
}

#[test]
fn instance_that_is_not_there_has_no_sessions() {
    let broker = Broker::start();
    let api = broker.api();
    for action in ["CloseConnection", "QuerySessionByClientId"] {
        let params = [("InstanceId", "post-cn-none"), ("ClientId", "c")];
        let answer = api.send(&api.request(action, &params));
        assert_eq!(answer.code(), "MqttInstanceNotFound", "{action}");
        assert_eq!(answer.status, 400, "{action}");
        let answer = api.send(&api.request(action, &[("ClientId", "c")]));
        assert_eq!(answer.code(), "ParameterFieldCheckFailed", "{action}");
    }
}

#[test]
fn administrator_sees_and_closes_over_the_control_topic() {
    let broker = Broker::start();
    let mut client = broker.connect_as("device-a1", "c");
    client.ping().unwrap();
    let mut admin = Admin::connect(&broker);
    let about = |more: Value| {
        let mut all = json!({"InstanceId": INSTANCE, "ClientId": "c"});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    let online = admin.command("QuerySessionByClientId", about(json!({})));
    assert_eq!(online["OnlineStatus"], true, "{online}");
    let batch = json!({"InstanceId": INSTANCE, "ClientIdList.1": "x", "ClientIdList.2": "c"});
    let batch = admin.command("BatchQuerySessionByClientIds", batch);
    assert_eq!(
        batch["OnlineStatusList"][1]["OnlineStatus"], true,
        "{batch}"
    );
    let page = json!({"PageNo": "1", "PageSize": "10"});
    let listed = admin.command("ListSessions", page);
    assert_eq!(listed["Data"]["Total"], 2, "{listed}");
    let instances = admin.command("ListInstances", json!({}));
    assert_eq!(
        instances["Instances"][0]["InstanceId"], INSTANCE,
        "{instances}"
    );
    assert_eq!(instances["Instances"][0]["Connections"], 2);

    let closed = admin.command("CloseConnection", about(json!({})));
    assert_eq!(
        (&closed["Code"], &closed["HttpStatus"]),
        (&json!(200), &json!(200))
    );
    assert_eq!(closed["ConnectionsEnded"], 1);
    assert_eq!(
        client.wait_disconnect(),
        DisconnectReasonCode::AdministrativeAction
    );
    let audit = std::fs::read_to_string(broker.audit_file()).unwrap();
    let records: Vec<Value> = audit
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record: &Value| record.to_string().contains("CloseConnection"))
        .collect();
    assert_eq!(records.len(), 2, "intent and outcome: {records:?}");
    assert!(records[1].to_string().contains("client:c"), "{records:?}");
    assert_eq!(broker.verify_audit().code, 0);
}

#[test]
fn another_account_neither_sees_nor_closes_sessions() {
    let broker = Broker::start();
    let home = broker.stop();
    let file = |name: &str| home.path().join("certs").join(name);
    let stranger = r#"{"AccessKeyId": "stranger", "AccessKeySecret": "thirty-characters-of-no-secret-at-all"}"#;
    let path = file("stranger.json");
    std::fs::write(&path, stranger).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).unwrap();
    let config = home.path().join("portcullis.toml");
    let text = format!(
        r#"
        [[instance]]
        id = "{INSTANCE}"
        account = "dev-account"
        mqtt_listen = "127.0.0.1:0"
        tls_certificate = "certs/server.pem"
        tls_key = "certs/server.key"
        [admin]
        listen = "127.0.0.1:0"
        [[admin.access_key]]
        file = "certs/admin-key.json"
        account = "dev-account"
        [[admin.access_key]]
        file = "certs/stranger.json"
        account = "another"
        "#
    );
    std::fs::write(&config, text).unwrap();
    let broker = Broker::start_with_config(home.clone(), &config);
    let mut client = broker.connect_as("device-a1", "c");
    let mut api = broker.api();
    api.key_id = "stranger".to_owned();
    api.secret = "thirty-characters-of-no-secret-at-all".to_owned();
    for action in ["CloseConnection", "QuerySessionByClientId"] {
        let params = [("InstanceId", INSTANCE), ("ClientId", "c")];
        let answer = api.send(&api.request(action, &params));
        assert_eq!(answer.code(), "MqttOwnerCheckError", "{action}");
        assert_eq!(answer.status, 400, "{action}");
    }
    let page = [("PageNo", "1"), ("PageSize", "10")];
    let answer = api.call("ListSessions", &page);
    assert_eq!(answer.code(), "MqttOwnerCheckError");
    let listed = api.send(&api.request("ListInstances", &[])).ok();
    assert_eq!(listed["Instances"], json!([]));
    client.ping().unwrap();
    let closed: End = {
        broker
            .call_about("CloseConnection", &[("ClientId", "c")])
            .ok();
        client.wait_end()
    };
    assert_ne!(closed, End::Silent, "the owner may");
}

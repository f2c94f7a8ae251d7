//! Several instances in one process: nothing of one is known to another.

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{DisconnectReasonCode, Packet, PublishProperties};
use rustls::AlertDescription;
use serde_json::{Value, json};

use crate::control_channel::Admin;
use crate::harness::fleet::{Fleet, Setup};
use crate::harness::mqtt::Mqtt;
use crate::harness::pki::{Ca, ca_params, sn};
use crate::harness::tls::{BOTH, Identity, Version};
use crate::harness::{Broker, wait_until};

/// A and B share an address and have two owners. C has an address of its own, and A's owner.
const A: &str = "post-cn-a";
const B: &str = "post-cn-b";
const C: &str = "post-cn-c";
const ALL: [&str; 3] = [A, B, C];

struct World {
    fleet: Fleet,
    a: Ca,
    b: Ca,
    c: Ca,
}

impl World {
    /// Each instance with a CA of its own.
    fn start() -> Self {
        let fleet = Setup::new()
            .instance(A, "owner-1", "127.0.0.1:0", &["a.example"])
            .instance(B, "owner-2", "127.0.0.1:0", &["b.example"])
            .instance(C, "owner-1", "127.0.0.1:0", &[])
            .start();
        assert_eq!(fleet.address(A), fleet.address(B));
        assert_ne!(fleet.address(A), fleet.address(C));
        let [a, b, c] = ["CA of A", "CA of B", "CA of C"].map(Ca::root);
        for (instance, ca) in [(A, &a), (B, &b), (C, &c)] {
            fleet.api(instance).register("ca", ca);
        }
        Self { fleet, a, b, c }
    }

    fn ca(&self, instance: &str) -> &Ca {
        match instance {
            A => &self.a,
            B => &self.b,
            _ => &self.c,
        }
    }

    fn client(
        &self,
        instance: &str,
        device: &Identity,
        version: Version,
    ) -> crate::harness::tls::TlsClient {
        let name = match instance {
            A => "a.example",
            B => "b.example",
            _ => "localhost",
        };
        self.fleet.client(instance, name, device, version)
    }

    fn admits(&self, instance: &str, device: &Identity) -> bool {
        self.client(instance, device, Version::V13).admitted()
    }

    /// A connection to an instance, as a new device of its CA, with this client id.
    fn connect(&self, instance: &str, client_id: &str) -> Mqtt {
        let device = self.ca(instance).device("device");
        let client = self.client(instance, &device, Version::V13);
        Mqtt::connect(client.handshake().unwrap(), Mqtt::hello(client_id)).unwrap()
    }

    /// The devices that an instance has recorded, as the API lists them.
    fn devices(&self, instance: &str) -> Vec<Value> {
        let page = [("PageNo", "1"), ("PageSize", "100")];
        let body = self
            .fleet
            .api(instance)
            .call("ListDeviceCertificate", &page);
        let body = body.ok();
        body["Data"]["DeviceCertificateVOS"]
            .as_array()
            .unwrap()
            .clone()
    }
}

#[test]
fn device_of_one_instance_is_unknown_to_every_other() {
    let world = World::start();
    for of in ALL {
        let device = world.ca(of).device("device");
        for version in BOTH {
            for at in ALL {
                let client = world.client(at, &device, version);
                if of == at {
                    assert!(client.admitted(), "{of} {version:?}");
                } else {
                    client.refused_with(AlertDescription::UnknownCA);
                }
            }
        }
    }
    let log = world.fleet.broker.wait_log("a refusal at B", |line| {
        line.contains("unknown_ca") && line.contains(&format!("instance={B}"))
    });
    assert!(log.contains("b.example"), "{log}");
}

#[test]
fn every_instance_shows_its_own_server_certificate() {
    let world = World::start();
    for instance in ALL {
        let device = world.ca(instance).device("device");
        for version in BOTH {
            let stream = world
                .client(instance, &device, version)
                .handshake()
                .unwrap();
            assert_eq!(
                *stream.server_certificate(),
                world.fleet.certificate(instance)
            );
        }
    }
}

#[test]
fn ca_belongs_to_one_instance_at_a_time() {
    let world = World::start();
    let device = world.a.device("device");
    for other in [B, C] {
        let answer = world.fleet.api(other).try_register("again", &world.a);
        assert_eq!(answer.code(), "SnNotUnique", "{answer:?}");
        assert!(!world.admits(other, &device));
    }
    let sn = world.a.sn();
    let deleted = world
        .fleet
        .api(A)
        .call("DeleteCaCertificate", &[("Sn", &sn)]);
    deleted.ok();
    world.fleet.api(B).register("moved", &world.a);
    assert!(world.admits(B, &device));
    let client = world.client(A, &device, Version::V13);
    client.refused_with(AlertDescription::UnknownCA);
}

#[test]
fn inactivation_at_one_instance_ends_only_its_own_sessions() {
    let world = World::start();
    // One CA, by two certificates: the same devices are good at both instances.
    let key = crate::harness::pki::new_key();
    let certificates = [A, B].map(|_| Ca::self_signed(ca_params("in both"), &key));
    let device = certificates[0].device("device");
    for (instance, ca) in [A, B].into_iter().zip(&certificates) {
        world.fleet.api(instance).register("in both", ca);
    }
    let connect = |instance| {
        let client = world.client(instance, &device, Version::V13);
        client.connect().unwrap()
    };
    let (cut, mut stays) = (connect(A), connect(B));
    let mut others: Vec<Mqtt> = ALL.map(|instance| world.connect(instance, "x")).into();

    let answer = world.fleet.api(A).inactivate(&certificates[0].sn());
    assert_eq!(answer["Sn"], certificates[0].sn().as_str());
    assert_eq!(
        cut.wait_disconnect(),
        DisconnectReasonCode::AdministrativeAction
    );
    let client = world.client(A, &device, Version::V13);
    client.refused_with(AlertDescription::AccessDenied);
    stays.ping().unwrap();
    assert!(world.admits(B, &device));
    for other in &mut others {
        other.ping().unwrap();
    }
    world.fleet.api(A).activate(&certificates[0].sn());
    assert!(world.admits(A, &device));
}

#[test]
fn inactive_device_of_one_instance_is_active_at_another() {
    let mut world = World::start();
    let key = crate::harness::pki::new_key();
    let certificates = [A, B].map(|_| Ca::self_signed(ca_params("in both"), &key));
    let device = certificates[0].device("device");
    for (instance, ca) in [A, B].into_iter().zip(&certificates) {
        world.fleet.api(instance).register("in both", ca);
        assert!(world.admits(instance, &device));
        wait_until("it is recorded", || {
            (!world.devices(instance).is_empty()).then_some(())
        });
    }
    let (ca, serial) = (certificates[0].sn(), sn(&device.chain[0]));
    let named = [("CaSn", ca.as_str()), ("DeviceSn", serial.as_str())];
    let api = world.fleet.api(A);
    api.call("InactivateDeviceCertificate", &named).ok();
    for _ in ["before", "after a restart"] {
        let client = world.client(A, &device, Version::V13);
        client.refused_with(AlertDescription::AccessDenied);
        assert!(world.admits(B, &device));
        world.fleet = world.fleet.again(|broker| broker.kill9());
    }
}

#[test]
fn messages_and_retained_messages_do_not_cross() {
    let world = World::start();
    let mut listening = ALL.map(|instance| world.connect(instance, "listens"));
    for client in &mut listening {
        client.subscribe("#", QoS::AtLeastOnce).unwrap();
    }
    for instance in ALL {
        let mut sends = world.connect(instance, "sends");
        let retained = Publish {
            dup: false,
            retain: true,
            qos: QoS::AtLeastOnce,
            topic: "plant/state".into(),
            packet_id: std::num::NonZeroU16::new(9),
            payload: instance.as_bytes().to_vec().into(),
            properties: Some(PublishProperties::default()),
        };
        sends.send(Packet::from(retained)).unwrap();
        assert!(matches!(sends.next().unwrap(), Packet::PublishAck(_)));
    }
    for (instance, client) in ALL.into_iter().zip(&mut listening) {
        let message = client.next_publish().unwrap();
        assert_eq!(message.payload, instance, "live");
        // What would come after it of another instance comes before the answer to a ping.
        client.ping().unwrap();
        let mut late = world.connect(instance, "late");
        late.subscribe("#", QoS::AtLeastOnce).unwrap();
        let message = late.next_publish().unwrap();
        assert!(message.retain);
        assert_eq!(message.payload, instance, "retained");
        late.ping().unwrap();
    }
}

#[test]
fn sessions_and_client_ids_do_not_cross() {
    let world = World::start();
    let device = |instance| world.ca(instance).device("one");
    let open = |instance: &str, device: &Identity| {
        let client = world.client(instance, device, Version::V13);
        let mut hello = Mqtt::hello("the same");
        hello.clean_start = false;
        hello.session_expiry_interval_secs = 600;
        Mqtt::connect(client.handshake().unwrap(), hello).unwrap()
    };
    let devices = ALL.map(device);
    let mut all: Vec<Mqtt> = Vec::new();
    for (instance, device) in ALL.into_iter().zip(&devices) {
        let client = open(instance, device);
        assert!(!client.ack.session_present, "{instance}");
        all.push(client);
    }
    // None was taken over by another.
    for client in &mut all {
        client.ping().unwrap();
        client.subscribe("x", QoS::AtLeastOnce).unwrap();
    }
    drop(all.remove(0));
    let back = open(A, &devices[0]);
    assert!(back.ack.session_present);
    for client in &mut all {
        client.ping().unwrap();
    }
}

#[test]
fn sessions_of_all_instances_are_counted_together() {
    let world = World::start();
    let counted = || world.fleet.counter("portcullis_mqtt_sessions");
    let all = ALL.map(|instance| [world.connect(instance, "1"), world.connect(instance, "2")]);
    assert_eq!(counted(), 6);
    drop(world.connect(A, "3"));
    wait_until("it has ended", || (counted() == 6).then_some(()));
    drop(all);
    wait_until("all have ended", || (counted() == 0).then_some(()));
}

#[test]
fn devices_are_recorded_where_they_connect_and_seen_nowhere_else() {
    let world = World::start();
    let device = world.a.device("pump");
    assert!(world.admits(A, &device));
    let recorded = wait_until("it is recorded", || world.devices(A).pop());
    let serial = sn(&device.chain[0]);
    assert_eq!(recorded["DeviceSn"], serial.as_str());
    assert_eq!(recorded["DeviceName"], "pump");

    let ca = world.a.sn();
    let named = [("CaSn", ca.as_str()), ("DeviceSn", serial.as_str())];
    let page = [("CaSn", ca.as_str()), ("PageNo", "1"), ("PageSize", "10")];
    // C has the same owner: it is the instance that counts.
    for other in [B, C] {
        assert!(world.devices(other).is_empty(), "{other}");
        let api = world.fleet.api(other);
        let answer = api.call("ListDeviceCertificateByCaSn", &page);
        assert_eq!(answer.code(), "FindCaBySnError", "{answer:?}");
        for action in [
            "GetDeviceCertificate",
            "InactivateDeviceCertificate",
            "ActiveDeviceCertificate",
            "DeleteDeviceCertificate",
        ] {
            let code = api.call(action, &named).code();
            assert!(code.ends_with("BySnError"), "{action}: {code}");
        }
    }
    assert!(world.admits(A, &device));
    assert_eq!(world.devices(A).len(), 1);
}

#[test]
fn listings_show_the_cas_of_the_instance_only() {
    let world = World::start();
    for instance in ALL {
        let listed = world.fleet.api(instance).list();
        let listed: Vec<_> = listed.iter().map(|ca| ca["Sn"].as_str().unwrap()).collect();
        assert_eq!(listed, [world.ca(instance).sn()]);
        for other in ALL.into_iter().filter(|other| *other != instance) {
            let sn = world.ca(other).sn();
            for action in [
                "GetCaCertificate",
                "InactivateCaCertificate",
                "ActiveCaCertificate",
                "DeleteCaCertificate",
            ] {
                let answer = world.fleet.api(instance).call(action, &[("Sn", &sn)]);
                assert_eq!(answer.code(), "FindCaBySnError", "{action} {answer:?}");
            }
        }
    }
}

/// Every operation, with parameters that name something real of A.
fn every_operation(world: &World) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let sn = || vec![("Sn", world.a.sn())];
    let device = || vec![("CaSn", world.a.sn()), ("DeviceSn", "01".to_owned())];
    let page = || vec![("PageNo", "1".to_owned()), ("PageSize", "10".to_owned())];
    let new = Ca::root("new");
    let registration = vec![
        ("CaName", "new".to_owned()),
        ("CaContent", new.pem()),
        ("VerificationContent", new.verification("a code")),
    ];
    vec![
        ("GetRegisterCode", Vec::new()),
        ("RegisterCaCertificate", registration),
        ("GetCaCertificate", sn()),
        ("ListCaCertificate", page()),
        ("ActiveCaCertificate", sn()),
        ("InactivateCaCertificate", sn()),
        ("DeleteCaCertificate", sn()),
        ("ListDeviceCertificate", page()),
        (
            "ListDeviceCertificateByCaSn",
            [vec![("CaSn", world.a.sn())], page()].concat(),
        ),
        ("GetDeviceCertificate", device()),
        ("ActiveDeviceCertificate", device()),
        ("InactivateDeviceCertificate", device()),
        ("DeleteDeviceCertificate", device()),
    ]
}

#[test]
fn key_of_another_account_may_do_nothing_at_an_instance() {
    let world = World::start();
    let foreign = world.fleet.api_of("owner-2", A);
    let nowhere = world.fleet.api_of("owner-1", "post-cn-none");
    let operations = every_operation(&world);
    assert_eq!(operations.len(), 13);
    for (action, params) in operations {
        let params: Vec<_> = params.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let answer = foreign.call(action, &params);
        assert_eq!(answer.code(), "MqttOwnerCheckError", "{action} {answer:?}");
        let answer = nowhere.call(action, &params);
        assert_eq!(answer.code(), "MqttInstanceNotFound", "{action} {answer:?}");
    }
    assert_eq!(world.fleet.api(A).status(&world.a.sn()), "1");
    assert!(world.admits(A, &world.a.device("device")));
}

#[test]
fn administrator_at_one_instance_commands_only_what_its_owner_owns() {
    let administrators = Ca::root("administrators");
    let setup = Setup::new()
        .instance(A, "owner-1", "127.0.0.1:0", &["a.example"])
        .instance(B, "owner-2", "127.0.0.1:0", &["b.example"])
        .instance(C, "owner-1", "127.0.0.1:0", &[])
        .with("[admin.control_channel]\nca = \"admin-ca.pem\"\ncommon_names = [\"admin\"]\n");
    setup.write("admin-ca.pem", &administrators.pem());
    let fleet = setup.start();
    let admin = administrators.device("admin");
    let client = fleet.client(A, "a.example", &admin, Version::V13);
    let mut admin = Admin::over(client.connect().unwrap());
    for (instance, code) in [
        (A, Value::Null),
        (B, json!("MqttOwnerCheckError")),
        (C, Value::Null),
        ("post-cn-none", json!("MqttInstanceNotFound")),
    ] {
        let command = json!({"Action": "GetRegisterCode", "MqttInstanceId": instance});
        assert_eq!(admin.send(&command)["Code"], code, "{instance}");
    }
}

#[test]
fn register_code_of_one_instance_is_none_at_another_of_the_same_owner() {
    let world = World::start();
    let ca = Ca::root("new");
    let code = world.fleet.api(A).register_code();
    let register = |instance| {
        let params = [
            ("CaName", "new"),
            ("CaContent", &ca.pem()),
            ("VerificationContent", &ca.verification(&code)),
        ];
        world
            .fleet
            .api(instance)
            .call("RegisterCaCertificate", &params)
    };
    assert_eq!(register(C).code(), "RegisterCodeError");
    register(A).ok();
}

#[test]
fn restart_and_crash_bring_every_instance_back_with_its_own_states() {
    let mut world = World::start();
    let devices = ALL.map(|instance| world.ca(instance).device("device"));
    for (instance, device) in ALL.into_iter().zip(&devices) {
        assert!(world.admits(instance, device));
        wait_until("it is recorded", || world.devices(instance).pop());
    }
    let (a, b) = (world.a.sn(), world.b.sn());
    let serial = sn(&devices[1].chain[0]);
    world.fleet.api(A).inactivate(&a);
    let named = [("CaSn", b.as_str()), ("DeviceSn", serial.as_str())];
    let inactivated = world
        .fleet
        .api(B)
        .call("InactivateDeviceCertificate", &named);
    inactivated.ok();

    for end in [Broker::stop, Broker::kill9] {
        world.fleet = world.fleet.again(end);
        assert_eq!(world.fleet.address(A), world.fleet.address(B));
        assert_eq!(world.fleet.api(A).status(&a), "0");
        assert_eq!(world.fleet.api(B).status(&b), "1");
        for (instance, device) in [A, B].into_iter().zip(&devices) {
            let client = world.client(instance, device, Version::V13);
            client.refused_with(AlertDescription::AccessDenied);
            assert_eq!(world.devices(instance).len(), 1, "{instance}");
        }
        assert!(world.admits(B, &world.b.device("another")));
        assert!(world.admits(C, &devices[2]));
        let client = world.client(C, &devices[0], Version::V13);
        client.refused_with(AlertDescription::UnknownCA);
        // So that the next round finds one device at B.
        wait_until("it is recorded", || {
            (world.devices(B).len() == 2).then_some(())
        });
        let another = world.devices(B);
        let another = another.iter().find(|it| it["DeviceSn"] != serial.as_str());
        let another = another.unwrap()["DeviceSn"].as_str().unwrap().to_owned();
        let named = [("CaSn", b.as_str()), ("DeviceSn", another.as_str())];
        world
            .fleet
            .api(B)
            .call("DeleteDeviceCertificate", &named)
            .ok();
    }
}

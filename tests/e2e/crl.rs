//! Lists of revoked certificates, through every door that takes one.

use base64::Engine as _;
use rmqtt_codec::v5::DisconnectReasonCode;
use rustls::AlertDescription::{AccessDenied, CertificateRevoked};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::control_channel::Admin;
use crate::harness::api::{Answer, Api};
use crate::harness::broker::program;
use crate::harness::pki::{Ca, ca_params, crl_pem, device_params, new_key, serial, sn};
use crate::harness::process::Process;
use crate::harness::tls::{BOTH, Identity, Version};
use crate::harness::{Broker, wait_until};

impl Api {
    /// Import a list in PEM.
    pub fn import_crl(&self, der: &[u8]) -> Answer {
        self.call("ImportCrl", &[("CrlContent", &crl_pem(der))])
    }

    #[track_caller]
    pub fn crls(&self) -> Vec<Value> {
        let page = [("PageNo", "1"), ("PageSize", "100")];
        let body = self.call("ListCrls", &page).ok();
        body["Data"]["CrlVOS"].as_array().unwrap().clone()
    }

    #[track_caller]
    pub fn crl_policy(&self, sn: &str, policy: &str) -> Value {
        let params = [("Sn", sn), ("CrlPolicy", policy)];
        self.call("SetCrlPolicy", &params).ok()
    }
}

/// The command line, over the broker's socket.
pub fn host(broker: &Broker, arguments: &[&str]) -> crate::harness::process::Finished {
    let mut command = program();
    let socket = broker.data().join("admin.sock");
    command.args(arguments).arg("--socket").arg(socket);
    Process::spawn(&mut command).finish()
}

pub fn file(broker: &Broker, name: &str, content: &[u8]) -> String {
    let path = broker.home().path().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A device of ca-a, with the same serial number as one of ca-b, which is to stay.
pub struct Revoked {
    pub broker: Broker,
    pub ca: Ca,
    pub bad: Identity,
    pub good: Identity,
    namesake: Identity,
}

impl Revoked {
    pub fn new() -> Self {
        let broker = Broker::start();
        let (ca, other) = (Ca::load(&broker, "ca-a"), Ca::load(&broker, "ca-b-issuing"));
        let bad = ca.device("bad");
        let mut params = device_params("namesake");
        params.serial_number = Some(serial(&bad.chain[0]));
        let namesake = other.issue_device(params, &[&other]);
        let good = ca.device("good");
        for identity in [&bad, &good, &namesake] {
            assert!(broker.admits(identity));
        }
        Self {
            broker,
            ca,
            bad,
            good,
            namesake,
        }
    }

    /// What an import does, however it comes.
    fn through(&self, door: &str, import: impl FnOnce(&[u8])) {
        let (broker, bad) = (&self.broker, &self.bad);
        let live = broker.client(bad, Version::V13).connect().unwrap();
        let mut stays = broker.client(&self.good, Version::V13).connect().unwrap();
        import(&self.ca.crl(42, &[bad]));
        assert_eq!(
            live.wait_disconnect(),
            DisconnectReasonCode::AdministrativeAction,
            "{door}"
        );
        stays.ping().unwrap();
        for version in BOTH {
            broker.client(bad, version).refused_with(CertificateRevoked);
        }
        let line = broker.wait_log("the refusal", |line| line.contains("device_revoked"));
        assert!(line.contains("CRL 42 of its issuer"), "{line}");
        assert!(line.contains(&sn(&bad.chain[0])), "{line}");
        for other in [&self.good, &self.namesake] {
            assert!(broker.admits(other), "{door}");
        }
    }
}

#[test]
fn crl_imported_over_http_in_pem_is_enforced() {
    let it = Revoked::new();
    let api = it.broker.api();
    it.through("http, pem", |der| {
        let answer = api.import_crl(der).ok();
        assert_eq!(answer["ConnectionsEnded"], 1, "{answer}");
        assert_eq!(answer["Data"]["CrlNumber"], "42");
        assert_eq!(answer["Data"]["CaSn"], it.ca.sn());
        assert_eq!(answer["Data"]["Entries"], 1);
    });
}

#[test]
fn crl_imported_over_http_in_base64_is_enforced() {
    let it = Revoked::new();
    let api = it.broker.api();
    it.through("http, base64", |der| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let sn = it.ca.sn();
        let params = [("CaSn", sn.as_str()), ("CrlContent", text.as_str())];
        api.call("ImportCrl", &params).ok();
    });
}

#[test]
fn crl_imported_over_the_control_topic_is_enforced() {
    let it = Revoked::new();
    let mut admin = Admin::connect(&it.broker);
    it.through("control topic", |der| {
        let answer = admin.command("ImportCrl", json!({"CrlContent": crl_pem(der)}));
        assert_eq!(answer["HttpStatus"], 200, "{answer}");
    });
}

#[test]
fn crl_imported_on_the_host_in_der_is_enforced() {
    let it = Revoked::new();
    it.through("socket, der", |der| {
        let path = file(&it.broker, "a.crl", der);
        let done = host(&it.broker, &["crl", "import", "ca-a", &path]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(
            done.stdout.contains("CRL 42 of CA ca-a is in force"),
            "{}",
            done.stdout
        );
        assert!(
            done.stdout.contains("1 live connection was ended"),
            "{}",
            done.stdout
        );
    });
}

#[test]
fn crl_imported_on_the_host_in_pem_is_enforced() {
    let it = Revoked::new();
    it.through("socket, pem", |der| {
        let path = file(&it.broker, "a.pem", crl_pem(der).as_bytes());
        let done = host(&it.broker, &["crl", "import", "ca-a", &path]);
        assert_eq!(done.code, 0, "{}", done.stderr);
    });
}

#[test]
fn crl_imported_with_an_access_key_on_the_command_line_is_enforced() {
    let it = Revoked::new();
    it.through("signed, der", |der| {
        let path = file(&it.broker, "a.crl", der);
        let done = it.broker.cli(&["crl", "import", &it.ca.sn(), &path]);
        assert_eq!(done.code, 0, "{}", done.stderr);
    });
}

#[test]
fn handshake_held_open_across_an_import_does_not_complete() {
    let it = Revoked::new();
    let api = it.broker.api();
    for (number, version) in (1..).zip(BOTH) {
        let hold = |identity| {
            let client = it.broker.client(identity, version).with_small_records();
            client.hold_before_finished()
        };
        let (held, other) = (hold(&it.bad), hold(&it.good));
        // The broker has read what the clients sent by the time it has answered others.
        for _ in 0..3 {
            assert!(it.broker.admits(&it.good));
        }
        api.import_crl(&it.ca.crl(2 * number, &[&it.bad])).ok();
        assert!(held.release().is_err(), "{version:?}");
        assert!(other.release().is_ok(), "{version:?}");
        api.import_crl(&it.ca.crl(2 * number + 1, &[])).ok();
    }
}

#[test]
fn crl_survives_a_crash_and_its_deletion_lets_back_in() {
    let it = Revoked::new();
    it.broker.api().import_crl(&it.ca.crl(42, &[&it.bad])).ok();
    let broker = Broker::restart(it.broker.kill9());
    for version in BOTH {
        let client = broker.client(&it.bad, version);
        client.refused_with(CertificateRevoked);
    }
    assert!(broker.admits(&it.good));
    let api = broker.api();
    let crls = api.crls();
    assert_eq!(crls.len(), 1);
    let id = crls[0]["CrlId"].as_str().unwrap();
    api.call("DeleteCrl", &[("CrlId", id)]).ok();
    assert!(broker.admits(&it.bad));
    assert_eq!(
        api.call("DeleteCrl", &[("CrlId", id)]).code(),
        "CrlNotFound"
    );
    let broker = Broker::restart(broker.kill9());
    assert!(broker.admits(&it.bad));
    assert!(broker.api().crls().is_empty());
}

#[test]
fn newer_crl_takes_the_place_of_the_older_and_never_the_other_way_round() {
    let it = Revoked::new();
    let api = it.broker.api();
    let old = it.ca.crl(300, &[&it.bad]);
    api.import_crl(&old).ok();
    api.import_crl(&it.ca.crl(301, &[&it.good])).ok();
    assert!(it.broker.admits(&it.bad));
    assert!(!it.broker.admits(&it.good));
    for refused in [old, it.ca.crl(44, &[]), it.ca.crl(301, &[])] {
        let answer = api.import_crl(&refused);
        assert_eq!(
            (answer.code().as_str(), answer.status),
            ("CrlContentError", 400)
        );
        let message = answer.json()["Message"].as_str().unwrap().to_owned();
        assert!(message.contains("does not go up: CRL 301"), "{message}");
    }
    assert!(!it.broker.admits(&it.good));
    let records = it.broker.audit_records();
    let phases: Vec<_> = records
        .iter()
        .filter(|it| it["action"] == "ImportCrl")
        .map(|it| it["phase"].as_str().unwrap())
        .collect();
    let expected = [
        "intent", "done", "intent", "done", "refused", "refused", "refused",
    ];
    assert_eq!(phases, expected);
}

#[test]
fn crl_of_another_issuer_or_another_key_is_refused() {
    let it = Revoked::new();
    let api = it.broker.api();
    let stranger = Ca::root("a stranger");
    let (_, parsed) = x509_parser::parse_x509_certificate(&it.ca.der).unwrap();
    assert!(parsed.subject().iter_common_name().next().is_some());
    // The right name, another key: what ca-a's name looks like with a key of one's own.
    let forged = Ca {
        der: it.ca.der.clone(),
        key_pem: new_key(),
    };
    for crl in [stranger.crl(1, &[&it.bad]), forged.crl(1, &[&it.bad])] {
        let answer = api.import_crl(&crl);
        assert_eq!(answer.code(), "CrlContentError");
        let message = answer.json()["Message"].as_str().unwrap().to_owned();
        assert!(message.contains("No registered CA"), "{message}");
    }
    let mut changed = it.ca.crl(1, &[&it.bad]);
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    assert_eq!(api.import_crl(&changed).code(), "CrlContentError");
    // A good one, named as another CA's.
    let params = [
        ("CaSn", api.sn_of("ca-b")),
        ("CrlContent", crl_pem(&it.ca.crl(1, &[&it.bad]))),
    ];
    let params: Vec<_> = params.iter().map(|(k, v)| (*k, v.as_str())).collect();
    assert_eq!(api.call("ImportCrl", &params).code(), "CrlContentError");
    assert!(it.broker.admits(&it.bad));
    assert!(api.crls().is_empty());
}

#[test]
fn revoked_intermediate_is_refused_with_all_devices_below_it() {
    let broker = Broker::start();
    let api = broker.api();
    let root = Ca::load(&broker, "ca-b");
    let issuing = Ca::load(&broker, "ca-b-issuing");
    let unregistered = root.issue_ca(ca_params("nobody registered it"), &new_key());
    let below = unregistered.issue_device(device_params("below"), &[&unregistered]);
    let b1 = broker.identity("device-b1");
    let mut alone = broker.identity("device-b1");
    alone.chain.truncate(1);
    let live = broker.client(&b1, Version::V13).connect().unwrap();
    let live_below = broker.client(&below, Version::V13).connect().unwrap();

    let serials = [serial(&issuing.der), serial(&unregistered.der)];
    let tomorrow = OffsetDateTime::now_utc() + Duration::days(1);
    api.import_crl(&root.crl_of(1, serials, tomorrow, None))
        .ok();
    live.wait_disconnect();
    live_below.wait_disconnect();
    for identity in [&b1, &alone, &below] {
        for version in BOTH {
            broker
                .client(identity, version)
                .refused_with(CertificateRevoked);
        }
    }
    let all = api.list();
    let shown = all
        .iter()
        .find(|ca| ca["CaName"] == "ca-b-issuing")
        .unwrap();
    assert_eq!(
        (&shown["Status"], &shown["EffectiveStatus"]),
        (&json!("1"), &json!("0"))
    );
    assert!(
        shown["EffectiveReason"].as_str().unwrap().contains("CRL 1"),
        "{shown}"
    );
    api.import_crl(&root.crl(2, &[])).ok();
    for identity in [&b1, &alone, &below] {
        assert!(broker.admits(identity));
    }
}

#[test]
fn required_crl_refuses_until_there_is_one_and_when_it_has_expired() {
    let it = Revoked::new();
    let api = it.broker.api();
    let sn = it.ca.sn();
    let live = it.broker.client(&it.good, Version::V13).connect().unwrap();
    let answer = api.crl_policy(&sn, "required");
    assert_eq!(
        (&answer["CrlPolicy"], &answer["ConnectionsEnded"]),
        (&json!("required"), &json!(1))
    );
    live.wait_disconnect();
    for version in BOTH {
        it.broker
            .client(&it.good, version)
            .refused_with(AccessDenied);
    }
    it.broker
        .wait_log("the refusal", |line| line.contains("crl_missing"));
    assert!(it.broker.admits(&it.namesake), "another CA");

    // Importing must win the race against the clock, on slow machines too.
    let imported = [4, 8, 16, 32]
        .into_iter()
        .enumerate()
        .find(|(number, seconds)| {
            let until = OffsetDateTime::now_utc() + Duration::seconds(*seconds);
            let number = u64::try_from(*number).unwrap() + 1;
            let imported = api.import_crl(&it.ca.crl_until(number, &[&it.bad], until));
            imported.status == 200 && it.broker.admits(&it.good)
        });
    assert!(imported.is_some());
    it.broker
        .client(&it.bad, Version::V13)
        .refused_with(CertificateRevoked);
    let live = it.broker.client(&it.good, Version::V13).connect();
    wait_until("the list has expired", || {
        (!it.broker.admits(&it.good)).then_some(())
    });
    it.broker
        .client(&it.good, Version::V13)
        .refused_with(AccessDenied);
    if let Ok(live) = live {
        live.wait_disconnect();
    }
    let shown = api.call("GetCaCertificate", &[("Sn", &sn)]).ok();
    assert_eq!(shown["Data"]["EffectiveStatus"], "0");
    assert_eq!(shown["Data"]["CrlPolicy"], "required");
    let expired = OffsetDateTime::now_utc() - Duration::seconds(30);
    let late = api.import_crl(&it.ca.crl_until(50, &[], expired));
    assert_eq!(late.code(), "CrlContentError");

    // The policy outlives the process; a list in date, or a milder policy, lets back in.
    let broker = Broker::restart(it.broker.kill9());
    let api = broker.api();
    broker
        .client(&it.good, Version::V13)
        .refused_with(AccessDenied);
    api.import_crl(&it.ca.crl(60, &[&it.bad])).ok();
    assert!(broker.admits(&it.good));
    let id = api.crls()[0]["CrlId"].as_str().unwrap().to_owned();
    api.call("DeleteCrl", &[("CrlId", &id)]).ok();
    assert!(!broker.admits(&it.good));
    api.crl_policy(&sn, "optional");
    assert!(broker.admits(&it.good));
    for bad in ["", "none", "Required"] {
        let params = [("Sn", sn.as_str()), ("CrlPolicy", bad)];
        let answer = api.call("SetCrlPolicy", &params);
        assert_eq!(answer.code(), "ParameterFieldCheckFailed", "{bad}");
    }
}

#[test]
fn expired_crl_counts_where_nothing_is_demanded() {
    let it = Revoked::new();
    let api = it.broker.api();
    let yesterday = OffsetDateTime::now_utc() - Duration::days(1);
    let answer = api
        .import_crl(&it.ca.crl_until(1, &[&it.bad], yesterday))
        .ok();
    assert_eq!(answer["Data"]["Expired"], true);
    assert!(!it.broker.admits(&it.bad));
    assert!(it.broker.admits(&it.good));
    api.crl_policy(&it.ca.sn(), "in_date");
    it.broker
        .client(&it.good, Version::V13)
        .refused_with(AccessDenied);
}

#[test]
fn crls_for_distribution_points_are_apart() {
    let it = Revoked::new();
    let api = it.broker.api();
    let tomorrow = OffsetDateTime::now_utc() + Duration::days(1);
    let (one, two) = ("http://ca/1.crl", "http://ca/2.crl");
    let part = |number, revoked: &Identity, point| {
        it.ca
            .crl_of(number, [serial(&revoked.chain[0])], tomorrow, Some(point))
    };
    api.import_crl(&part(9, &it.bad, one)).ok();
    api.import_crl(&part(1, &it.good, two)).ok();
    for identity in [&it.bad, &it.good] {
        assert!(!it.broker.admits(identity));
    }
    assert_eq!(api.crls().len(), 2);
    assert_eq!(
        api.import_crl(&part(8, &it.good, one)).code(),
        "CrlContentError"
    );
    // Which points a device names decides which list vouches for it.
    api.crl_policy(&it.ca.sn(), "required");
    let mut params = device_params("points to the first");
    params.crl_distribution_points = vec![rcgen::CrlDistributionPoint {
        uris: vec![one.to_owned()],
    }];
    assert!(it.broker.admits(&it.ca.issue_device(params, &[])));
    it.broker
        .client(&it.ca.device("points nowhere"), Version::V13)
        .refused_with(AccessDenied);
}

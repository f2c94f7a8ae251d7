//! A request that somebody recorded is carried out once, whatever becomes of the broker.

use std::fs;
use std::sync::Mutex;

use crate::harness::api::{Answer, Api, Request, exchange, get};
use crate::harness::broker::INSTANCE;
use crate::harness::{Broker, wait_until};

/// How a request is signed.
type Sign = fn(&Api, &Request) -> String;

const BOTH: [(&str, Sign); 2] = [("V3", Api::sign), ("V1", Api::sign_v1)];

fn change(api: &Api, action: &str, sn: &str) -> Request {
    api.request(action, &[("MqttInstanceId", INSTANCE), ("Sn", sn)])
}

fn send(broker: &Broker, octets: &str) -> Answer {
    exchange(broker.admin, octets).unwrap()
}

/// A recorded activation must not undo the inactivation that came after it.
fn recorded_activation_is_refused(again: impl Fn(Broker) -> Broker) {
    let mut broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    for (version, sign) in BOTH {
        let api = broker.api();
        let activation = sign(&api, &change(&api, "ActiveCaCertificate", &sn));
        send(&broker, &activation).ok();
        let inactivation = sign(&api, &change(&api, "InactivateCaCertificate", &sn));
        send(&broker, &inactivation).ok();
        broker = again(broker);

        for recorded in [&activation, &inactivation] {
            let answer = send(&broker, recorded);
            assert_eq!(answer.code(), "SignatureNonceUsed", "{version}: {answer:?}");
        }
        assert_eq!(broker.api().status(&sn), "0", "{version}");
        let api = broker.api();
        let fresh = sign(&api, &change(&api, "ActiveCaCertificate", &sn));
        send(&broker, &fresh).ok();
        assert_eq!(broker.api().status(&sn), "1", "{version}");
    }
}

#[test]
fn recorded_request_is_refused_after_kill_right_after_the_answer() {
    recorded_activation_is_refused(|broker| Broker::restart(broker.kill9()));
}

#[test]
fn recorded_request_is_refused_after_an_orderly_restart() {
    recorded_activation_is_refused(|broker| Broker::restart(broker.stop()));
}

#[test]
fn requests_answered_together_are_all_refused_after_kill() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    let answered = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..8 {
                    let octets = api.sign(&change(&api, "GetCaCertificate", &sn));
                    send(&broker, &octets).ok();
                    answered.lock().unwrap().push(octets);
                }
            });
        }
    });
    let broker = Broker::restart(broker.kill9());
    let answered = answered.into_inner().unwrap();
    assert_eq!(answered.len(), 64);
    for recorded in answered {
        assert_eq!(send(&broker, &recorded).code(), "SignatureNonceUsed");
    }
}

#[test]
fn lost_or_damaged_record_of_requests_lets_nobody_allow_by_repeating() {
    let mut broker = Broker::start();
    let sn = broker.api().sn_of("ca-a");
    let spoil: [fn(&std::path::Path); 2] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, "no database at all").unwrap(),
    ];
    for spoil in spoil {
        let api = broker.api();
        let recorded = api.sign(&change(&api, "ActiveCaCertificate", &sn));
        // It is not asked whether it was answered: it may have been.
        send(&broker, &recorded);
        api.inactivate(&sn);
        let home = broker.stop();
        spoil(&home.path().join("data/replay.db"));
        broker = Broker::restart(home);
        broker.wait_log("what happened", |line| {
            line.contains("the record of the requests before this start")
        });

        let api = broker.api();
        assert_eq!(send(&broker, &recorded).code(), "ServiceUnavailable");
        let answer = api.call("ActiveCaCertificate", &[("Sn", &sn)]);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "ServiceUnavailable")
        );
        assert!(
            answer
                .text
                .contains("only those that deny or read are, until ")
        );
        // The broker serves, and nobody is kept from looking and denying.
        assert_eq!(api.status(&sn), "0");
        api.inactivate(&api.sn_of("ca-b"));
        assert!(!broker.admits(&broker.identity("device-b1")));
    }
    assert!(broker.data().join("replay.db.damaged").exists());
}

#[test]
fn failing_disk_of_the_record_lets_only_deny_and_read_until_it_heals() {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of("ca-a");
    let (place, aside) = (broker.data().join("replay.db"), broker.data().join("aside"));
    fs::rename(&place, &aside).unwrap();

    api.inactivate(&sn);
    assert!(!broker.admits(&broker.identity("device-a1")));
    assert_eq!(api.status(&sn), "0");
    let answer = api.call("ActiveCaCertificate", &[("Sn", &sn)]);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "ServiceUnavailable")
    );
    assert!(
        answer.text.contains("cannot be written to disk"),
        "{answer:?}"
    );
    assert_eq!(api.status(&sn), "0");
    let ready = get(broker.admin, "/ready").unwrap();
    assert_eq!(ready.status, 503);
    assert!(
        ready.text.contains("used nonces are not durable"),
        "{ready:?}"
    );
    let metrics = get(broker.admin, "/metrics").unwrap().text;
    assert!(metrics.contains(r#"portcullis_admin_unproved_total{reason="not_kept"}"#));

    fs::rename(&aside, &place).unwrap();
    wait_until("the record heals", || {
        (get(broker.admin, "/ready").unwrap().status == 200).then_some(())
    });
    let activation = api.sign(&change(&api, "ActiveCaCertificate", &sn));
    send(&broker, &activation).ok();
    let broker = Broker::restart(broker.kill9());
    assert_eq!(send(&broker, &activation).code(), "SignatureNonceUsed");
}

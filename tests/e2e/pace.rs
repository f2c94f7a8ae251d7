//! A CA that is retired over a time, from the command line.

use rmqtt_codec::v5::DisconnectReasonCode;
use serde_json::Value;

use crate::harness::{Broker, Version};

#[test]
fn ca_that_is_retired_over_a_time_lets_nobody_in_and_ends_all_in_time() {
    let broker = Broker::start();
    let device = |name| broker.client(&broker.identity(name), Version::V13);
    let retire = |options: &[&str]| {
        let command = ["ca", "inactivate", "ca-a", "--yes"];
        let finished = broker.cli(&[&command[..], options].concat());
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        finished.stdout
    };
    let connect = || ["device-a1", "device-a2"].map(|name| device(name).connect().unwrap());
    let mut spared = device("device-b1").connect().unwrap();

    let mut connected = connect();
    let said = retire(&["--over", "12h"]);
    let told = "2 live connections end one after the other, the last in 12h";
    assert!(said.contains(told), "{said}");
    assert!(!broker.admits(&broker.identity("device-a1")));
    for client in &mut connected {
        client.ping().unwrap();
    }
    let said = retire(&[]);
    assert!(said.contains("2 live connections were ended"), "{said}");
    for client in connected {
        assert_eq!(
            client.wait_disconnect(),
            DisconnectReasonCode::AdministrativeAction
        );
    }

    let finished = broker.cli(&["ca", "activate", "ca-a"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let connected = connect();
    retire(&["--over", "1s"]);
    for client in connected {
        assert_eq!(
            client.wait_disconnect(),
            DisconnectReasonCode::AdministrativeAction
        );
    }
    spared.ping().unwrap();

    let audit = broker.audit_records();
    let is_told = |record: &Value| record.to_string().contains("connections end over 43200 s");
    assert!(audit.iter().any(is_told));
    let finished = broker.cli(&["ca", "inactivate", "ca-a", "--over", "soon", "--yes"]);
    assert_eq!(finished.code, 2, "{}", finished.stderr);
}

//! The rate of an account: what the SDKs show of it, and that they get over it by themselves.

use serde_json::json;

use crate::harness::Broker;
use crate::harness::configured::Configured;
use crate::harness::sdk::{Caller, Sdk, Style};
use crate::life_cycle::is_request_id;

/// One call a second, and one at once.
fn slow() -> Broker {
    let configured = Configured {
        admin: "max_calls_per_second = 1",
        ..Configured::default()
    };
    configured.start()
}

#[test]
fn sdk_with_retry_options_gets_over_throttling() {
    let broker = slow();
    for style in [Style::Sync, Style::Async, Style::SyncV1] {
        let before = throttled(&broker);
        let mut sdk = Sdk::new(&broker, style);
        sdk.retries = 5;
        let page = json!({"PageNo": "1", "PageSize": "1"});
        // Each of them is answered in the end, also those that come at once.
        sdk.ok("ListCaCertificate", page.clone());
        sdk.ok("ListCaCertificate", page.clone());
        let answers = sdk.at_once(&vec![("ListCaCertificate", page); 2]);
        for answer in answers {
            assert!(answer["ok"].is_object(), "{style:?}: {answer}");
        }
        assert!(throttled(&broker) > before, "{style:?} was never throttled");
    }
}

#[test]
fn throttling_is_called_so_by_every_sdk() {
    let broker = slow();
    for style in Style::ALL {
        let sdk = Sdk::new(&broker, style);
        let calls = vec![("GetRegisterCode", json!({})); 3];
        // At one a second, one of so many is over the rate however slow this host is.
        let error = (0..50)
            .flat_map(|_| sdk.at_once(&calls))
            .find_map(|answer| answer.get("error").cloned())
            .unwrap();
        assert_eq!(error["code"], "Throttling.User", "{style:?}: {error}");
        assert_eq!(error["status"], 429, "{style:?}: {error}");
        assert!(is_request_id(error["request_id"].as_str().unwrap()));
        if style.is_current_python() {
            assert_eq!(error["kind"], "ThrottlingException", "{style:?}: {error}");
            let wait = error["retry_after"].as_u64().unwrap();
            assert!((1..=1000).contains(&wait), "{style:?}: {error}");
        }
    }
}

#[test]
fn account_that_is_throttled_changes_nothing_and_throttles_nobody_else() {
    let broker = slow();
    let owner = Sdk::new(&broker, Style::Sync);
    let mut stranger = Sdk::new(&broker, Style::Sync);
    stranger.api = broker.api_of("stranger-key.json");
    let calls = vec![("GetRegisterCode", json!({})); 3];
    let over = |sdk: &Sdk| {
        let answers = (0..50).flat_map(|_| sdk.at_once(&calls));
        let mut errors = answers.filter_map(|answer| answer.get("error").cloned());
        errors.any(|error| error["code"] == "Throttling.User")
    };
    // The stranger's first call is answered while the owner is over its rate.
    assert!(over(&owner));
    let error = stranger.error("GetRegisterCode", json!({}));
    assert_eq!(error["code"], "MqttOwnerCheckError", "{error}");
}

/// Calls that were throttled so far.
fn throttled(broker: &Broker) -> u64 {
    let metrics = broker.door().get("/metrics").unwrap().text;
    let wanted = |line: &&str| {
        line.starts_with("portcullis_admin_calls_total") && line.contains("\"Throttling.User\"")
    };
    let lines = metrics.lines().filter(wanted);
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

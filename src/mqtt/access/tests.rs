//! The rules against examples, and against a model that knows topics only.

mod model;

use rcgen::{DnType, SanType};

use super::pattern::{Pattern, PatternError};
use super::rules::{MAX_RULES, Only, Rule, TooManyRules};
use super::*;
use crate::ca::id::{CaKeyId, CertSerial};
use crate::ca::path::Admitted;
use crate::ca::registry::{DeviceKey, Purpose};
use crate::testing::{TestCa, device_params};

/// A client to be: common name, and what its certificate is made of.
#[derive(Debug, Default)]
struct Client {
    common_name: Option<&'static str>,
    organization: Option<&'static str>,
    hosts: Vec<&'static str>,
    id: &'static str,
}

impl Client {
    fn named(common_name: &'static str) -> Self {
        Self {
            common_name: Some(common_name),
            ..Self::default()
        }
    }

    fn peer(&self) -> VerifiedPeer {
        let mut params = device_params("unused", 1);
        if let Some(organization) = self.organization {
            let name = &mut params.distinguished_name;
            name.push(DnType::OrganizationName, organization);
        }
        let host = |host: &&str| SanType::DnsName((*host).try_into().unwrap());
        params.subject_alt_names = self.hosts.iter().map(host).collect();
        let der = TestCa::root("root", 1).issue_device(params).der;
        let device = DeviceKey {
            issuer: CaKeyId::from_bytes([1; 32]),
            serial: sn("0d"),
        };
        let admitted = Admitted::for_test(Purpose::Device, device, sn("0a"), self.common_name);
        VerifiedPeer::new("post-cn-test".parse().unwrap(), admitted.with_der(&der))
    }

    fn rights(&self, rules: &[Rule], default: Effect) -> Rights {
        let settings = AccessSettings::new(rules.to_vec(), default).unwrap();
        Access::new(settings).rights(&self.peer(), self.id, false)
    }
}

fn sn(text: &str) -> CertSerial {
    text.parse().unwrap()
}

fn rule(effect: Effect, action: Action, topic: &str) -> Rule {
    Rule {
        effect,
        action,
        topic: topic.parse().unwrap(),
        cas: Only::Any,
        common_names: Only::Any,
    }
}

fn allow(topic: &str) -> Rule {
    rule(Effect::Allow, Action::Both, topic)
}

fn deny(topic: &str) -> Rule {
    rule(Effect::Deny, Action::Both, topic)
}

fn topic(text: &str) -> TopicName {
    TopicName::parse(text, &Default::default()).unwrap()
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, &Default::default()).unwrap()
}

impl Rights {
    fn publishes(&self, to: &str) -> bool {
        self.publish(&topic(to)) == Publishing::Message
    }
    fn subscribes(&self, to: &str) -> bool {
        self.subscribe(&filter(to)) == Permission::Granted
    }
    fn reads(&self, from: &str) -> bool {
        self.read(from) == Permission::Granted
    }
}

#[test]
fn the_broker_s_topics_are_for_administrators() {
    // No rule opens them, and none closes them.
    let open = [allow("#"), allow("${common_name}/#")];
    let of = |rules: &[Rule], default, administrator| {
        let access = Access::new(AccessSettings::new(rules.to_vec(), default).unwrap());
        access.rights(&Client::named("$SYS").peer(), "", administrator)
    };
    for (rules, default) in [(&[][..], Effect::Allow), (&open[..], Effect::Deny)] {
        let device = of(rules, default, false);
        assert_eq!(device.publish(&topic("a/b")), Publishing::Message);
        for to in [COMMAND_TOPIC, "$SYS/x", "$x"] {
            let denied = Publishing::Denied(Denial::Reserved);
            assert_eq!(device.publish(&topic(to)), denied, "{to}");
        }
        for to in ["#", "+/portcullis/v1", "a"] {
            assert!(device.subscribes(to), "{to}");
        }
        for to in ["$SYS/#", "$CONTROL/#", DEFAULT_RESPONSE_TOPIC, "$x/+"] {
            assert!(!device.subscribes(to), "{to}");
            assert!(!device.reads(to), "{to}");
        }
    }
    for (rules, default) in [(&[][..], Effect::Allow), (&[deny("#")][..], Effect::Deny)] {
        let admin = of(rules, default, true);
        assert_eq!(admin.publish(&topic(COMMAND_TOPIC)), Publishing::Command);
        for to in [DEFAULT_RESPONSE_TOPIC, "$SYS/x"] {
            let denied = Publishing::Denied(Denial::Reserved);
            assert_eq!(admin.publish(&topic(to)), denied, "{to}");
        }
        for to in [DEFAULT_RESPONSE_TOPIC, "$SYS/#"] {
            assert!(admin.subscribes(to), "{to}");
        }
        assert!(admin.reads("$SYS/portcullis/x") && !admin.reads(COMMAND_TOPIC));
        for to in [
            "$CONTROL/#",
            "$CONTROL/portcullis/v1/response/+",
            COMMAND_TOPIC,
        ] {
            assert!(!admin.subscribes(to), "{to}");
        }
    }
    // Elsewhere the rules are for administrators, too.
    let admin = of(&[], Effect::Deny, true);
    assert!(!admin.publishes("a") && !admin.subscribes("a"));
}

#[test]
fn the_first_rule_that_matches_counts() {
    let rules = [
        rule(Effect::Allow, Action::Publish, "a/b"),
        deny("a/+"),
        rule(Effect::Allow, Action::Subscribe, "a/#"),
        rule(Effect::Allow, Action::Both, "c"),
    ];
    let rights = Client::named("x").rights(&rules, Effect::Deny);
    assert!(rights.publishes("a/b") && !rights.publishes("a/c"));
    assert_eq!(
        rights.publish(&topic("a/c")),
        Publishing::Denied(Denial::Rule(1))
    );
    assert_eq!(
        rights.publish(&topic("a/c/d")),
        Publishing::Denied(Denial::Default)
    );
    assert!(rights.reads("a") && rights.reads("a/b/c") && !rights.reads("a/b"));
    assert!(rights.publishes("c") && rights.subscribes("c"));
    assert_eq!(
        rights.subscribe(&filter("a/b")),
        Permission::Denied(Denial::Rule(1))
    );
    let open = Client::named("x").rights(&rules, Effect::Allow);
    assert!(open.publishes("a/c/d") && open.subscribes("d/#") && !open.subscribes("#"));
}

#[test]
fn a_filter_is_allowed_if_all_it_matches_is() {
    let granted = |rules: &[Rule], to: &str| {
        let rights = Client::named("x").rights(rules, Effect::Deny);
        rights.subscribes(to)
    };
    let cases = [
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a/+/c", true),
        ("a/+/c", "a/#", false),
        ("a/+/c", "a/+/+", false),
        ("a/#", "a", true),
        ("a/#", "a/#", true),
        ("a/#", "a/+/b/#", true),
        ("a/#", "+/#", false),
        ("a/+", "a/#", false),
        ("a", "a/#", false),
        ("#", "#", true),
        ("#", "/+/", true),
        ("+/#", "#", true),
        ("+", "#", false),
        ("/+", "/a", true),
        ("/+", "+/a", false),
    ];
    for (allowed, to, expected) in cases {
        assert_eq!(granted(&[allow(allowed)], to), expected, "{allowed}: {to}");
    }
    // A denial is not walked around with a wildcard; an earlier rule that allows all of it wins.
    let secret = [deny("+/secret/#"), allow("#")];
    for to in ["#", "+/+", "a/#", "a/secret", "a/secret/x", "+/secret"] {
        assert!(!granted(&secret, to), "{to}");
    }
    for to in ["a/b/#", "a", "+", "+/b"] {
        assert!(granted(&secret, to), "{to}");
    }
    let first = [allow("a/secret/#"), deny("+/secret/#"), allow("#")];
    for (to, expected) in [("a/secret/#", true), ("a/#", false), ("b/secret/#", false)] {
        assert_eq!(granted(&first, to), expected, "{to}");
    }
}

#[test]
fn variables_stand_for_the_client_s_own_values() {
    let client = Client {
        organization: Some("plant"),
        hosts: vec!["h1", "h2"],
        id: "cid",
        ..Client::named("pump-7")
    };
    let cases = [
        ("d/${common_name}/#", "d/pump-7/x", "d/pump-8/x"),
        ("d/${common_name}", "d/pump-7", "d/pump-7/x"),
        ("${organization}/x", "plant/x", "+/x"),
        ("${san_dns}/x", "h2/x", "+/x"),
        ("${san_dns}/x", "h1/x", "h3/x"),
        ("${ca_sn}-${device_sn}", "0a-0d", "0a"),
        ("c/${client_id}/+", "c/cid/+", "c/+/x"),
        ("a.${san_dns}.${san_dns}", "a.h1.h2", "a.h1.h3"),
    ];
    for (rule, good, bad) in cases {
        let rights = client.rights(&[allow(rule)], Effect::Deny);
        assert!(rights.subscribes(good), "{rule}: {good}");
        assert!(!rights.subscribes(bad), "{rule}: {bad}");
        let rights = client.rights(&[deny(rule)], Effect::Allow);
        assert!(!rights.subscribes(good), "{rule}: {good}");
        assert!(!rights.subscribes("#"), "{rule}");
    }
}

#[test]
fn a_value_that_is_no_single_level_matches_nothing_that_is_allowed_and_all_that_is_denied() {
    let hostile = ["+", "#", "a/b", "a/#", "/", "a+", "a\u{1}", "a\0", ""];
    for name in hostile.map(Some).into_iter().chain([None]) {
        let client = Client {
            common_name: name,
            ..Client::default()
        };
        let rights = client.rights(&[allow("d/${common_name}/#")], Effect::Deny);
        for to in ["d/a/b", "d/x", "d/+", "d/#", "d/+/x", "#", "d", "d//x"] {
            assert!(!rights.subscribes(to), "{name:?}: {to}");
        }
        for to in ["d/a/b", "d/x", "d", "d//x"] {
            assert!(!rights.publishes(to) && !rights.reads(to), "{name:?}: {to}");
        }
        let rights = client.rights(&[deny("d/x${common_name}/s")], Effect::Allow);
        for to in ["d/a/s", "d/+/s", "d/#", "#"] {
            assert!(!rights.subscribes(to), "{name:?}: {to}");
        }
        assert!(rights.publishes("d/a/t") && !rights.publishes("d/a/s"));
    }
}

#[test]
fn a_denial_holds_for_the_values_that_cannot_be_used_as_well() {
    let client = Client {
        hosts: vec!["good", "b/d"],
        ..Client::default()
    };
    let rights = client.rights(&[allow("${san_dns}/x")], Effect::Deny);
    assert!(rights.publishes("good/x") && !rights.publishes("b/x"));
    let rights = client.rights(&[deny("${san_dns}/x")], Effect::Allow);
    assert!(!rights.publishes("good/x") && !rights.publishes("other/x"));
    assert!(rights.publishes("other/y"));
}

#[test]
fn a_rule_is_for_whom_its_conditions_hold() {
    let mut by_ca = allow("a");
    by_ca.cas = Only::OneOf(vec![sn("0f"), sn("0A")]);
    let mut by_name = allow("b");
    by_name.common_names = Only::OneOf(vec!["x".to_owned(), "y".to_owned()]);
    let mut by_both = allow("c");
    by_both.cas = Only::OneOf(vec![sn("0b")]);
    by_both.common_names = Only::OneOf(vec!["x".to_owned()]);
    let rules = [by_ca, by_name, by_both];
    let x = Client::named("x").rights(&rules, Effect::Deny);
    assert!(x.publishes("a") && x.publishes("b") && !x.publishes("c"));
    let nobody = Client::default().rights(&rules, Effect::Deny);
    assert!(nobody.publishes("a") && !nobody.publishes("b"));
}

#[test]
fn rights_are_the_same_if_the_rules_come_to_the_same() {
    let rules = vec![allow("d/${device_sn}"), allow("c/${client_id}")];
    let access = Access::new(AccessSettings::new(rules, Effect::Deny).unwrap());
    let of = |id| access.rights(&Client::named("x").peer(), id, false);
    assert_eq!(of("a"), of("a"));
    assert_ne!(of("a"), of("b"));
    assert_ne!(of("a"), of("#"));
}

#[test]
fn rules_are_bounded() {
    let rules = vec![deny("#"); MAX_RULES + 1];
    assert_eq!(
        AccessSettings::new(rules, Effect::Allow),
        Err(TooManyRules(MAX_RULES + 1))
    );
    // Many values in one level are cut off, toward deny.
    let client = Client {
        hosts: vec!["a", "b", "c", "d", "e", "f", "g", "h", "i"],
        ..Client::default()
    };
    let level = "${san_dns}${san_dns}";
    let rights = client.rights(&[allow(level)], Effect::Deny);
    assert!(rights.publishes("aa") && !rights.publishes("ii"));
    let rights = client.rights(&[deny(level)], Effect::Allow);
    assert!(!rights.publishes("ii") && !rights.publishes("other"));
}

#[test]
fn topics_of_rules_are_filters_with_known_variables() {
    for text in [
        "a",
        "/",
        "+/#",
        "a//${ca_sn}",
        "${client_id}",
        "a/$b/{}",
        "ä ö",
    ] {
        let pattern: Pattern = text.parse().unwrap();
        assert_eq!(pattern.to_string(), text);
    }
    let long = "a".repeat(1_025);
    let deep = "/".repeat(256);
    for (text, error) in [
        ("", PatternError::Empty),
        (&*long, PatternError::TooLong(1_025)),
        (&*deep, PatternError::TooDeep(257)),
        ("$SYS/#", PatternError::Reserved),
        ("$share/g/a", PatternError::Reserved),
        ("a/\u{7}", PatternError::Character('\u{7}')),
        ("a\0", PatternError::Character('\0')),
        ("a/#/b", PatternError::Wildcard('#')),
        ("a/#/#", PatternError::Wildcard('#')),
        ("a/b#", PatternError::Wildcard('#')),
        ("a/${ca_sn}+", PatternError::Wildcard('+')),
        ("a/${ca_sn", PatternError::Unclosed),
        ("a/${ca/sn}", PatternError::Unclosed),
        ("a/${user}", PatternError::Unknown("user".to_owned())),
        ("a/${}", PatternError::Unknown(String::new())),
    ] {
        assert_eq!(text.parse::<Pattern>(), Err(error), "{text}");
    }
    let words = PatternError::Unknown("user".to_owned()).to_string();
    assert!(words.contains("common_name, ca_sn, device_sn"), "{words}");
}

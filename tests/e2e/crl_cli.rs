//! `portcullis crl`, and what is for the host only.

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::crl::{Revoked, file, host};
use crate::harness::pki::serial;

#[test]
fn command_line_lists_shows_deletes_and_demands() {
    let it = Revoked::new();
    let done = |arguments: &[&str]| {
        let done = host(&it.broker, arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {}", done.stderr);
        done.stdout
    };
    assert!(done(&["crl", "list"]).contains("There are no CRLs"));
    let path = file(&it.broker, "a.crl", &it.ca.crl(7, &[&it.bad]));
    done(&["crl", "import", "ca-a", &path]);
    assert!(done(&["crl", "import", "ca-a", &path]).contains("nothing changed"));
    let listed = done(&["crl", "list", "--ca", "ca-a"]);
    assert!(
        listed.contains(&it.ca.sn()) && listed.contains("optional"),
        "{listed}"
    );
    let shown = done(&["crl", "show", "ca-a"]);
    assert!(
        shown.contains("Number        7") && shown.contains("Entries       1"),
        "{shown}"
    );
    let out = done(&["crl", "policy", "ca-a", "required"]);
    assert!(out.contains("must have a CRL"), "{out}");
    assert!(done(&["ca", "show", "ca-a"]).contains("required"));
    let json: Value = serde_json::from_str(&done(&["crl", "show", "ca-a", "--json"])).unwrap();
    let id = json["CrlId"].as_str().unwrap();
    let out = done(&["crl", "delete", &id[..8], "--yes"]);
    assert!(out.contains("is deleted"), "{out}");
    assert!(!it.broker.admits(&it.good), "one is required");
    done(&["crl", "policy", "ca-a", "optional"]);
    assert!(it.broker.admits(&it.bad));
    for (arguments, code) in [
        (vec!["crl", "show", "ca-a"], 4),
        (vec!["crl", "import", "ca-none", &path], 4),
        (vec!["crl", "import", "ca-b", &path], 1),
        (vec!["crl", "import", "ca-a", "/nowhere"], 2),
        (vec!["crl", "policy", "ca-a", "sometimes"], 2),
    ] {
        let finished = host(&it.broker, &arguments);
        assert_eq!(finished.code, code, "{arguments:?}: {}", finished.stderr);
    }
}

#[test]
fn crl_over_the_body_limit_is_for_the_host_only() {
    let it = Revoked::new();
    let serials = (0..12_000_u64).map(|n| rcgen::SerialNumber::from(0x5000_0000 + n));
    let tomorrow = OffsetDateTime::now_utc() + Duration::days(1);
    let serials = serials.chain([serial(&it.bad.chain[0])]);
    let large = it.ca.crl_of(1, serials, tomorrow, None);
    assert!(large.len() > 300_000);
    let path = file(&it.broker, "large.crl", &large);
    let refused = it.broker.cli(&["crl", "import", "ca-a", &path]);
    assert!([1, 2].contains(&refused.code), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("on the broker's host") || refused.stderr.contains("too large"),
        "{}",
        refused.stderr
    );
    assert!(it.broker.admits(&it.bad));
    let done = host(&it.broker, &["crl", "import", "ca-a", &path]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(!it.broker.admits(&it.bad));
}

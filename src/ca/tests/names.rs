//! The names in a certificate besides its common name.

use rcgen::{DnType, DnValue, SanType};

use super::*;
use crate::ca::names::{Names, SubjectNames};

fn names(change: impl FnOnce(&mut rcgen::CertificateParams)) -> SubjectNames {
    let mut params = device_params("pump-7", 1);
    change(&mut params);
    SubjectNames::of_der(&TestCa::root("root", 1).issue_device(params).der)
}

fn values(names: &Names) -> (Vec<&str>, bool) {
    (names.iter().collect(), names.is_complete())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

#[test]
fn names_of_every_kind_are_read_in_the_order_of_the_certificate() {
    let names = names(|params| {
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, "plant");
        name.push(DnType::OrganizationalUnitName, "line/4");
        params.subject_alt_names = vec![
            SanType::Rfc822Name("pump@example.com".try_into().unwrap()),
            dns("b.example"),
            SanType::URI("spiffe://example/pump".try_into().unwrap()),
            dns("a.example"),
            dns("b.example"),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
        ];
    });
    assert_eq!(values(&names.organization), (vec!["plant"], true));
    assert_eq!(values(&names.organizational_unit), (vec!["line/4"], true));
    assert_eq!(
        values(&names.san_dns),
        (vec!["b.example", "a.example"], true)
    );
    assert_eq!(
        names.alternatives().collect::<Vec<_>>(),
        [
            "b.example",
            "a.example",
            "spiffe://example/pump",
            "pump@example.com"
        ]
    );
}

#[test]
fn certificate_without_names_has_none_and_says_that_these_are_all() {
    let names = names(|_| {});
    assert_eq!(values(&names.organization), (vec![], true));
    assert_eq!(values(&names.san_uri), (vec![], true));
}

#[test]
fn names_that_cannot_be_shown_are_left_out_and_that_is_told() {
    let names = names(|params| {
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, "plant\u{7}");
        let wide = rcgen::string::BmpString::try_from("line").unwrap();
        name.push(DnType::OrganizationalUnitName, DnValue::BmpString(wide));
        params.subject_alt_names = vec![dns("a\0b"), dns(""), dns("good"), dns(&"x".repeat(256))];
    });
    assert_eq!(values(&names.organization), (vec![], false));
    assert_eq!(values(&names.organizational_unit), (vec![], false));
    assert_eq!(values(&names.san_dns), (vec!["good"], false));
}

#[test]
fn only_so_many_names_of_one_kind_are_read() {
    let names = names(|params| {
        params.subject_alt_names = (0..33).map(|n| dns(&format!("h{n}"))).collect();
    });
    let (values, complete) = values(&names.san_dns);
    assert_eq!((values.len(), complete), (32, false));
}

#[test]
fn what_is_no_certificate_has_unknown_names() {
    let names = SubjectNames::of_der(b"nonsense");
    for kind in [&names.organization, &names.san_dns, &names.san_email] {
        assert_eq!(values(kind), (vec![], false));
    }
}

//! What lists do to paths.

use std::sync::Arc;

use rcgen::{CrlDistributionPoint, CustomExtension, DnType};

use super::*;
use crate::ca::error::{PathMember, Refusal};
use crate::ca::lifecycle::Status;
use crate::ca::path::Admitted;
use crate::ca::registry::Registry;
use crate::ca::topology::SameKey;
use crate::testing::crl::at;
use crate::testing::{TestDevice, device_params, now, registry};

fn admit(registry: &Registry, device: &TestDevice, chain: &[&TestCa]) -> Result<Admitted, Refusal> {
    let chain: Vec<_> = chain.iter().map(|ca| ca.der.clone()).collect();
    let admitted = registry.admit(&device.der, &chain, now());
    admitted.map_err(|refused| refused.refusal)
}

fn put(registry: &Registry, ca: &TestCa, policy: CrlPolicy, lists: &[TestCrl]) -> Vec<CaKeyId> {
    let lists = lists.iter().map(|crl| Arc::new(crl.verified(ca).unwrap()));
    let lists = Revocations::new(policy, lists.collect());
    registry
        .set_revocations(ca.certificate().key_id(), lists)
        .denied
}

fn reason(result: Result<Admitted, Refusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.reason(), |_| "admitted")
}

#[test]
fn revoked_device_is_refused_and_no_other() {
    let registry = registry(SameKey::Deny);
    let (ca, other) = (TestCa::root("ca", 1), TestCa::root("other", 2));
    ca.register(&registry);
    other.register(&registry);
    let (bad, good) = (ca.issue("bad", 5), ca.issue("good", 6));
    let namesake = other.issue("same serial", 5);
    let admitted = admit(&registry, &bad, &[]).unwrap();
    let denied = put(
        &registry,
        &ca,
        CrlPolicy::Optional,
        &[TestCrl::revoking(7, &[5])],
    );
    assert_eq!(denied, [ca.certificate().key_id()]);
    let refusal = admit(&registry, &bad, &[]).unwrap_err();
    assert_eq!(refusal.reason(), "device_revoked");
    assert_eq!(
        refusal.to_string(),
        "the device certificate is revoked: it is on CRL 7 of its issuer"
    );
    assert_eq!(registry.objection(&admitted, now_secs()), Some(refusal));
    assert!(admit(&registry, &good, &[]).is_ok());
    assert!(admit(&registry, &namesake, &[]).is_ok());
    // Without the list it is back.
    put(&registry, &ca, CrlPolicy::Optional, &[]);
    assert!(admit(&registry, &bad, &[]).is_ok());
    assert_eq!(registry.objection(&admitted, now_secs()), None);
}

#[test]
fn what_an_expired_list_revokes_stays_revoked() {
    let registry = registry(SameKey::Deny);
    let ca = TestCa::root("ca", 1);
    ca.register(&registry);
    let old = TestCrl::revoking(7, &[5])
        .issued_at(now_secs() - 9000)
        .until(now_secs() - 60);
    put(&registry, &ca, CrlPolicy::Optional, &[old]);
    assert_eq!(
        reason(admit(&registry, &ca.issue("bad", 5), &[])),
        "device_revoked"
    );
    assert_eq!(
        reason(admit(&registry, &ca.issue("good", 6), &[])),
        "admitted"
    );
}

#[test]
fn policy_says_what_a_missing_or_expired_list_means() {
    let registry = registry(SameKey::Deny);
    let ca = TestCa::root("ca", 1);
    ca.register(&registry);
    let device = ca.issue("d", 5);
    let fresh = || TestCrl::new(2);
    let stale = || {
        TestCrl::new(1)
            .issued_at(now_secs() - 9000)
            .until(now_secs() - 60)
    };
    use CrlPolicy::{InDate, Optional, Required};
    for (policy, lists, expected) in [
        (Required, vec![], "crl_missing"),
        (Required, vec![stale()], "crl_expired"),
        (Required, vec![fresh()], "admitted"),
        (InDate, vec![], "admitted"),
        (InDate, vec![stale()], "crl_expired"),
        (InDate, vec![fresh()], "admitted"),
        (Optional, vec![], "admitted"),
        (Optional, vec![stale()], "admitted"),
    ] {
        let count = lists.len();
        put(&registry, &ca, policy, &lists);
        assert_eq!(
            reason(admit(&registry, &device, &[])),
            expected,
            "{policy} {count}"
        );
    }
}

#[test]
fn list_expires_while_a_peer_is_connected() {
    let registry = registry(SameKey::Deny);
    let ca = TestCa::root("ca", 1);
    ca.register(&registry);
    let key = ca.certificate().key_id();
    let end = now_secs() + 100;
    let peer = admit(&registry, &ca.issue("d", 5), &[]).unwrap();
    assert!(registry.lists_expired(now_secs()).is_empty());
    put(
        &registry,
        &ca,
        CrlPolicy::Required,
        &[TestCrl::new(1).until(end)],
    );
    assert_eq!(registry.objection(&peer, end - 1), None);
    assert!(registry.lists_expired(end - 1).is_empty());
    assert_eq!(registry.lists_expired(end), [key]);
    assert!(registry.lists_expired(end + 1).is_empty(), "told once");
    // Who read the clock before comes too late.
    let objection = registry.objection(&peer, end - 1).unwrap();
    assert_eq!(objection.reason(), "crl_expired");
    assert_eq!(
        reason(
            registry
                .admit(&ca.issue("e", 6).der, &[], at(end - 1))
                .map_err(|it| it.refusal)
        ),
        "crl_expired"
    );
    // A clock that was set back counts again.
    assert!(registry.lists_expired(end - 50).is_empty());
    assert_eq!(registry.objection(&peer, end - 50), None);
    assert_eq!(registry.lists_expired(end + 50), [key]);
    // Nobody cares where nothing is demanded.
    registry.lists_expired(end - 50);
    put(
        &registry,
        &ca,
        CrlPolicy::Optional,
        &[TestCrl::new(1).until(end)],
    );
    assert!(registry.lists_expired(end).is_empty());
}

#[test]
fn unregistered_intermediate_on_the_list_of_the_root_is_refused() {
    let registry = registry(SameKey::Deny);
    let root = TestCa::root("root", 1);
    root.register(&registry);
    let middle = root.issue_ca(ca_params("middle", 5));
    let device = middle.issue("d", 9);
    let peer = admit(&registry, &device, &[&middle]).unwrap();
    put(
        &registry,
        &root,
        CrlPolicy::Optional,
        &[TestCrl::revoking(3, &[5])],
    );
    let refusal = admit(&registry, &device, &[&middle]).unwrap_err();
    assert_eq!(refusal.reason(), "intermediate_revoked");
    assert!(refusal.to_string().contains("CRL 3"), "{refusal}");
    assert_eq!(registry.objection(&peer, now_secs()), Some(refusal));
    // The serial number of a device is that of its own issuer, not of the root.
    put(
        &registry,
        &root,
        CrlPolicy::Optional,
        &[TestCrl::revoking(4, &[9])],
    );
    assert!(admit(&registry, &device, &[&middle]).is_ok());
}

#[test]
fn registered_intermediate_on_the_list_of_the_root_is_off_with_all_below() {
    let registry = registry(SameKey::Deny);
    let root = TestCa::root("root", 1);
    let middle = root.issue_ca(ca_params("middle", 5));
    let lower = middle.issue_ca(ca_params("lower", 6));
    for ca in [&root, &middle, &lower] {
        ca.register(&registry);
    }
    let key = |ca: &TestCa| ca.certificate().key_id();
    let device = lower.issue("d", 9);
    let peer = admit(&registry, &device, &[]).unwrap();
    let denied = put(
        &registry,
        &root,
        CrlPolicy::Optional,
        &[TestCrl::revoking(3, &[5])],
    );
    assert!(
        [&root, &middle, &lower]
            .iter()
            .all(|ca| denied.contains(&key(ca))),
        "{denied:?}"
    );
    // Whatever it sends.
    let revoked = |refusal: Option<Refusal>| match refusal {
        Some(Refusal::Revoked {
            who: PathMember::Ca(sn),
            by,
        }) => (sn.to_string(), by.crl.to_string()),
        other => panic!("{other:?}"),
    };
    let expected = ("05".to_owned(), "3".to_owned());
    for chain in [
        vec![],
        vec![&lower],
        vec![&lower, &middle],
        vec![&lower, &middle, &root],
    ] {
        assert_eq!(revoked(admit(&registry, &device, &chain).err()), expected);
    }
    assert_eq!(revoked(registry.objection(&peer, now_secs())), expected);
    let reissued = root.issue_ca_with(ca_params("middle", 7), Arc::clone(&middle.key));
    let under = reissued.issue("e", 10);
    assert_eq!(
        revoked(admit(&registry, &under, &[&reissued]).err()),
        expected
    );
    assert!(matches!(
        registry.off_reason(middle.certificate().id()),
        Some(crate::ca::error::OffReason::Revoked { .. })
    ));
    // The root itself is not off.
    assert!(admit(&registry, &root.issue("f", 11), &[]).is_ok());
    put(
        &registry,
        &root,
        CrlPolicy::Optional,
        &[TestCrl::revoking(4, &[])],
    );
    assert!(admit(&registry, &device, &[]).is_ok());
}

#[test]
fn list_that_is_there_first_counts_for_a_ca_registered_later() {
    let registry = registry(SameKey::Deny);
    let root = TestCa::root("root", 1);
    let middle = root.issue_ca(ca_params("middle", 5));
    root.register(&registry);
    put(
        &registry,
        &root,
        CrlPolicy::Optional,
        &[TestCrl::revoking(3, &[5])],
    );
    let effects = middle.register(&registry);
    assert_eq!(effects.denied, [middle.certificate().key_id()]);
    assert_eq!(
        reason(admit(&registry, &middle.issue("d", 9), &[])),
        "ca_revoked"
    );
}

#[test]
fn revoked_certificate_is_no_path_though_a_sibling_carries_the_ca_on() {
    let registry = registry(SameKey::AllowActive);
    let root = TestCa::root("root", 1);
    root.register(&registry);
    let middle = root.issue_ca(ca_params("middle", 5));
    let renewed = root.issue_ca_with(ca_params("middle", 6), Arc::clone(&middle.key));
    let device = middle.issue("d", 9);
    middle.register(&registry);
    put(
        &registry,
        &root,
        CrlPolicy::Optional,
        &[TestCrl::revoking(3, &[5])],
    );
    assert_eq!(reason(admit(&registry, &device, &[])), "ca_revoked");
    renewed.register(&registry);
    assert!(
        admit(&registry, &device, &[]).is_ok(),
        "over the renewed one"
    );
    registry.remove(renewed.certificate().id());
    assert_eq!(reason(admit(&registry, &device, &[])), "ca_revoked");
}

#[test]
fn root_that_shares_its_serial_number_with_a_revoked_device_stays_on() {
    let registry = registry(SameKey::Deny);
    let root = TestCa::root("root", 1);
    root.register(&registry);
    put(
        &registry,
        &root,
        CrlPolicy::Optional,
        &[TestCrl::revoking(3, &[1])],
    );
    assert!(admit(&registry, &root.issue("good", 2), &[]).is_ok());
    assert_eq!(
        reason(admit(&registry, &root.issue("bad", 1), &[])),
        "device_revoked"
    );
}

#[test]
fn required_list_is_demanded_of_the_issuer_for_what_is_not_registered() {
    let registry = registry(SameKey::Deny);
    let root = TestCa::root("root", 1);
    root.register(&registry);
    let middle = root.issue_ca(ca_params("middle", 5));
    let device = middle.issue("d", 9);
    put(&registry, &root, CrlPolicy::Required, &[]);
    let refusal = admit(&registry, &device, &[&middle]).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "its issuer must have a CRL that covers an intermediate certificate, and none is imported"
    );
    // An operator vouched for it.
    middle.register(&registry);
    assert!(admit(&registry, &device, &[&middle]).is_ok());
    assert!(admit(&registry, &device, &[]).is_ok());
}

#[test]
fn lists_for_parts_cover_their_parts_and_revoke_everywhere() {
    let registry = registry(SameKey::Deny);
    let ca = TestCa::root("ca", 1);
    ca.register(&registry);
    let (one, two) = ("http://ca/1.crl", "http://ca/2.crl");
    let with_points = |name: &str, serial, points: &[&str]| {
        let mut params = device_params(name, serial);
        params.crl_distribution_points = points
            .iter()
            .map(|point| CrlDistributionPoint {
                uris: vec![(*point).to_owned()],
            })
            .collect();
        ca.issue_device(params)
    };
    let first = with_points("first", 5, &[one]);
    let second = with_points("second", 6, &[two]);
    let both = with_points("both", 7, &["http://elsewhere", two]);
    let nowhere = ca.issue("no point", 8);
    let part = |number, point: &str, revoked: &[u64]| {
        TestCrl::revoking(number, revoked).for_points(&[point], &[ONLY_DEVICES])
    };
    put(&registry, &ca, CrlPolicy::Required, &[part(1, one, &[])]);
    assert_eq!(reason(admit(&registry, &first, &[])), "admitted");
    for device in [&second, &both, &nowhere] {
        assert_eq!(reason(admit(&registry, device, &[])), "crl_missing");
    }
    put(
        &registry,
        &ca,
        CrlPolicy::Required,
        &[part(1, one, &[6]), part(1, two, &[])],
    );
    assert_eq!(reason(admit(&registry, &first, &[])), "admitted");
    assert_eq!(reason(admit(&registry, &both, &[])), "admitted");
    // Every list counts for what is on it.
    assert_eq!(reason(admit(&registry, &second, &[])), "device_revoked");
    // A list for everything covers what names points, and what names none.
    put(&registry, &ca, CrlPolicy::Required, &[TestCrl::new(1)]);
    for device in [&first, &second, &both, &nowhere] {
        assert_eq!(reason(admit(&registry, device, &[])), "admitted");
    }
    let of_cas = TestCrl::new(1).for_points(&[one], &[ONLY_CAS]);
    put(&registry, &ca, CrlPolicy::Required, &[of_cas]);
    assert_eq!(reason(admit(&registry, &first, &[])), "crl_missing");
}

#[test]
fn distribution_points_that_are_not_understood_are_none() {
    let registry = registry(SameKey::Deny);
    let ca = TestCa::root("ca", 1);
    ca.register(&registry);
    let with_points = |content: &[u8]| {
        let mut params = device_params("d", 5);
        params.distinguished_name.push(DnType::CommonName, "d");
        let points = CustomExtension::from_oid_content(&[2, 5, 29, 31], content.to_vec());
        params.custom_extensions.push(points);
        ca.issue_device(params)
    };
    // Its name is that of a host, where we know URIs.
    let name = [0x30, 9, 0x30, 7, 0xa0, 5, 0xa0, 3, 0x82, 1, b'x'];
    let device = with_points(&name);
    let part = TestCrl::new(1).for_points(&["http://ca/1.crl"], &[]);
    put(
        &registry,
        &ca,
        CrlPolicy::Optional,
        std::slice::from_ref(&part),
    );
    let before = reason(admit(&registry, &device, &[]));
    put(&registry, &ca, CrlPolicy::Required, &[part]);
    let after = reason(admit(&registry, &device, &[]));
    assert_eq!((before, after), ("admitted", "crl_missing"));
    let broken = with_points(&[0x30, 0x03, 1, 2]);
    assert_eq!(reason(admit(&registry, &broken, &[])), "malformed");
}

#[test]
fn what_is_coming_revokes_and_vouches_for_nothing() {
    let registry = registry(SameKey::Deny);
    let ca = TestCa::root("ca", 1);
    ca.register(&registry);
    let key = ca.certificate().key_id();
    let (good, bad) = (ca.issue("good", 5), ca.issue("bad", 6));
    put(&registry, &ca, CrlPolicy::Required, &[]);
    let coming = Arc::new(TestCrl::revoking(1, &[6]).verified(&ca).unwrap());
    let now = registry.revocations(key);
    let more = now.denying_more(CrlPolicy::Optional, [Arc::clone(&coming)]);
    assert_eq!(more.policy(), CrlPolicy::Required, "the stricter one");
    registry.set_revocations(key, more);
    assert_eq!(reason(admit(&registry, &good, &[])), "crl_missing");
    assert_eq!(reason(admit(&registry, &bad, &[])), "device_revoked");
    registry.set_revocations(key, Revocations::new(CrlPolicy::Required, vec![coming]));
    assert_eq!(reason(admit(&registry, &good, &[])), "admitted");
    assert_eq!(reason(admit(&registry, &bad, &[])), "device_revoked");
}

#[test]
fn ca_that_is_inactive_is_told_before_its_lists() {
    let registry = registry(SameKey::Deny);
    let ca = TestCa::root("ca", 1);
    ca.register(&registry);
    put(&registry, &ca, CrlPolicy::Required, &[]);
    registry.set_status(ca.certificate().id(), Status::Inactive);
    assert_eq!(
        reason(admit(&registry, &ca.issue("d", 5), &[])),
        "ca_inactive"
    );
}

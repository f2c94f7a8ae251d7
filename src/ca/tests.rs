//! The rules of acceptance, one scenario each, over chains made in memory.

mod certificates;
mod names;
mod orders;
mod outlook;
mod purposes;
mod remembered;

use std::sync::Arc;

use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose,
    NameConstraints,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use crate::ca::error::{OffReason, PathMember, Refusal};
use crate::ca::lifecycle::Status;
use crate::ca::path::Admitted;
use crate::ca::registry::{DeviceKey, Purpose, Registry, RegistryError};
use crate::ca::topology::SameKey;
use crate::testing::{TestCa, TestDevice, ca_params, device_params, now, now_secs, registry};

fn admit(registry: &Registry, device: &TestDevice, chain: &[&TestCa]) -> Result<Admitted, Refusal> {
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|ca| ca.der.clone()).collect();
    registry
        .admit(&device.der, &chain, now())
        .map_err(|refused| refused.refusal)
}

fn inactivate(registry: &Registry, ca: &TestCa) -> usize {
    let effects = registry.set_status(ca.certificate().id(), Status::Inactive);
    effects.denied.len()
}

fn activate(registry: &Registry, ca: &TestCa) {
    registry.set_status(ca.certificate().id(), Status::Active);
}

fn ca_inactive(result: Result<Admitted, Refusal>) -> OffReason {
    match result {
        Err(Refusal::CaInactive { why, .. }) => why,
        other => panic!("expected a refusal for an inactive CA, got {other:?}"),
    }
}

#[test]
fn device_of_active_root_is_admitted_with_its_identity() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 0x1f2));
    root.register(&registry);
    let admitted = admit(&registry, &root.issue("pump-7", 0x99), &[]).unwrap();
    assert_eq!(admitted.ca_sn().to_string(), "01f2");
    assert_eq!(admitted.device().serial.to_string(), "0099");
    assert_eq!(admitted.common_name(), Some("pump-7"));
    assert_eq!(admitted.path(), [root.certificate().key_id()]);
    assert_eq!(admitted.purpose(), Purpose::Device);
}

#[test]
fn device_of_empty_registry_is_unknown() {
    let root = TestCa::root("root", 1);
    let refused = registry(SameKey::Deny)
        .admit(&root.issue("d", 2).der, &[], now())
        .unwrap_err();
    assert_eq!(refused.refusal, Refusal::UnknownCa);
    assert_eq!(refused.device.unwrap().to_string(), "02");
}

#[test]
fn root_inactivated_and_activated_shuts_out_and_lets_back() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let device = root.issue("d", 2);
    assert_eq!(inactivate(&registry, &root), 1);
    assert_eq!(ca_inactive(admit(&registry, &device, &[])), OffReason::Own);
    activate(&registry, &root);
    assert!(admit(&registry, &device, &[]).is_ok());
}

#[test]
fn root_removed_makes_its_devices_unknown() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let effects = registry.remove(root.certificate().id());
    assert_eq!(effects.denied, [root.certificate().key_id()]);
    assert_eq!(
        admit(&registry, &root.issue("d", 2), &[]),
        Err(Refusal::UnknownCa)
    );
    assert!(registry.is_empty());
}

#[test]
fn intermediate_registered_alone_admits_without_its_root() {
    let registry = registry(SameKey::Deny);
    let issuing = TestCa::root("root", 1).issue_ca(ca_params("issuing", 2));
    issuing.register(&registry);
    assert!(admit(&registry, &issuing.issue("d", 3), &[]).is_ok());
}

#[test]
fn intermediate_sent_by_client_admits_below_registered_root() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let issuing = root.issue_ca(ca_params("issuing", 2));
    let device = issuing.issue("d", 3);
    let admitted = admit(&registry, &device, &[&issuing]).unwrap();
    assert_eq!(admitted.path().len(), 2);
    assert_eq!(admitted.ca(), root.certificate().id());
    assert_eq!(admitted.device().issuer, issuing.certificate().key_id());
    assert_eq!(admit(&registry, &device, &[]), Err(Refusal::UnknownCa));
}

#[test]
fn root_inactivated_refuses_devices_of_registered_intermediate() {
    for intermediate_first in [true, false] {
        let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
        let issuing = root.issue_ca(ca_params("issuing", 2));
        if intermediate_first {
            issuing.register(&registry);
            root.register(&registry);
        } else {
            root.register(&registry);
            issuing.register(&registry);
        }
        let device = issuing.issue("d", 3);
        assert_eq!(inactivate(&registry, &root), 2);
        let sn = root.certificate().serial().clone();
        for chain in [&[][..], &[&issuing][..]] {
            assert_eq!(
                ca_inactive(admit(&registry, &device, chain)),
                OffReason::Above(sn.clone())
            );
        }
        activate(&registry, &root);
        assert!(admit(&registry, &device, &[]).is_ok());
    }
}

#[test]
fn intermediate_inactivated_refuses_although_root_is_active() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    let issuing = root.issue_ca(ca_params("issuing", 2));
    root.register(&registry);
    issuing.register(&registry);
    let device = issuing.issue("d", 3);
    inactivate(&registry, &issuing);
    for chain in [&[][..], &[&issuing][..], &[&root, &issuing][..]] {
        assert_eq!(
            ca_inactive(admit(&registry, &device, chain)),
            OffReason::Own
        );
    }
    assert!(admit(&registry, &root.issue("direct", 9), &[]).is_ok());
}

#[test]
fn reissued_copy_of_inactive_intermediate_is_no_way_around() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    let issuing = root.issue_ca(ca_params("issuing", 2));
    root.register(&registry);
    issuing.register(&registry);
    let device = issuing.issue("d", 3);
    inactivate(&registry, &issuing);
    // The same subject and key, another serial number, not registered.
    let copy = root.issue_ca_with(ca_params("issuing", 77), Arc::clone(&issuing.key));
    ca_inactive(admit(&registry, &device, &[&copy]));
    // Cross-signed by another registered root.
    let other = TestCa::root("other", 5);
    other.register(&registry);
    let crossed = other.issue_ca_with(ca_params("issuing", 78), Arc::clone(&issuing.key));
    ca_inactive(admit(&registry, &device, &[&crossed]));
    ca_inactive(admit(&registry, &device, &[&crossed, &copy, &issuing]));
}

#[test]
fn forged_chain_order_does_not_name_the_ca() {
    // A leaf of an inactive CA, sent with the certificate of an active one.
    let registry = registry(SameKey::Deny);
    let (bad, good) = (TestCa::root("bad", 1), TestCa::root("good", 2));
    bad.register(&registry);
    good.register(&registry);
    inactivate(&registry, &bad);
    ca_inactive(admit(&registry, &bad.issue("d", 3), &[&good]));
    let admitted = admit(&registry, &good.issue("d", 4), &[&bad]).unwrap();
    assert_eq!(admitted.ca(), good.certificate().id());
}

#[test]
fn cas_of_one_subject_are_told_apart_by_their_keys() {
    let registry = registry(SameKey::Deny);
    let (one, two, stranger) = (
        TestCa::root("same", 1),
        TestCa::root("same", 2),
        TestCa::root("same", 3),
    );
    one.register(&registry);
    two.register(&registry);
    let (of_one, of_two) = (one.issue("a", 10), two.issue("b", 11));
    assert_eq!(
        admit(&registry, &of_one, &[]).unwrap().ca(),
        one.certificate().id()
    );
    inactivate(&registry, &one);
    assert_eq!(ca_inactive(admit(&registry, &of_one, &[])), OffReason::Own);
    assert_eq!(
        admit(&registry, &of_two, &[]).unwrap().ca(),
        two.certificate().id()
    );
    assert_eq!(
        admit(&registry, &stranger.issue("c", 12), &[]),
        Err(Refusal::UnknownCa)
    );
}

#[test]
fn renewed_ca_follows_the_same_key_policy() {
    for (policy, admits) in [(SameKey::Deny, false), (SameKey::AllowActive, true)] {
        let (registry, old) = (registry(policy), TestCa::root("root", 1));
        let new = TestCa::self_signed_with(ca_params("root", 2), Arc::clone(&old.key));
        old.register(&registry);
        new.register(&registry);
        let device = old.issue("d", 3);
        inactivate(&registry, &old);
        assert_eq!(admit(&registry, &device, &[]).is_ok(), admits, "{policy:?}");
        if !admits {
            let sn = old.certificate().serial().clone();
            assert_eq!(
                registry.off_reason(new.certificate().id()),
                Some(OffReason::Sibling(sn))
            );
        }
        // To retire the old certificate of a renewed CA, delete it.
        registry.remove(old.certificate().id());
        assert!(admit(&registry, &device, &[]).is_ok());
    }
}

#[test]
fn expired_ca_is_refused_although_it_is_active() {
    let registry = registry(SameKey::Deny);
    let mut params = ca_params("old", 1);
    params.not_before = OffsetDateTime::now_utc() - Duration::days(20);
    params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    let expired = TestCa::self_signed(params);
    expired.register(&registry);
    let device = expired.issue("d", 3);
    assert!(matches!(
        admit(&registry, &device, &[]),
        Err(Refusal::OutsideValidity(PathMember::Ca(_)))
    ));
    // Its renewal carries it on.
    let renewed = TestCa::self_signed_with(ca_params("old", 2), Arc::clone(&expired.key));
    renewed.register(&registry);
    assert_eq!(
        admit(&registry, &device, &[]).unwrap().ca(),
        renewed.certificate().id()
    );
}

#[test]
fn expired_or_early_device_is_refused() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let now = OffsetDateTime::now_utc();
    for (from, to) in [(-3, -2), (2, 3)] {
        let mut params = device_params("d", 5);
        params.not_before = now + Duration::hours(from);
        params.not_after = now + Duration::hours(to);
        assert_eq!(
            admit(&registry, &root.issue_device(params), &[]),
            Err(Refusal::OutsideValidity(PathMember::Device))
        );
    }
}

#[test]
fn inactive_device_is_refused_over_every_certificate_of_its_issuer() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let (device, other) = (root.issue("d", 3), root.issue("e", 4));
    let key = admit(&registry, &device, &[]).unwrap().device().clone();
    registry.set_device(key.clone(), Status::Inactive);
    assert_eq!(admit(&registry, &device, &[]), Err(Refusal::DeviceInactive));
    let renewed = TestCa::self_signed_with(ca_params("root", 2), Arc::clone(&root.key));
    renewed.register(&registry);
    registry.remove(root.certificate().id());
    assert_eq!(admit(&registry, &device, &[]), Err(Refusal::DeviceInactive));
    assert!(admit(&registry, &other, &[]).is_ok());
    registry.set_device(key, Status::Active);
    assert!(admit(&registry, &device, &[]).is_ok());
}

#[test]
fn same_device_serial_under_other_issuers_is_another_device() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let (left, right) = (
        root.issue_ca(ca_params("left", 2)),
        root.issue_ca(ca_params("right", 3)),
    );
    let (a, b) = (left.issue("a", 9), right.issue("b", 9));
    let key: DeviceKey = admit(&registry, &a, &[&left]).unwrap().device().clone();
    registry.set_device(key, Status::Inactive);
    assert_eq!(admit(&registry, &a, &[&left]), Err(Refusal::DeviceInactive));
    assert!(admit(&registry, &b, &[&right]).is_ok());
}

#[test]
fn usages_and_constraints_of_every_certificate_count() {
    let root = TestCa::root("root", 1);
    let check = |registry: &Registry, device: &TestDevice, chain: &[&TestCa], what: &str| {
        let result = admit(registry, device, chain);
        assert!(
            matches!(
                result,
                Err(Refusal::Misused { .. } | Refusal::InvalidPath(_))
            ),
            "{what}: {result:?}"
        );
    };
    let with_root = || {
        let registry = registry(SameKey::Deny);
        root.register(&registry);
        registry
    };

    let mut params = device_params("d", 2);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    check(
        &with_root(),
        &root.issue_device(params),
        &[],
        "server certificate",
    );

    let mut params = device_params("d", 2);
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    check(
        &with_root(),
        &root.issue_device(params),
        &[],
        "no digital signature",
    );

    let mut params = device_params("d", 2);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    check(
        &with_root(),
        &root.issue_device(params),
        &[],
        "a CA as device",
    );

    let mut params = ca_params("no-sign", 3);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let weak = root.issue_ca(params);
    check(
        &with_root(),
        &weak.issue("d", 4),
        &[&weak],
        "no keyCertSign",
    );

    let mut params = ca_params("not-ca", 3);
    params.is_ca = IsCa::ExplicitNoCa;
    let leaf = root.issue_ca(params);
    check(
        &with_root(),
        &leaf.issue("d", 4),
        &[&leaf],
        "a device as CA",
    );

    let mut params = ca_params("short", 5);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = TestCa::self_signed(params);
    let below = short.issue_ca(ca_params("below", 6));
    let registry_of = |ca: &TestCa| {
        let registry = registry(SameKey::Deny);
        ca.register(&registry);
        registry
    };
    check(
        &registry_of(&short),
        &below.issue("d", 7),
        &[&below],
        "path length of the anchor",
    );
    assert!(admit(&registry_of(&short), &short.issue("d", 8), &[]).is_ok());

    let mut params = ca_params("server-only", 5);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_only = TestCa::self_signed(params);
    check(
        &registry_of(&server_only),
        &server_only.issue("d", 7),
        &[],
        "usage of the anchor",
    );

    let mut params = ca_params("constrained", 5);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
        excluded_subtrees: vec![],
    });
    let constrained = TestCa::self_signed(params);
    let mut params = device_params("d", 6);
    params.subject_alt_names = vec![rcgen::SanType::DnsName("evil.test".try_into().unwrap())];
    check(
        &registry_of(&constrained),
        &constrained.issue_device(params),
        &[],
        "name constraints",
    );
}

#[test]
fn chain_larger_than_any_real_one_is_not_read() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let device = root.issue("d", 2);
    let chain = vec![&root; 9];
    assert_eq!(
        admit(&registry, &device, &chain),
        Err(Refusal::ChainTooLarge)
    );
    let huge = CertificateDer::from(vec![0x30; 17 * 1024]);
    let refused = registry.admit(&device.der, &[huge], now()).unwrap_err();
    assert_eq!(refused.refusal, Refusal::ChainTooLarge);
    // Each is small enough, and all of them are more than a message of a handshake holds.
    let some = CertificateDer::from(vec![0x30; 15 * 1024]);
    let refused = registry.admit(&device.der, &vec![some.clone(); 5], now());
    assert_eq!(refused.unwrap_err().refusal, Refusal::ChainTooLarge);
    assert!(registry.admit(&device.der, &vec![some; 4], now()).is_ok());
}

#[test]
fn garbage_among_intermediates_changes_nothing() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let device = root.issue("d", 2);
    let garbage = CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff, 0]);
    assert!(
        registry
            .admit(&device.der, std::slice::from_ref(&garbage), now())
            .is_ok()
    );
    let refused = registry.admit(&garbage, &[], now()).unwrap_err();
    assert!(matches!(refused.refusal, Refusal::Malformed(_)));
}

#[test]
fn cross_signed_cas_do_not_hold_each_other_off() {
    let registry = registry(SameKey::Deny);
    let (a, b) = (TestCa::root("a", 1), TestCa::root("b", 2));
    let a_by_b = b.issue_ca_with(ca_params("a", 3), Arc::clone(&a.key));
    let b_by_a = a.issue_ca_with(ca_params("b", 4), Arc::clone(&b.key));
    for ca in [&a, &b, &a_by_b, &b_by_a] {
        ca.register(&registry);
    }
    let device = a.issue("d", 5);
    assert!(admit(&registry, &device, &[]).is_ok());
    inactivate(&registry, &b);
    ca_inactive(admit(&registry, &device, &[]));
    activate(&registry, &b);
    assert!(admit(&registry, &device, &[]).is_ok());
}

#[test]
fn admitted_peer_is_objected_to_when_its_trust_ends() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let issuing = root.issue_ca(ca_params("issuing", 2));
    let admitted = admit(&registry, &issuing.issue("d", 3), &[&issuing]).unwrap();
    assert_eq!(registry.objection(&admitted, now_secs()), None);
    // An intermediate of the path is registered later, and switched off.
    issuing.register(&registry);
    assert_eq!(registry.objection(&admitted, now_secs()), None);
    inactivate(&registry, &issuing);
    assert!(matches!(
        registry.objection(&admitted, now_secs()),
        Some(Refusal::CaInactive { .. })
    ));
    activate(&registry, &issuing);
    let later = admitted.path_not_after() + 1;
    assert!(matches!(
        registry.objection(&admitted, later),
        Some(Refusal::OutsideValidity(_))
    ));
    registry.remove(issuing.certificate().id());
    registry.remove(root.certificate().id());
    assert_eq!(
        registry.objection(&admitted, now_secs()),
        Some(Refusal::UnknownCa)
    );
}

#[test]
fn administrators_ca_stays_apart_from_device_cas() {
    let (registry, admin) = (registry(SameKey::Deny), TestCa::root("admin", 1));
    registry
        .insert(
            Arc::new(admin.certificate()),
            Purpose::Admin,
            Status::Active,
        )
        .unwrap();
    let admitted = admit(&registry, &admin.issue("operator", 2), &[]).unwrap();
    assert_eq!(admitted.purpose(), Purpose::Admin);
    let renewed = TestCa::self_signed_with(ca_params("admin", 3), Arc::clone(&admin.key));
    assert_eq!(
        registry.can_insert(&renewed.certificate(), Purpose::Device),
        Err(RegistryError::OtherPurpose)
    );
    // A device CA below it makes no administrators, over whichever path.
    let below = admin.issue_ca(ca_params("devices", 4));
    below.register(&registry);
    let admitted = admit(&registry, &below.issue("d", 5), &[&below]).unwrap();
    assert_eq!(admitted.purpose(), Purpose::Device);
}

#[test]
fn subject_with_too_many_cas_takes_no_more() {
    let registry = registry(SameKey::Deny);
    for serial in 0..32 {
        TestCa::root("same", 100 + serial).register(&registry);
    }
    assert_eq!(
        registry.can_insert(&TestCa::root("same", 1).certificate(), Purpose::Device),
        Err(RegistryError::TooManyWithSubject)
    );
    assert!(
        registry
            .can_insert(&TestCa::root("else", 1).certificate(), Purpose::Device)
            .is_ok()
    );
}

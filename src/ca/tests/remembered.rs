//! A signature that is remembered spares its verification, and nothing else.

use rustls::pki_types::UnixTime;

use super::*;

#[test]
fn device_that_was_admitted_before_is_refused_like_any_other() {
    let registry = registry(SameKey::Deny);
    let ca = TestCa::root("ca", 1);
    ca.register(&registry);
    let device = ca.issue("device", 2);
    let first = admit(&registry, &device, &[]).unwrap();
    assert_eq!(admit(&registry, &device, &[]).unwrap(), first);

    inactivate(&registry, &ca);
    assert_eq!(ca_inactive(admit(&registry, &device, &[])), OffReason::Own);
    activate(&registry, &ca);
    registry.set_device(first.device().clone(), Status::Inactive);
    let refused = admit(&registry, &device, &[]).unwrap_err();
    assert_eq!(refused, Refusal::DeviceInactive);
    registry.set_device(first.device().clone(), Status::Active);

    // The dates are those of the certificate, and the time is now.
    let later =
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(now().as_secs() + 13 * 3600));
    let refused = registry.admit(&device.der, &[], later).unwrap_err();
    assert!(matches!(refused.refusal, Refusal::OutsideValidity(_)));

    registry.remove(ca.certificate().id());
    let refused = admit(&registry, &device, &[]).unwrap_err();
    assert_eq!(refused, Refusal::UnknownCa);
}

#[test]
fn every_octet_of_a_remembered_certificate_counts() {
    let registry = registry(SameKey::Deny);
    let ca = TestCa::root("ca", 1);
    ca.register(&registry);
    let device = ca.issue("device", 2);
    admit(&registry, &device, &[]).unwrap();
    for at in 0..device.der.len() {
        let mut der = device.der.to_vec();
        der[at] ^= 1;
        let admitted = registry.admit(&der.into(), &[], now());
        assert!(admitted.is_err(), "octet {at}");
    }
}

#[test]
fn signature_of_another_ca_with_the_same_name_is_not_the_remembered_one() {
    let registry = registry(SameKey::Deny);
    let (ca, namesake) = (TestCa::root("ca", 1), TestCa::root("ca", 2));
    ca.register(&registry);
    let device = ca.issue("device", 3);
    admit(&registry, &device, &[]).unwrap();
    registry.remove(ca.certificate().id());
    namesake.register(&registry);
    let refused = admit(&registry, &device, &[]).unwrap_err();
    assert!(matches!(
        refused,
        Refusal::BadSignature | Refusal::UnknownCa
    ));
}

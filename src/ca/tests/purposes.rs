//! Which certificate an authority acts by, and what it is for.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use super::{admit, inactivate};
use crate::ca::error::{OffReason, Refusal};
use crate::ca::lifecycle::Status;
use crate::ca::registry::{Purpose, Registry, RegistryError};
use crate::ca::topology::SameKey;
use crate::testing::{TestCa, ca_params, registry};

fn administrators(registry: &Registry, name: &str) -> TestCa {
    let admin = TestCa::root(name, 1);
    registry
        .insert(
            Arc::new(admin.certificate()),
            Purpose::Admin,
            Status::Active,
        )
        .unwrap();
    admin
}

#[test]
fn administrators_ca_cannot_become_a_device_ca() {
    let registry = registry(SameKey::Deny);
    let admin = administrators(&registry, "admin");
    let again = Arc::new(admin.certificate());
    assert_eq!(
        registry.can_insert(&again, Purpose::Device),
        Err(RegistryError::OtherPurpose)
    );
    assert_eq!(
        registry.insert(again, Purpose::Device, Status::Inactive),
        Err(RegistryError::OtherPurpose)
    );
    let admitted = admit(&registry, &admin.issue("operator", 2), &[]).unwrap();
    assert_eq!(admitted.purpose(), Purpose::Admin);
}

#[test]
fn ca_below_the_administrators_makes_none_unless_it_is_named() {
    let registry = registry(SameKey::Deny);
    let admin = administrators(&registry, "admin");
    let below = admin.issue_ca(ca_params("devices", 2));
    let device = below.issue("d", 3);
    let refused = |result| matches!(result, Err(Refusal::Misused { .. }));
    assert!(refused(admit(&registry, &device, &[&below])));
    // Nor does one that was a device CA until it was deleted.
    below.register(&registry);
    assert_eq!(
        admit(&registry, &device, &[&below]).unwrap().purpose(),
        Purpose::Device
    );
    registry.remove(below.certificate().id());
    assert!(refused(admit(&registry, &device, &[&below])));
    registry
        .insert(
            Arc::new(below.certificate()),
            Purpose::Admin,
            Status::Active,
        )
        .unwrap();
    assert_eq!(
        admit(&registry, &device, &[&below]).unwrap().purpose(),
        Purpose::Admin
    );
}

#[test]
fn inactive_certificate_does_not_stand_in_for_its_expired_sibling() {
    let (registry, old) = (registry(SameKey::AllowActive), TestCa::root("root", 1));
    let mut params = ca_params("root", 2);
    params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
    params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    let expired = TestCa::self_signed_with(params, Arc::clone(&old.key));
    old.register(&registry);
    expired.register(&registry);
    let device = old.issue("d", 3);
    assert!(admit(&registry, &device, &[]).is_ok());
    inactivate(&registry, &old);
    let refusal = admit(&registry, &device, &[]).unwrap_err();
    assert!(
        matches!(
            refusal,
            Refusal::CaInactive {
                why: OffReason::Own,
                ..
            } | Refusal::OutsideValidity(_)
        ),
        "{refusal:?}"
    );
    super::activate(&registry, &old);
    assert!(admit(&registry, &device, &[]).is_ok());
}

//! What a change would do, found out before it is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::ca::crl::{CrlPolicy, Revocations};
use crate::ca::error::{OffReason, Refusal};
use crate::ca::id::{CaId, CaKeyId};
use crate::ca::lifecycle::Status;
use crate::ca::outlook::{AdminsOff, Outlook, Proposal, Rest, Shift};
use crate::ca::registry::{Purpose, Registry};
use crate::ca::topology::SameKey;
use crate::testing::crl::TestCrl;
use crate::testing::{TestCa, ca_params, now_secs, registry};

fn off(ca: &TestCa) -> Proposal {
    Proposal::Status(Arc::new(ca.certificate()), Status::Inactive)
}

fn key(ca: &TestCa) -> CaKeyId {
    ca.certificate().key_id()
}

fn id(ca: &TestCa) -> CaId {
    ca.certificate().id()
}

/// What holds for each authority: whether it is there, and why its certificates are off.
type Picture = BTreeMap<CaKeyId, (bool, Vec<(CaId, Option<OffReason>)>)>;

fn picture(registry: &Registry, cas: &[TestCa]) -> Picture {
    let mut picture = Picture::new();
    for ca in cas {
        let certificate = ca.certificate();
        let (there, reasons) = picture.entry(certificate.key_id()).or_default();
        *there |= registry.verdict(certificate.key_id()).is_some();
        if registry.entry(certificate.id()).is_some() {
            reasons.push((certificate.id(), registry.off_reason(certificate.id())));
        }
    }
    picture
}

/// The picture as it would be, from that before and the outlook.
fn imagined(before: &Picture, outlook: &Outlook, proposal: &Proposal) -> Picture {
    let mut picture = before.clone();
    for concerned in &outlook.concerned {
        let (there, reasons) = picture.get_mut(&concerned.key).unwrap();
        *there = concerned.after.is_some();
        match proposal {
            Proposal::Removal(ca) => reasons.retain(|(id, _)| *id != ca.id()),
            Proposal::Insertion(ca) if ca.key_id() == concerned.key => {
                if !reasons.iter().any(|(id, _)| *id == ca.id()) {
                    reasons.push((ca.id(), None));
                }
            }
            Proposal::Status(..) | Proposal::Insertion(_) | Proposal::Revocations(..) => {}
        }
        for (id, reason) in reasons {
            *reason = concerned.off_after(*id);
        }
    }
    picture
}

fn sorted(mut picture: Picture) -> Picture {
    for (_, reasons) in picture.values_mut() {
        reasons.sort_by_key(|(id, _)| *id);
    }
    picture
}

/// Two roots, two intermediates below the first, one below the second intermediate, a renewal of
/// the first root, and an intermediate cross-signed by the second root.
fn forest() -> Vec<TestCa> {
    let a = TestCa::root("a", 1);
    let b = TestCa::root("b", 2);
    let a1 = a.issue_ca(ca_params("a1", 3));
    let a2 = a.issue_ca(ca_params("a2", 4));
    let a21 = a2.issue_ca(ca_params("a21", 5));
    let renewed = TestCa::self_signed_with(ca_params("a", 6), Arc::clone(&a.key));
    let crossed = b.issue_ca_with(ca_params("a2", 7), Arc::clone(&a2.key));
    vec![a, b, a1, a2, a21, renewed, crossed]
}

/// A list of this CA with some of those that may be below it.
fn revoking(ca: &TestCa) -> Revocations {
    let crl = TestCrl::revoking(1, &[3, 5]).verified(ca).unwrap();
    Revocations::new(CrlPolicy::Optional, vec![Arc::new(crl)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What is said of a change before it is made is what holds after it, and saying it changes
    /// nothing.
    #[test]
    fn outlook_comes_true(
        milder in any::<bool>(),
        steps in proptest::collection::vec((0usize..7, 0u8..5), 1..24),
    ) {
        thread_local!(static FOREST: Vec<TestCa> = forest());
        FOREST.with(|cas| {
            let registry = registry(match milder {
                true => SameKey::AllowActive,
                false => SameKey::Deny,
            });
            for (index, step) in steps {
                let ca = &cas[index];
                let there = registry.entry(id(ca)).is_some();
                let certificate = Arc::new(ca.certificate());
                let proposal = match (there, step) {
                    (_, 3) => Proposal::Revocations(key(ca), Arc::new(revoking(ca))),
                    (_, 4) => Proposal::Revocations(key(ca), Arc::default()),
                    (false, _) => Proposal::Insertion(certificate),
                    (true, 0) => Proposal::Status(certificate, Status::Active),
                    (true, 1) => off(ca),
                    (true, _) => Proposal::Removal(certificate),
                };
                let before = picture(&registry, cas);
                let outlook = registry.outlook(&proposal);
                prop_assert_eq!(&picture(&registry, cas), &before);
                match &proposal {
                    Proposal::Insertion(_) => drop(ca.register(&registry)),
                    Proposal::Status(_, status) => drop(registry.set_status(id(ca), *status)),
                    Proposal::Removal(_) => drop(registry.remove(id(ca))),
                    Proposal::Revocations(issuer, lists) => {
                        drop(registry.set_revocations(*issuer, lists.as_ref().clone()));
                    }
                }
                prop_assert_eq!(
                    sorted(imagined(&before, &outlook, &proposal)),
                    sorted(picture(&registry, cas))
                );
            }
            Ok(())
        })?;
    }
}

#[test]
fn outlook_names_what_is_below_and_above() {
    let registry = registry(SameKey::Deny);
    let cas = forest();
    for ca in &cas {
        ca.register(&registry);
    }
    let (a, b, a21) = (&cas[0], &cas[1], &cas[4]);
    let outlook = registry.outlook(&off(a));
    assert_eq!(outlook.denied().len(), 4, "a, a1, a2, a21");
    assert!(!outlook.denied().contains(&key(b)));
    let of_a21 = outlook.concerned.iter().find(|it| it.key == key(a21));
    let of_a21 = of_a21.unwrap();
    assert_eq!(of_a21.off_before(id(a21)), None);
    assert_eq!(
        of_a21.off_after(id(a21)),
        Some(OffReason::Above(a.certificate().serial().clone()))
    );
    let above: Vec<_> = registry
        .outlook(&off(a21))
        .above
        .iter()
        .map(|it| (it.key, it.certificates.len()))
        .collect();
    assert_eq!(above.len(), 3);
    assert_eq!(
        above[0],
        (key(&cas[3]), 2),
        "nearest first, with its copies"
    );
    // What is off already does not go off.
    registry.set_status(id(a), Status::Inactive);
    assert!(registry.outlook(&off(a21)).denied().is_empty());
    let back = Proposal::Removal(Arc::new(a.certificate()));
    let on: Vec<_> = registry.outlook(&back).concerned;
    let on = on.iter().filter(|it| it.shift() == Shift::On).count();
    assert_eq!(on, 4, "to delete what is inactive lets the others in again");
}

#[test]
fn peer_is_objected_to_under_an_outlook_as_after_the_change() {
    let registry = registry(SameKey::Deny);
    let (root, other) = (TestCa::root("root", 1), TestCa::root("other", 2));
    for ca in [&root, &other] {
        ca.register(&registry);
    }
    let middle = root.issue_ca(ca_params("middle", 3));
    let device = middle.issue("d", 4);
    let admitted = super::admit(&registry, &device, &[&middle]).unwrap();
    let under = |proposal: &Proposal| {
        registry.objection_under(&registry.outlook(proposal), &admitted, now_secs())
    };
    assert_eq!(
        under(&off(&root)),
        Some(Refusal::CaInactive {
            sn: root.certificate().serial().clone(),
            why: OffReason::Own
        })
    );
    let removal = Proposal::Removal(Arc::new(root.certificate()));
    assert_eq!(under(&removal), Some(Refusal::UnknownCa));
    assert_eq!(under(&off(&other)), None);
    // Whoever has to go anyway does not go for this.
    registry.set_status(id(&root), Status::Inactive);
    assert_eq!(under(&off(&root)), None);
}

/// A root that is registered for devices, and below it the CA of administrators.
fn administrated(same_key: SameKey) -> (Registry, TestCa, TestCa) {
    let (registry, root) = (registry(same_key), TestCa::root("root", 1));
    let middle = root.issue_ca(ca_params("middle", 2));
    let admin = middle.issue_ca(ca_params("admin", 3));
    let certificate = Arc::new(admin.certificate());
    registry
        .insert(certificate, Purpose::Admin, Status::Active)
        .unwrap();
    (registry, root, middle)
}

fn admins_off(registry: &Registry, proposal: &Proposal) -> Option<AdminsOff> {
    registry.admins_off(proposal, now_secs())
}

#[test]
fn administrators_are_off_when_a_ca_above_them_is() {
    let (registry, root, middle) = administrated(SameKey::Deny);
    let stranger = TestCa::root("stranger", 9);
    for ca in [&root, &middle, &stranger] {
        ca.register(&registry);
    }
    let all = AdminsOff {
        sns: vec!["3".parse().unwrap()],
        rest: Rest::None,
    };
    assert_eq!(admins_off(&registry, &off(&root)), Some(all.clone()));
    assert_eq!(admins_off(&registry, &off(&middle)), Some(all.clone()));
    assert_eq!(admins_off(&registry, &off(&stranger)), None);
    // To delete a CA above takes nobody along.
    let removal = Proposal::Removal(Arc::new(root.certificate()));
    assert_eq!(admins_off(&registry, &removal), None);
    // Another administrators' CA is left.
    let second = TestCa::root("second", 4);
    let certificate = Arc::new(second.certificate());
    registry
        .insert(certificate, Purpose::Admin, Status::Active)
        .unwrap();
    let some = AdminsOff {
        rest: Rest::Some,
        ..all
    };
    assert_eq!(admins_off(&registry, &off(&root)), Some(some));
    // They are off already: nobody is locked out by repeating it.
    registry.set_status(id(&root), Status::Inactive);
    assert_eq!(admins_off(&registry, &off(&root)), None);
    assert_eq!(admins_off(&registry, &off(&middle)), None);
}

#[test]
fn administrators_are_off_when_a_ca_between_is_registered() {
    let (registry, root, middle) = administrated(SameKey::Deny);
    root.register(&registry);
    let insertion = Proposal::Insertion(Arc::new(middle.certificate()));
    assert_eq!(admins_off(&registry, &insertion), None, "all are on");
    registry.set_status(id(&root), Status::Inactive);
    // Nobody knows yet that the root stands above them.
    assert!(admins_off(&registry, &insertion).is_some());
    middle.register(&registry);
    let admin = registry.admins().remove(0);
    assert!(registry.off_reason(admin.id()).is_some(), "it came true");
}

#[test]
fn administrators_are_off_when_the_certificate_that_carries_their_ca_is_deleted() {
    let (registry, root, middle) = administrated(SameKey::AllowActive);
    let renewed = TestCa::self_signed_with(ca_params("root", 5), Arc::clone(&root.key));
    for ca in [&root, &renewed, &middle] {
        ca.register(&registry);
    }
    assert_eq!(admins_off(&registry, &off(&root)), None, "carried on");
    registry.set_status(id(&root), Status::Inactive);
    let removal = Proposal::Removal(Arc::new(renewed.certificate()));
    assert!(admins_off(&registry, &removal).is_some());
    registry.remove(id(&renewed));
    let admin = registry.admins().remove(0);
    assert!(registry.off_reason(admin.id()).is_some(), "it came true");
}

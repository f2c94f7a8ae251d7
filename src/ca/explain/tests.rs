//! What is told of chains, and that it is what the gate decides.

use std::sync::Arc;

use proptest::prelude::*;
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::ca::certificate::to_pem;
use crate::ca::error::PathMember;
use crate::ca::registry::{MAX_PER_SUBJECT, Purpose};
use crate::ca::topology::SameKey;
use crate::testing::{TestCa, TestDevice, ca_params, device_params, now, now_secs, registry};

fn chain(device: &TestDevice, above: &[&TestCa]) -> Chain {
    let pems = above.iter().map(|ca| ca.pem());
    let all: String = std::iter::once(to_pem(&device.der)).chain(pems).collect();
    Chain::from_pem(&all).unwrap()
}

/// The explanation, which must say what the gate says, and change nothing.
fn explain(registry: &Registry, chain: &Chain) -> Explanation {
    let before = format!("{registry:?}");
    let (moment, (leaf, rest)) = (now(), chain.parts());
    let explanation = registry.explain(chain, moment);
    let gate = registry.admit(leaf, rest, moment);
    assert_eq!(
        explanation.decision,
        gate.map(drop).map_err(|refused| *refused)
    );
    let ways = explanation.paths.iter().filter(|path| path.fault.is_none());
    assert_eq!(ways.count() > 0, explanation.decision.is_ok());
    assert_eq!(format!("{registry:?}"), before);
    explanation
}

fn inactivate(registry: &Registry, ca: &TestCa) {
    registry.set_status(ca.certificate().id(), Status::Inactive);
}

fn sn(ca: &TestCa) -> CertSerial {
    ca.certificate().serial().clone()
}

fn refusal(explanation: &Explanation) -> &Refusal {
    &explanation.decision.as_ref().unwrap_err().refusal
}

fn sources(path: &Path) -> Vec<(String, Source)> {
    let step = |step: &Step| (step.facts.subject.clone(), step.source);
    path.steps.iter().map(step).collect()
}

fn of(name: &str, source: Source) -> (String, Source) {
    (format!("CN={name}"), source)
}

#[test]
fn accepted_chain_is_told_with_its_path() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let issuing = root.issue_ca(ca_params("issuing", 2));
    let device = issuing.issue("pump", 3);
    let told = explain(&registry, &chain(&device, &[&issuing, &root]));
    assert_eq!(told.paths.len(), 1);
    assert_eq!(
        sources(&told.paths[0]),
        [
            of("pump", Source::Sent),
            of("issuing", Source::Sent),
            of("root", Source::Registered)
        ]
    );
    let standings: Vec<_> = told.paths[0].steps.iter().map(|it| &it.standing).collect();
    assert_eq!(*standings[0], Standing::Device(Recorded::No));
    assert_eq!(*standings[1], Standing::Unregistered);
    assert!(matches!(
        standings[2],
        Standing::Registered {
            status: Status::Active,
            off: None,
            ..
        }
    ));
    let used: Vec<_> = told.sent.iter().map(|it| it.used).collect();
    assert_eq!(used, [true, true, false], "the root is registered itself");
    // A path that the gate did not come to counts, too.
    issuing.register(&registry);
    let told = explain(&registry, &chain(&device, &[&issuing]));
    assert_eq!(told.paths.len(), 2);
    assert!(told.sent[1].used);
    assert_eq!(told.advice, None);
}

#[test]
fn state_that_refuses_is_named_with_what_would_change_it() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    let issuing = root.issue_ca(ca_params("issuing", 2));
    let renewed = root.issue_ca_with(ca_params("issuing", 3), Arc::clone(&issuing.key));
    for ca in [&root, &issuing] {
        ca.register(&registry);
    }
    let device = issuing.issue("pump", 4);
    let alone = chain(&device, &[]);
    for (off, reason) in [
        (&root, OffReason::Above(sn(&root))),
        (&issuing, OffReason::Own),
    ] {
        inactivate(&registry, off);
        let told = explain(&registry, &alone);
        assert_eq!(
            *refusal(&told),
            Refusal::CaInactive {
                sn: sn(&issuing),
                why: reason
            }
        );
        let command = told.advice.as_ref().unwrap().command().unwrap();
        assert_eq!(command, format!("ca activate {}", sn(off)));
        // Another certificate of the same CA is no way around, and is told as what it is.
        let copy = explain(&registry, &chain(&device, &[&renewed]));
        let copies: Vec<_> = copy.paths.iter().flat_map(|path| &path.steps).collect();
        assert!(
            copies
                .iter()
                .any(|step| matches!(&step.standing, Standing::Copy { off: Some(OffReason::Sibling(by) | OffReason::Above(by)) } if *by == sn(off)))
        );
        registry.set_status(off.certificate().id(), Status::Active);
    }
    let key = DeviceKey {
        issuer: issuing.certificate().key_id(),
        serial: "4".parse().unwrap(),
    };
    registry.set_device(key, Status::Inactive);
    let told = explain(&registry, &alone);
    assert_eq!(*refusal(&told), Refusal::DeviceInactive);
    assert_eq!(
        told.paths[0].steps[0].standing,
        Standing::Device(Recorded::As(Status::Inactive))
    );
    let command = told.advice.unwrap().command().unwrap();
    assert_eq!(command, "device activate 04 --ca 02");
}

#[test]
fn every_path_has_its_own_reason() {
    let registry = registry(SameKey::Deny);
    let (a, b, c) = (
        TestCa::root("a", 1),
        TestCa::root("b", 2),
        TestCa::root("c", 3),
    );
    let mut old = ca_params("d", 4);
    old.not_before = OffsetDateTime::now_utc() - Duration::days(2);
    old.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    let d = TestCa::self_signed(old);
    for ca in [&a, &b, &c, &d] {
        ca.register(&registry);
    }
    // One issuing CA, signed by four.
    let issuing = a.issue_ca(ca_params("issuing", 10));
    let crossed = |by: &TestCa, serial| {
        by.issue_ca_with(ca_params("issuing", serial), Arc::clone(&issuing.key))
    };
    let mut narrow = ca_params("issuing", 12);
    narrow.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let by_c = c.issue_ca_with(narrow, Arc::clone(&issuing.key));
    let (by_b, by_d) = (crossed(&b, 11), crossed(&d, 13));
    let device = issuing.issue("pump", 20);
    let all = chain(&device, &[&issuing, &by_b, &by_c, &by_d]);
    inactivate(&registry, &a);
    let reasons = |told: &Explanation| {
        let mut reasons: Vec<_> = told
            .paths
            .iter()
            .map(|path| {
                let top = path.steps.last().unwrap().facts.subject.clone();
                (top, path.fault.as_ref().map(PathFault::reason))
            })
            .collect();
        reasons.sort();
        reasons
    };
    let told = explain(&registry, &all);
    assert!(told.decision.is_ok(), "over b");
    let expected = |b: Option<&'static str>| {
        vec![
            ("CN=a".to_owned(), Some("ca_inactive")),
            ("CN=b".to_owned(), b),
            ("CN=c".to_owned(), Some("misused")),
            ("CN=d".to_owned(), Some("ca_outside_validity")),
        ]
    };
    assert_eq!(reasons(&told), expected(None));
    assert_eq!(told.paths[0].fault, None, "the one that is accepted first");
    inactivate(&registry, &b);
    assert_eq!(
        reasons(&explain(&registry, &all)),
        expected(Some("ca_inactive"))
    );
}

#[test]
fn chain_that_leads_nowhere_is_told_where_it_ends() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    let (middle, namesake) = (
        root.issue_ca(ca_params("middle", 2)),
        TestCa::root("root", 3),
    );
    let device = middle.issue("pump", 4);
    let missing = |told: &Explanation| match (&told.decision, &told.advice) {
        (Err(refused), Some(Advice::Register(missing))) => {
            assert_eq!(refused.refusal, Refusal::UnknownCa);
            missing.clone()
        }
        other => panic!("{other:?}"),
    };
    let nothing = |subject: &str| Missing {
        subject: format!("CN={subject}"),
        sent: false,
        highest: None,
        namesakes: Vec::new(),
    };
    let told = explain(&registry, &chain(&device, &[]));
    assert_eq!(missing(&told), nothing("middle"));
    assert!(told.paths.is_empty());
    namesake.register(&registry);
    let recorded = DeviceKey {
        issuer: namesake.certificate().key_id(),
        serial: "4".parse().unwrap(),
    };
    registry.set_device(recorded, Status::Inactive);
    // The order in which they were sent does not count, nor what does not belong to them.
    let other = TestCa::root("other", 9);
    for above in [&[&middle][..], &[&other, &middle]] {
        let told = explain(&registry, &chain(&device, above));
        let expected = Missing {
            highest: Some("CN=middle".to_owned()),
            namesakes: vec![sn(&namesake)],
            ..nothing("root")
        };
        assert_eq!(missing(&told), expected);
        let fault = told.paths[0].fault.as_ref().unwrap();
        assert_eq!(*fault, PathFault::NotSigned);
        // It may be made up: what is recorded under its number is nobody's business.
        let device = &told.paths[0].steps[0].standing;
        assert_eq!(*device, Standing::Device(Recorded::Unknown));
        assert!(!told.sent.iter().any(|it| it.used && it != &told.sent[0]));
    }
    let told = explain(&registry, &chain(&device, &[&root, &middle]));
    assert!(
        missing(&told).sent,
        "the root was sent, and is not registered"
    );
    assert_eq!(missing(&told).highest.unwrap(), "CN=middle");
    // A registered CA that only a certificate that does not belong here names.
    other.register(&registry);
    let decoy = other.issue_ca(ca_params("decoy", 10));
    let told = explain(&registry, &chain(&device, &[&decoy]));
    assert_eq!(told.paths[0].fault, Some(PathFault::NotReached));
}

#[test]
fn faults_of_certificates_are_told_in_the_words_of_the_gate() {
    let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
    root.register(&registry);
    let mut expired = device_params("pump", 2);
    expired.not_before = OffsetDateTime::now_utc() - Duration::days(2);
    expired.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    let told = explain(&registry, &chain(&root.issue_device(expired), &[]));
    assert_eq!(
        *refusal(&told),
        Refusal::OutsideValidity(PathMember::Device)
    );
    assert_eq!(told.advice, Some(Advice::RenewDevice));
    assert_eq!(
        told.paths[0].fault,
        Some(PathFault::Refused(refusal(&told).clone()))
    );
    assert!(!told.paths[0].steps[0].facts.is_current(now_secs()));

    let mut unfit = device_params("pump", 3);
    unfit.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    let told = explain(&registry, &chain(&root.issue_device(unfit), &[]));
    assert_eq!(refusal(&told).reason(), "misused");
    assert_eq!(told.advice, Some(Advice::Reissue));

    let device = root.issue("pump", 4);
    let many: Vec<_> = (0..9).map(|_| &root).collect();
    let told = explain(&registry, &chain(&device, &many));
    assert_eq!(*refusal(&told), Refusal::ChainTooLarge);
    assert_eq!(told.advice, Some(Advice::SendLess));
    assert_eq!(told.sent.len(), 10);
}

#[test]
fn paths_are_looked_at_up_to_a_limit() {
    let registry = registry(SameKey::Deny);
    let (a, b) = (TestCa::root("a", 1), TestCa::root("b", 2));
    let mut serial = 100;
    for name in ["a", "b"] {
        for _ in 0..MAX_PER_SUBJECT {
            serial += 1;
            TestCa::root(name, serial).register(&registry);
        }
    }
    let decoy = b.issue_ca(ca_params("decoy", 3));
    let told = explain(&registry, &chain(&a.issue("pump", 4), &[&decoy]));
    assert_eq!(told.paths.len(), MOST_CANDIDATES);
    assert_eq!(told.left_out, 2 * MAX_PER_SUBJECT - MOST_CANDIDATES);
}

#[test]
fn administrator_s_certificate_is_explained_like_any() {
    let (registry, admin) = (registry(SameKey::Deny), TestCa::root("admin", 1));
    let certificate = Arc::new(admin.certificate());
    registry
        .insert(certificate, Purpose::Admin, Status::Active)
        .unwrap();
    let told = explain(&registry, &chain(&admin.issue("operator", 2), &[]));
    assert!(told.decision.is_ok());
}

#[test]
fn text_that_is_no_chain_is_refused() {
    let root = TestCa::root("root", 1);
    let fault = |text: &str| Chain::from_pem(text).unwrap_err().to_string();
    for nothing in ["", "hello", "-----BEGIN CERTIFICATE-----\n"] {
        assert!(!fault(nothing).is_empty(), "{nothing:?}");
    }
    let key = root.key.serialize_pem();
    assert!(fault(&(root.pem() + &key)).contains("never a key"));
    assert!(fault(&root.pem().repeat(Chain::MOST + 1)).contains("more than"));
    assert!(fault(&"x".repeat(Chain::MOST_OCTETS + 1)).contains("octets"));
    assert!(Chain::from_pem(&root.pem().repeat(Chain::MOST)).is_ok());
}

proptest! {
    /// Certificates with changed, missing or additional octets, in any order.
    #[test]
    fn hostile_chains_are_explained_as_the_gate_decides(
        order in proptest::collection::vec(0usize..4, 1..12),
        changes in proptest::collection::vec((0usize..4, 0usize..1200, any::<u8>()), 0..6),
    ) {
        thread_local!(static WORLD: (Registry, Vec<Vec<u8>>) = {
            let (registry, root) = (registry(SameKey::Deny), TestCa::root("root", 1));
            root.register(&registry);
            let issuing = root.issue_ca(ca_params("issuing", 2));
            let ders = vec![
                issuing.issue("pump", 3).der.to_vec(),
                issuing.der.to_vec(),
                root.der.to_vec(),
                root.issue("other", 4).der.to_vec(),
            ];
            (registry, ders)
        });
        WORLD.with(|(registry, ders)| {
            let mut ders = ders.clone();
            for (which, place, octet) in changes {
                let der = &mut ders[which];
                match place < der.len() {
                    true => der[place] ^= octet,
                    false => der.push(octet),
                }
            }
            let pem: String = order.iter().map(|which| to_pem(&ders[*which])).collect();
            explain(registry, &Chain::from_pem(&pem).unwrap());
        });
    }
}

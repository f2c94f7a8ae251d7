//! Changes in any order.

use std::sync::Arc;

use proptest::prelude::*;

use super::admit;
use crate::ca::lifecycle::Status;
use crate::ca::registry::{MAX_PER_SUBJECT, Purpose, Registry, RegistryError};
use crate::ca::topology::SameKey;
use crate::testing::{TestCa, TestDevice, ca_params, registry};

/// The authorities of the property test: two roots, two intermediates below the first, one
/// below the second intermediate, and a renewal of the first root.
struct Forest {
    cas: Vec<TestCa>,
    devices: Vec<(TestDevice, Vec<usize>)>,
}

impl Forest {
    fn new() -> Self {
        let a = TestCa::root("a", 1);
        let b = TestCa::root("b", 2);
        let a1 = a.issue_ca(ca_params("a1", 3));
        let a2 = a.issue_ca(ca_params("a2", 4));
        let a21 = a2.issue_ca(ca_params("a21", 5));
        let renewed = TestCa::self_signed_with(ca_params("a", 6), Arc::clone(&a.key));
        let devices = vec![
            (a.issue("d", 10), vec![0, 5]),
            (b.issue("d", 11), vec![1]),
            (a1.issue("d", 12), vec![2, 0, 5]),
            (a2.issue("d", 13), vec![3, 0, 5]),
            (a21.issue("d", 14), vec![4, 3, 0, 5]),
        ];
        Self {
            cas: vec![a, b, a1, a2, a21, renewed],
            devices,
        }
    }
}

/// Two roots that sign each other, an authority that both of them sign, one below that, and
/// another certificate of it.
fn crossed() -> Vec<TestCa> {
    let (a, b) = (TestCa::root("a", 1), TestCa::root("b", 2));
    let a_by_b = b.issue_ca_with(ca_params("a", 3), Arc::clone(&a.key));
    let b_by_a = a.issue_ca_with(ca_params("b", 4), Arc::clone(&b.key));
    let middle = a.issue_ca(ca_params("middle", 5));
    let middle_by_b = b.issue_ca_with(ca_params("middle", 6), Arc::clone(&middle.key));
    let last = middle.issue_ca(ca_params("last", 7));
    let renewed = middle.issue_ca_with(ca_params("last", 8), Arc::clone(&last.key));
    vec![a, b, a_by_b, b_by_a, middle, middle_by_b, last, renewed]
}

fn set(registry: &Registry, ca: &TestCa, state: Option<Status>) {
    let certificate = Arc::new(ca.certificate());
    match state {
        Some(status) => {
            let set = registry.insert(certificate, Purpose::Device, status);
            set.unwrap();
        }
        None => drop(registry.remove(certificate.id())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the changes before: what is off, and why, follows from what is registered now.
    #[test]
    fn any_order_of_changes_tells_the_same_causes(
        steps in proptest::collection::vec((0usize..8, 0u8..3), 1..40),
        allow in any::<bool>(),
    ) {
        thread_local!(static CAS: Vec<TestCa> = crossed());
        CAS.with(|cas| {
            let policy = if allow { SameKey::AllowActive } else { SameKey::Deny };
            let changed = registry(policy);
            let mut states: [Option<Status>; 8] = [None; 8];
            for (index, step) in steps {
                let ca = &cas[index];
                states[index] = match step {
                    0 => Some(Status::Active),
                    1 => Some(Status::Inactive),
                    _ => None,
                };
                set(&changed, ca, states[index]);
            }
            let fresh = registry(policy);
            for (ca, state) in cas.iter().zip(states) {
                set(&fresh, ca, state);
            }
            for ca in cas {
                let id = ca.certificate().id();
                prop_assert_eq!(changed.off_reason(id), fresh.off_reason(id), "{:?}", states);
            }
            Ok(())
        })?;
    }

    /// Loaded at once is what it is one after the other, whoever comes first, and later changes find
    /// it so.
    #[test]
    fn loaded_at_once_is_as_inserted_one_by_one(
        states in proptest::collection::vec((0usize..6, any::<bool>()), 0..8),
        before in proptest::collection::vec(0usize..6, 0..2),
        same_key in prop_oneof![Just(SameKey::Deny), Just(SameKey::AllowActive)],
        then in 0usize..6,
    ) {
        thread_local!(static FOREST: Forest = Forest::new());
        FOREST.with(|forest| {
            let status = |active| if active { Status::Active } else { Status::Inactive };
            let all: Vec<_> = states
                .iter()
                .map(|(index, active)| {
                    (Arc::new(forest.cas[*index].certificate()), status(*active))
                })
                .collect();
            let [loaded, inserted] = [registry(same_key), registry(same_key)];
            for index in before {
                forest.cas[index].register(&loaded);
                forest.cas[index].register(&inserted);
            }
            loaded.load(&all, Purpose::Device).unwrap();
            for (certificate, status) in all {
                inserted.insert(certificate, Purpose::Device, status).unwrap();
            }
            for change in [None, Some(Status::Inactive), Some(Status::Active)] {
                let id = forest.cas[then].certificate().id();
                if let Some(status) = change {
                    // In whatever order.
                    let [by_load, by_insert] = [&loaded, &inserted].map(|it| {
                        let mut denied = it.set_status(id, status).denied;
                        denied.sort();
                        denied
                    });
                    prop_assert_eq!(by_load, by_insert);
                }
                prop_assert_eq!(loaded.len(), inserted.len());
                for ca in &forest.cas {
                    let id = ca.certificate().id();
                    prop_assert_eq!(loaded.status(id), inserted.status(id));
                    prop_assert_eq!(loaded.off_reason(id), inserted.off_reason(id));
                    prop_assert_eq!(loaded.above(id), inserted.above(id));
                }
                let chain: Vec<_> = [2, 3, 4].map(|i: usize| &forest.cas[i]).to_vec();
                for (device, _) in &forest.devices {
                    let [by_load, by_insert] =
                        [&loaded, &inserted].map(|it| admit(it, device, &chain).map_err(drop));
                    prop_assert_eq!(by_load.is_ok(), by_insert.is_ok());
                }
            }
            Ok(())
        })?;
    }

    /// Whatever the order of changes: a device is admitted exactly if some CA at or above its
    /// issuer is registered, and no registered CA at or above it, as far as the registered
    /// certificates tell, is inactive.
    #[test]
    fn any_order_of_changes_admits_what_the_rule_says(
        steps in proptest::collection::vec((0usize..6, 0u8..4), 1..40)
    ) {
        thread_local!(static FOREST: Forest = Forest::new());
        FOREST.with(|forest| {
            let registry = registry(SameKey::Deny);
            let mut states: [Option<Status>; 6] = [None; 6];
            for (index, step) in steps {
                let ca = &forest.cas[index];
                match step {
                    0 | 1 if states[index].is_none() => {
                        ca.register(&registry);
                        states[index] = Some(Status::Active);
                    }
                    0 | 1 => {
                        let status = if step == 0 { Status::Active } else { Status::Inactive };
                        registry.set_status(ca.certificate().id(), status);
                        states[index] = Some(status);
                    }
                    2 if states[index].is_some() => {
                        registry.set_status(ca.certificate().id(), Status::Inactive);
                        states[index] = Some(Status::Inactive);
                    }
                    _ => {
                        registry.remove(ca.certificate().id());
                        states[index] = None;
                    }
                }
                let chain: Vec<_> = [2, 3, 4].map(|i: usize| &forest.cas[i]).to_vec();
                for (device, above) in &forest.devices {
                    let registered = |i: &usize| states[*i].is_some();
                    let off = |i: &usize| states[*i] == Some(Status::Inactive);
                    let rule = above.iter().any(registered) && !above.iter().any(off);
                    // What is above `a21` is known over a registered `a2` only: nobody can say
                    // who signed a CA that nobody registered.
                    let apart = above.first() == Some(&4)
                        && states[4] == Some(Status::Active)
                        && states[3].is_none();
                    let admitted = admit(&registry, device, &chain).is_ok();
                    prop_assert_eq!(admitted, rule || apart, "{:?} {:?}", above, states);
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn what_cannot_be_registered_is_named_and_nothing_is_loaded() {
    let registry = registry(SameKey::Deny);
    let admin = TestCa::root("admin", 1);
    let certificate = |ca: &TestCa| Arc::new(ca.certificate());
    registry
        .insert(certificate(&admin), Purpose::Admin, Status::Active)
        .unwrap();
    let other = TestCa::root("other", 2);
    let renewed = TestCa::self_signed_with(ca_params("admin", 3), Arc::clone(&admin.key));
    let all = [&other, &renewed].map(|ca| (certificate(ca), Status::Active));
    assert_eq!(
        registry.load(&all, Purpose::Device),
        Err((renewed.certificate().id(), RegistryError::OtherPurpose))
    );
    let of_one_name: Vec<_> = (0..=MAX_PER_SUBJECT)
        .map(|number| TestCa::root("one name", number as u64))
        .map(|ca| (certificate(&ca), Status::Active))
        .collect();
    let last = of_one_name.last().map(|(ca, _)| ca.id()).unwrap();
    assert_eq!(
        registry.load(&of_one_name, Purpose::Device),
        Err((last, RegistryError::TooManyWithSubject))
    );
    assert_eq!(registry.len(), 1);
    assert!(admit(&registry, &other.issue("d", 4), &[]).is_err());
}

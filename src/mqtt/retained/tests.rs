use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::mqtt::topics::TopicLimits;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, &TopicLimits::default()).unwrap()
}

fn topic(text: &str) -> TopicName {
    TopicName::parse(text, &TopicLimits::default()).unwrap()
}

fn found(retained: &Retained<u32>, text: &str, now: u64) -> Vec<u32> {
    let mut found = retained.matching(&filter(text), now);
    found.sort_unstable();
    found
}

#[test]
fn the_last_message_of_a_topic_is_kept_until_it_is_cleared() {
    let retained = Retained::new(RetainedLimits::default());
    retained.set(&topic("a/b"), 1, 10, None, 0).unwrap();
    retained.set(&topic("a/b"), 2, 20, None, 0).unwrap();
    assert_eq!((retained.len(), retained.bytes()), (1, 23));
    assert_eq!(found(&retained, "a/b", 0), [2]);
    assert!(retained.clear(&topic("a/b")));
    assert!(!retained.clear(&topic("a/b")));
    assert!(found(&retained, "#", 0).is_empty());
    assert_eq!((retained.len(), retained.bytes()), (0, 0));
}

#[test]
fn wildcards_find_what_the_standard_says() {
    let retained = Retained::new(RetainedLimits::default());
    for (number, text) in ["a", "a/b", "a/", "/a", "$SYS", "$SYS/a", "a/$b"]
        .iter()
        .enumerate()
    {
        retained
            .set(&topic(text), number as u32, 1, None, 0)
            .unwrap();
    }
    assert_eq!(found(&retained, "#", 0), [0, 1, 2, 3, 6]);
    assert_eq!(found(&retained, "+", 0), [0]);
    assert_eq!(found(&retained, "+/a", 0), [3]);
    assert_eq!(found(&retained, "a/#", 0), [0, 1, 2, 6]);
    assert_eq!(found(&retained, "a/+", 0), [1, 2, 6]);
    assert_eq!(found(&retained, "$SYS/#", 0), [4, 5]);
    assert_eq!(found(&retained, "$SYS/+", 0), [5]);
    assert_eq!(found(&retained, "/#", 0), [3]);
}

#[test]
fn expired_messages_are_not_shown_and_make_room() {
    let retained = Retained::new(RetainedLimits {
        max_messages: 2,
        max_bytes: 100,
    });
    retained.set(&topic("a"), 1, 1, Some(10), 0).unwrap();
    retained.set(&topic("b"), 2, 1, None, 0).unwrap();
    assert_eq!(found(&retained, "#", 9), [1, 2]);
    assert_eq!(found(&retained, "#", 10), [2]);
    assert_eq!(
        retained.set(&topic("c"), 3, 1, None, 9),
        Err(RetainedError::TooMany { max: 2 })
    );
    retained.set(&topic("c"), 3, 1, None, 10).unwrap();
    assert_eq!(found(&retained, "#", 0), [2, 3]);
    // Replaced by one that does not expire: the old date is forgotten.
    retained.set(&topic("b"), 4, 1, Some(20), 10).unwrap();
    retained.set(&topic("b"), 5, 1, None, 10).unwrap();
    assert_eq!(retained.sweep(u64::MAX), 0);
    assert_eq!(found(&retained, "#", 30), [3, 5]);
}

#[test]
fn a_message_that_does_not_fit_leaves_the_topic_without_one() {
    let retained = Retained::new(RetainedLimits {
        max_messages: 10,
        max_bytes: 10,
    });
    retained.set(&topic("a"), 1, 9, None, 0).unwrap();
    assert_eq!(
        retained.set(&topic("b"), 2, 1, None, 0),
        Err(RetainedError::NoRoom {
            max: 10,
            left: 0,
            got: 2
        })
    );
    assert!(retained.set(&topic("a"), 3, usize::MAX, None, 0).is_err());
    assert_eq!((retained.len(), retained.bytes()), (0, 0));
}

#[test]
fn topics_that_come_and_go_leave_nothing() {
    let retained = Retained::new(RetainedLimits::default());
    let name = |number: u32| topic(&format!("fleet/{}/device-{number}", number % 13));
    for number in 0..50_000 {
        let expires_at = (number % 2 == 0).then_some(u64::from(number));
        retained
            .set(&name(number), number, 100, expires_at, 0)
            .unwrap();
    }
    retained.sweep(u64::MAX);
    assert_eq!(retained.len(), 25_000);
    for number in 0..50_000 {
        assert_eq!(retained.clear(&name(number)), number % 2 == 1);
    }
    let kept = retained.read();
    assert_eq!((kept.messages, kept.bytes, kept.expiries.len()), (0, 0, 0));
    assert_eq!(kept.root.children.capacity(), 0);
}

proptest! {
    #[test]
    fn the_store_agrees_with_a_plain_map(
        steps in proptest::collection::vec(
            ("[ab$]{1,2}(/[ab]?){0,2}", 0_u64..6, 0_u64..8), 0..80),
        filters in proptest::collection::vec("([ab+]|\\$a)(/[ab+]){0,2}(/#)?", 1..10),
    ) {
        let retained = Retained::new(RetainedLimits::default());
        let mut model: BTreeMap<String, (u32, Option<u64>)> = BTreeMap::new();
        for (number, (text, kind, expiry)) in steps.into_iter().enumerate() {
            let number = number as u32;
            if kind == 0 {
                prop_assert_eq!(retained.clear(&topic(&text)), model.remove(&text).is_some());
            } else {
                let expires_at = (kind == 1).then_some(expiry + 1);
                retained.set(&topic(&text), number, 1, expires_at, 0).unwrap();
                model.insert(text, (number, expires_at));
            }
        }
        for text in filters {
            for now in [0, 4, 100] {
                let mut expected: Vec<u32> = model
                    .iter()
                    .filter(|(name, (_, at))| {
                        filter(&text).matches(&topic(name)) && at.is_none_or(|at| now < at)
                    })
                    .map(|(_, (number, _))| *number)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(found(&retained, &text, now), expected);
            }
        }
    }
}

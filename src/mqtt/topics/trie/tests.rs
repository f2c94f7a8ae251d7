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

fn found<T: Copy + Ord>(trie: &FilterTrie<T>, name: &TopicName) -> Vec<T> {
    let mut found = Vec::new();
    trie.visit(name, &mut |value| found.push(*value));
    found.sort_unstable();
    found
}

/// A matcher that shares nothing with the trie: by regular rules over vectors of levels.
fn naive(filter: &[&str], topic: &[&str], first: bool) -> bool {
    if first && topic[0].starts_with('$') && matches!(filter[0], "+" | "#") {
        return false;
    }
    match (filter, topic) {
        (["#"], _) => true,
        ([], []) => true,
        ([wanted, filter @ ..], [level, topic @ ..]) => {
            (*wanted == "+" || wanted == level) && naive(filter, topic, false)
        }
        _ => false,
    }
}

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(""), Just("a"), Just("b"), Just("$c"), Just("ü")]
}

fn filters() -> impl Strategy<Value = String> {
    let levels = proptest::collection::vec(prop_oneof![3 => level(), 2 => Just("+")], 1..5);
    (levels, any::<bool>()).prop_map(|(mut levels, rest)| {
        if rest {
            levels.push("#");
        }
        levels.join("/")
    })
}

fn topics() -> impl Strategy<Value = String> {
    proptest::collection::vec(level(), 1..6).prop_map(|levels| levels.join("/"))
}

proptest! {
    #[test]
    fn trie_agrees_with_the_naive_matcher_while_filters_come_and_go(
        steps in proptest::collection::vec((any::<bool>(), filters()), 0..60),
        names in proptest::collection::vec(topics(), 1..20),
    ) {
        let mut trie = FilterTrie::new();
        let mut model = BTreeMap::new();
        for (number, (add, text)) in steps.iter().enumerate() {
            prop_assume!(!text.is_empty());
            let parsed = filter(text);
            if *add {
                prop_assert_eq!(trie.insert(&parsed, number), model.insert(text.clone(), number));
            } else {
                prop_assert_eq!(trie.remove(&parsed), model.remove(text));
            }
            prop_assert_eq!(trie.get(&parsed), model.get(text));
        }
        prop_assert_eq!(trie.len(), model.len());
        for name in names.iter().filter(|name| !name.is_empty()) {
            let levels: Vec<&str> = name.split('/').collect();
            let mut expected: Vec<usize> = model
                .iter()
                .filter(|(text, _)| naive(&text.split('/').collect::<Vec<_>>(), &levels, true))
                .map(|(_, number)| *number)
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(found(&trie, &topic(name)), expected.clone());
            for text in model.keys() {
                prop_assert_eq!(
                    filter(text).matches(&topic(name)),
                    expected.contains(&model[text])
                );
            }
        }
        for text in model.keys() {
            prop_assert!(trie.remove(&filter(text)).is_some());
        }
        prop_assert_eq!((trie.len(), trie.nodes()), (0, 0));
        prop_assert_eq!(trie.root.literal.capacity(), 0);
    }
}

#[test]
fn a_hundred_thousand_filters_come_and_go_and_leave_nothing() {
    let mut trie = FilterTrie::new();
    trie.insert(&filter("keep/+/this"), 0);
    let nodes = trie.nodes();
    let text = |i: u32| {
        format!(
            "fleet/{}/+/device-{i}/{}",
            i % 97,
            if i.is_multiple_of(3) { "#" } else { "x" }
        )
    };
    for i in 0..100_000 {
        trie.insert(&filter(&text(i)), i);
    }
    assert_eq!(trie.len(), 100_001);
    for i in 0..100_000 {
        assert_eq!(trie.remove(&filter(&text(i))), Some(i));
    }
    assert_eq!((trie.len(), trie.nodes()), (1, nodes));
    assert!(trie.root.literal.capacity() < 16);
    assert_eq!(found(&trie, &topic("keep/a/this")), [0]);
}

#[test]
fn the_deepest_legal_filter_is_handled_without_trouble() {
    let limits = TopicLimits {
        max_levels: 256,
        max_bytes: 65_535,
        ..TopicLimits::default()
    };
    let deepest = TopicFilter::parse(vec!["+"; 256].join("/"), &limits).unwrap();
    let mut trie = FilterTrie::new();
    trie.insert(&deepest, 1);
    let name = TopicName::parse(vec!["a"; 256].join("/"), &limits).unwrap();
    assert_eq!(found(&trie, &name), [1]);
    assert_eq!(trie.remove(&deepest), Some(1));
    assert_eq!(trie.nodes(), 0);
}

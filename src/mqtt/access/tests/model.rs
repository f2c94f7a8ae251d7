//! Every topic up to a depth, over a small alphabet that has a text no rule and no filter has.

use proptest::prelude::*;

use super::super::scope::{self, Level};
use super::*;

const TEXTS: [&str; 3] = ["a", "b", ""];

/// All texts of one to `most` levels out of these.
fn texts(levels: &[&str], most: usize) -> Vec<String> {
    let mut all: Vec<String> = levels.iter().map(ToString::to_string).collect();
    let mut last = all.clone();
    for _ in 1..most {
        let longer = |text: &String| {
            levels
                .iter()
                .map(|level| format!("{text}/{level}"))
                .collect()
        };
        last = last
            .iter()
            .flat_map(|text| -> Vec<String> { longer(text) })
            .collect();
        all.extend(last.clone());
    }
    all
}

fn topics(most: usize) -> Vec<TopicName> {
    let texts = texts(&["a", "b", "", "other"], most).into_iter();
    texts
        .filter(|text| !text.is_empty())
        .map(|text| topic(&text))
        .collect()
}

/// All filters of up to two levels, alone and with `#` after them.
fn filters() -> Vec<TopicFilter> {
    let plain = texts(&["a", "b", "", "+"], 2);
    let open = plain.iter().map(|text| format!("{text}/#"));
    let all = open.chain(plain.iter().cloned()).chain(["#".to_owned()]);
    all.filter(|text| !text.is_empty())
        .map(|text| filter(&text))
        .collect()
}

fn levels(rule: &TopicFilter) -> impl Iterator<Item = Level<'_>> {
    rule.levels().map(|level| match level {
        "+" => Level::Any,
        "#" => Level::Rest,
        text => Level::Text(text),
    })
}

/// What 4.7 says, for one level after the other.
fn matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        ([wanted, filter @ ..], [level, topic @ ..]) => {
            (*wanted == "+" || wanted == level) && matches(filter, topic)
        }
        _ => false,
    }
}

#[test]
fn covering_and_overlapping_are_what_the_topics_say() {
    // With the text that is no topic because it is empty: `/#` matches the level above it, too.
    let (topics, filters) = (texts(&["a", "b", "", "other"], 4), filters());
    // Which topics each filter matches.
    let matched: Vec<Vec<bool>> = filters
        .iter()
        .map(|filter| {
            let filter: Vec<_> = filter.levels().collect();
            let all = topics.iter();
            all.map(|topic| matches(&filter, &topic.split('/').collect::<Vec<_>>()))
                .collect()
        })
        .collect();
    for (rule, of_rule) in filters.iter().zip(&matched) {
        for (topic, &expected) in topics.iter().zip(of_rule) {
            let is = scope::matches(levels(rule), topic);
            assert_eq!(is, expected, "{rule} matches {topic}");
        }
        for (filter, of_filter) in filters.iter().zip(&matched) {
            let pairs = || of_rule.iter().zip(of_filter);
            let covered = pairs().all(|(&rule, &filter)| rule || !filter);
            let is = scope::covers(levels(rule), filter);
            assert_eq!(is, covered, "{rule} covers {filter}");
            let shared = pairs().any(|(&rule, &filter)| rule && filter);
            let is = scope::overlaps(levels(rule), filter);
            assert_eq!(is, shared, "{rule} overlaps {filter}");
        }
    }
}

/// A rule's topic: levels that may be variables, with or without `#` after them.
fn patterns() -> impl Strategy<Value = String> {
    let level = prop_oneof![
        4 => proptest::sample::select(&TEXTS[..]),
        2 => Just("+"),
        2 => Just("${common_name}"),
        2 => Just("${san_dns}"),
        1 => Just("${client_id}${organization}"),
    ];
    (proptest::collection::vec(level, 0..3), any::<bool>()).prop_filter_map(
        "no topic",
        |(mut levels, open)| {
            levels.extend(open.then_some("#"));
            Some(levels.join("/")).filter(|text| !text.is_empty())
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let effect = prop_oneof![Just(Effect::Allow), Just(Effect::Deny)];
    let action = prop_oneof![
        Just(Action::Publish),
        Just(Action::Subscribe),
        Just(Action::Both)
    ];
    let one = (effect, action, patterns());
    let one = one.prop_map(|(effect, action, topic)| rule(effect, action, &topic));
    proptest::collection::vec(one, 0..5)
}

fn clients() -> impl Strategy<Value = Client> {
    let value = || proptest::sample::select(vec!["a", "b", "other", "a/b", "+", "#", "", "$SYS"]);
    (
        proptest::option::of(value()),
        proptest::option::of(value()),
        proptest::collection::vec(value(), 0..4),
        value(),
    )
        .prop_map(|(common_name, organization, hosts, id)| Client {
            common_name,
            organization,
            hosts,
            id,
        })
}

impl Client {
    /// The topics that a rule is about, by putting text in place of the variables.
    fn written_out(&self, rule: &Rule) -> Vec<TopicFilter> {
        let text = rule.topic.to_string();
        let mut all: Vec<Vec<String>> = vec![Vec::new()];
        for level in text.split('/') {
            let options = self.level(level, rule.effect);
            let with = |before: &Vec<String>| {
                let add = |option: &String| [&before[..], std::slice::from_ref(option)].concat();
                options.iter().map(add).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(with).collect();
        }
        let texts = all.into_iter().map(|levels| levels.join("/"));
        texts.map(|text| filter(&text)).collect()
    }

    fn level(&self, level: &str, effect: Effect) -> Vec<String> {
        let one = |value: Option<&str>| value.into_iter().map(str::to_owned).collect();
        let values: Vec<String> = match level {
            "${common_name}" => one(self.common_name),
            "${san_dns}" => self.hosts.iter().map(ToString::to_string).collect(),
            "${client_id}${organization}" => match (self.id, self.organization) {
                ("", _) | (_, None | Some("")) => Vec::new(),
                (id, Some(organization)) => vec![format!("{id}{organization}")],
            },
            text => return vec![text.to_owned()],
        };
        let is_level = |value: &String| !value.is_empty() && !value.contains(['/', '+', '#']);
        let usable: Vec<_> = values
            .iter()
            .filter(|value| is_level(value))
            .cloned()
            .collect();
        match effect {
            Effect::Deny if usable.is_empty() || usable.len() < values.len() => one(Some("+")),
            _ => usable,
        }
    }

    fn verdict(&self, rules: &[Rule], default: Effect, action: Action, at: &TopicName) -> Effect {
        let mut about = rules
            .iter()
            .filter(|rule| rule.action == action || rule.action == Action::Both);
        about
            .find(|rule| {
                self.written_out(rule)
                    .iter()
                    .any(|filter| filter.matches(at))
            })
            .map_or(default, |rule| rule.effect)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The promise of the whole: what a client may subscribe to has no topic that it may not read.
    #[test]
    fn no_topic_that_is_denied_is_delivered_to_a_filter_that_was_allowed(
        rules in rules(), open: bool, client in clients(),
    ) {
        let default = if open { Effect::Allow } else { Effect::Deny };
        let rights = client.rights(&rules, default);
        let topics = topics(3);
        for topic in &topics {
            let publish = client.verdict(&rules, default, Action::Publish, topic);
            prop_assert_eq!(rights.publishes(topic.as_str()), publish == Effect::Allow, "{}", topic);
            let read = client.verdict(&rules, default, Action::Subscribe, topic);
            prop_assert_eq!(rights.reads(topic.as_str()), read == Effect::Allow, "{}", topic);
            // Without wildcards, subscribing is reading.
            prop_assert_eq!(rights.subscribes(topic.as_str()), read == Effect::Allow, "{}", topic);
        }
        for filter in filters() {
            if rights.subscribe(&filter) == Permission::Granted {
                for topic in topics.iter().filter(|topic| filter.matches(topic)) {
                    prop_assert!(rights.reads(topic.as_str()), "{}: {}", filter, topic);
                }
            }
        }
    }
}

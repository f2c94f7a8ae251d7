//! The access rules of an instance, `[[instance.access]]`.

use std::fmt;
use std::str::FromStr;

use super::fault::Faults;
use super::file;
use crate::mqtt::access::rules::{AccessSettings, Action, Effect, Only, Rule};

/// The rules, and what counts where none matches: if that is not said, everything is allowed
/// while there are no rules, and nothing once there are some.
pub(super) fn access(
    faults: &mut Faults,
    key: &str,
    written: &file::Instance,
) -> Option<AccessSettings> {
    let default = match &written.access_default {
        Some(word) => effect(faults, &format!("{key}.access_default"), word),
        None if written.access.is_empty() => Some(Effect::Allow),
        None => Some(Effect::Deny),
    };
    let rules: Vec<Option<Rule>> = (0..)
        .zip(&written.access)
        .map(|(index, written)| rule(faults, &format!("{key}.access[{index}]"), written))
        .collect();
    let rules: Option<Vec<Rule>> = rules.into_iter().collect();
    match AccessSettings::new(rules?, default?) {
        Ok(settings) => Some(settings),
        Err(error) => {
            faults.missing(&format!("{key}.access"), &error.to_string());
            None
        }
    }
}

fn rule(faults: &mut Faults, key: &str, written: &file::AccessRule) -> Option<Rule> {
    let at = |name: &str| format!("{key}.{name}");
    let effect = faults
        .required(&at("effect"), written.effect.as_ref())
        .and_then(|word| effect(faults, &at("effect"), word));
    let action = faults
        .required(&at("action"), written.action.as_ref())
        .and_then(|word| {
            let words = [
                ("publish", Action::Publish),
                ("subscribe", Action::Subscribe),
                ("both", Action::Both),
            ];
            faults.word(&at("action"), word, &words)
        });
    let topic = faults
        .required(&at("topic"), written.topic.as_ref())
        .and_then(|text| faults.parse(&at("topic"), text));
    let cas = only(faults, &at("ca"), written.ca.as_ref());
    let common_names = only(faults, &at("common_name"), written.common_name.as_ref());
    Some(Rule {
        effect: effect?,
        action: action?,
        topic: topic?,
        cas: cas?,
        common_names: common_names?,
    })
}

fn effect(faults: &mut Faults, key: &str, word: &str) -> Option<Effect> {
    let words = [("allow", Effect::Allow), ("deny", Effect::Deny)];
    faults.word(key, word, &words)
}

/// Whom a rule is for. A list without entries would be for nobody, or for everybody: it is a fault.
fn only<T>(faults: &mut Faults, key: &str, written: Option<&Vec<String>>) -> Option<Only<T>>
where
    T: FromStr<Err: fmt::Display>,
{
    let Some(written) = written else {
        return Some(Only::Any);
    };
    if written.is_empty() || written.len() > MAX_ENTRIES {
        let what = format!("must have 1 to {MAX_ENTRIES} entries; leave it out for all clients");
        faults.add(key, format!("{} entries", written.len()), what);
        return None;
    }
    let entries: Vec<Option<T>> = (0..)
        .zip(written)
        .map(|(index, text)| faults.parse(&format!("{key}[{index}]"), text))
        .collect();
    let entries: Option<Vec<T>> = entries.into_iter().collect();
    entries.map(Only::OneOf)
}

/// The most CAs or names that one rule can be for. All are looked at when a client connects.
const MAX_ENTRIES: usize = 100;

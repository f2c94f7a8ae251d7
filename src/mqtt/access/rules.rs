//! The rules as they are written, and what they come to for one client.

use std::collections::HashMap;
use std::sync::Arc;

use super::pattern::{self, Pattern, Template};
use super::scope::{self, Level};
use super::variable::{Extent, Values};
use crate::ca::id::CertSerial;
use crate::mqtt::topics::TopicFilter;
use crate::tls::peer::VerifiedPeer;

/// What a rule says about that which it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It may not be done.
    Deny,
    /// It may be done.
    Allow,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Publishing, wills included.
    Publish,
    /// Subscribing, alone or in a shared group.
    Subscribe,
    /// Both.
    Both,
}

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Only<T> {
    /// For clients of which one of these holds.
    OneOf(Vec<T>),
    /// For all.
    Any,
}

/// One rule, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub effect: Effect,
    /// What it is about.
    pub action: Action,
    /// Which topics it is about.
    pub topic: Pattern,
    /// Serial numbers of the registered CA nearest to the client on the verified path.
    pub cas: Only<CertSerial>,
    /// Common names of the client's certificate.
    pub common_names: Only<String>,
}

/// The rules of a broker: the first that matches counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessSettings {
    rules: Vec<Rule>,
    default: Effect,
}

/// There are more rules than a broker can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there can be at most {MAX_RULES} rules, these are {0}")]
pub struct TooManyRules(pub usize);

/// The most rules a broker can have. Each message that is published may be held against all.
pub const MAX_RULES: usize = 1_000;

impl AccessSettings {
    /// These rules, in this order, and what counts where none of them matches.
    ///
    /// # Errors
    /// If there are more than [`MAX_RULES`].
    pub fn new(rules: Vec<Rule>, default: Effect) -> Result<Self, TooManyRules> {
        match rules.len() {
            0..=MAX_RULES => Ok(Self { rules, default }),
            count => Err(TooManyRules(count)),
        }
    }
}

impl Default for AccessSettings {
    /// No rules: everything is allowed outside of the broker's own topics.
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            default: Effect::Allow,
        }
    }
}

impl<T> Only<T> {
    fn holds(&self, is: impl FnMut(&T) -> bool) -> bool {
        match self {
            Self::OneOf(wanted) => wanted.iter().any(is),
            Self::Any => true,
        }
    }
}

impl Rule {
    fn is_for(&self, peer: &VerifiedPeer) -> bool {
        self.cas.holds(|sn| sn == peer.ca_sn())
            && self
                .common_names
                .holds(|name| peer.common_name() == Some(name))
    }

    fn is_about(&self, action: Action) -> bool {
        self.action == action || self.action == Action::Both
    }
}

/// The rules of a broker, prepared: each level with variables once, however many rules have it.
#[derive(Debug)]
pub(super) struct RuleSet {
    rules: Vec<Prepared>,
    templates: Vec<Template>,
    default: Effect,
}

#[derive(Debug)]
struct Prepared {
    rule: Rule,
    levels: Vec<PreparedLevel>,
}

#[derive(Debug)]
enum PreparedLevel {
    Text(Box<str>),
    Any,
    Rest,
    /// The place of its template.
    Template(usize),
}

/// What the rules come to for one client. What is the same for all is shared.
#[derive(Debug)]
pub(super) struct Applied {
    set: Arc<RuleSet>,
    /// The places of the rules that can match, in order.
    rules: Box<[u16]>,
    /// What each template is for this client.
    values: Box<[Values]>,
}

/// Which rule decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The rule at this place.
    Rule(Effect, usize),
    /// None of them.
    Default(Effect),
}

impl RuleSet {
    pub(super) fn new(settings: AccessSettings) -> Self {
        let mut places = HashMap::new();
        let rules = settings.rules.into_iter().map(|rule| Prepared {
            levels: prepare(&rule.topic, &mut places),
            rule,
        });
        let rules = rules.collect();
        let mut templates: Vec<(Template, usize)> = places.into_iter().collect();
        templates.sort_by_key(|&(_, place)| place);
        Self {
            rules,
            templates: templates
                .into_iter()
                .map(|(template, _)| template)
                .collect(),
            default: settings.default,
        }
    }

    /// The rules for this client.
    pub(super) fn apply(self: &Arc<Self>, peer: &VerifiedPeer, client_id: &str) -> Applied {
        let values: Box<[Values]> = self
            .templates
            .iter()
            .map(|template| template.values(peer, client_id))
            .collect();
        let rules = (0_u16..).zip(&self.rules);
        Applied {
            rules: rules
                .filter(|(_, prepared)| prepared.rule.is_for(peer) && prepared.can_match(&values))
                .map(|(place, _)| place)
                .collect(),
            values,
            set: self.clone(),
        }
    }
}

impl Prepared {
    /// Without a value that can be used, a rule that allows matches nothing.
    fn can_match(&self, values: &[Values]) -> bool {
        self.rule.effect == Effect::Deny
            || self.levels.iter().all(|level| match level {
                PreparedLevel::Template(place) => values
                    .get(*place)
                    .is_some_and(|values| !values.usable.is_empty()),
                PreparedLevel::Text(_) | PreparedLevel::Any | PreparedLevel::Rest => true,
            })
    }

    fn levels<'a>(&'a self, values: &'a [Values]) -> impl Iterator<Item = Level<'a>> {
        self.levels.iter().map(move |level| match level {
            PreparedLevel::Text(text) => Level::Text(text),
            PreparedLevel::Any => Level::Any,
            PreparedLevel::Rest => Level::Rest,
            PreparedLevel::Template(place) => match (values.get(*place), self.rule.effect) {
                (Some(values), Effect::Allow) => Level::OneOf(&values.usable),
                (Some(values), Effect::Deny) if values.extent == Extent::Complete => {
                    Level::OneOf(&values.usable)
                }
                // It has to deny what the values that cannot be used would have stood for.
                (_, Effect::Deny) => Level::Any,
                (None, Effect::Allow) => Level::OneOf(&[]),
            },
        })
    }
}

impl Applied {
    /// The verdict on publishing to, or reading, this topic: that of the first rule that matches.
    pub(super) fn on_topic(&self, action: Action, topic: &str) -> Verdict {
        self.first(action, |rule| {
            scope::matches(rule.levels(&self.values), topic)
        })
    }

    /// The verdict on subscribing to this filter. It is allowed only if reading each topic that
    /// it matches is.
    ///
    /// A rule that allows decides if it is about all of these topics, a rule that denies if it is
    /// about any of them. So none of them was denied by an earlier rule when one allows them all.
    pub(super) fn on_filter(&self, filter: &TopicFilter) -> Verdict {
        self.first(Action::Subscribe, |rule| {
            let levels = rule.levels(&self.values);
            match rule.rule.effect {
                Effect::Allow => scope::covers(levels, filter),
                Effect::Deny => scope::overlaps(levels, filter),
            }
        })
    }

    fn first(&self, action: Action, mut matches: impl FnMut(&Prepared) -> bool) -> Verdict {
        let places = self.rules.iter().map(|&place| usize::from(place));
        for place in places {
            if let Some(prepared) = self.set.rules.get(place)
                && prepared.rule.is_about(action)
                && matches(prepared)
            {
                return Verdict::Rule(prepared.rule.effect, place);
            }
        }
        Verdict::Default(self.set.default)
    }
}

impl PartialEq for Applied {
    /// Whether the same rules come to the same.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.set, &other.set)
            && self.rules == other.rules
            && self.values == other.values
    }
}

/// The levels of a topic, each template as the place it has among all templates.
fn prepare(topic: &Pattern, places: &mut HashMap<Template, usize>) -> Vec<PreparedLevel> {
    let levels = topic.levels().iter();
    levels
        .map(|level| match level {
            pattern::Level::Text(text) => PreparedLevel::Text(text.clone()),
            pattern::Level::Any => PreparedLevel::Any,
            pattern::Level::Rest => PreparedLevel::Rest,
            pattern::Level::Template(template) => {
                let next = places.len();
                PreparedLevel::Template(*places.entry(template.clone()).or_insert(next))
            }
        })
        .collect()
}

//! Policies in the form of the vendor's resource access management (RAM): who may do what, where.
//!
//! A policy is JSON: `{"Version": "1", "Statement": [{"Effect": "Allow", "Action": ["mq:Get*"],
//! "Resource": ["acs:mq:*:*:post-cn-1"]}]}`. `*` stands for any characters, `?` for one. What no
//! statement allows is denied, and a statement that denies goes over all that allow.

use serde::Deserialize;
use wildmatch::WildMatch;

use crate::control::grant::Need;

/// A policy that was read and understood whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    statements: Vec<Statement>,
    text: String,
}

/// Why a text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than the vendor's limit.
    #[error("it has {0} octets, the most is {MAX_POLICY_OCTETS}")]
    TooLong(usize),
    /// Not JSON of this form. Elements that are not understood are refused, since to pass over
    /// one could allow what it was to forbid.
    #[error(
        "it is not a policy: {0}; it has Version \"1\" and Statement, and each statement has \
         Effect (Allow or Deny), Action and Resource and nothing else"
    )]
    Form(String),
    /// Another version of the language.
    #[error("Version must be \"1\", this is {0:?}")]
    Version(String),
    /// More statements or patterns than anybody can oversee.
    #[error("it has too many statements or patterns, the most is {MAX_PATTERNS}")]
    TooMany,
    /// A statement about nothing.
    #[error("a statement has no Action or no Resource; \"*\" names all of them")]
    Empty,
    /// No action of this service.
    #[error("the action {0:?} must be \"*\" or begin with \"mq:\"")]
    Action(String),
    /// The name of an operation that is authorized under another name: it would match nothing.
    #[error("no call needs the action {written:?}; the operation is authorized as {meant:?}")]
    OtherName {
        /// What stands in the policy.
        written: String,
        /// What was meant.
        meant: &'static str,
    },
    /// A denial of an action that no call needs: it would deny nothing.
    #[error(
        "no call needs the action {0:?}, so that to deny it denies nothing; docs/access-keys.md lists \
         the actions"
    )]
    DeniesNothing(String),
    /// No resource of this service.
    #[error(
        "the resource {0:?} must be \"*\" or have the form acs:mq:REGION:ACCOUNT:INSTANCE, each \
         part of which may be \"*\""
    )]
    Resource(String),
}

#[derive(Debug, Clone, PartialEq)]
struct Statement {
    effect: Effect,
    actions: Vec<WildMatch>,
    resources: Vec<WildMatch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Effect {
    Deny,
    Allow,
}

/// What a policy says of one action on one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement denies it, or none allows it.
    Denied,
    /// A statement allows it, and none denies it.
    Allowed,
}

/// The document as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    version: String,
    statement: OneOrMore<WrittenStatement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct WrittenStatement {
    effect: Effect,
    action: OneOrMore<String>,
    resource: OneOrMore<String>,
}

/// The language lets a list of one be written without its brackets.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

impl Policy {
    /// Read a policy document.
    ///
    /// # Errors
    /// What about it is not understood; nothing is passed over.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY_OCTETS {
            return Err(PolicyError::TooLong(text.len()));
        }
        let written: Written = strict(text)?;
        if written.version != "1" {
            return Err(PolicyError::Version(written.version));
        }
        let statements = written
            .statement
            .into_vec()
            .into_iter()
            .map(Statement::new)
            .collect::<Result<Vec<_>, _>>()?;
        let patterns: usize = statements
            .iter()
            .map(|it| 1 + it.actions.len() + it.resources.len())
            .sum();
        if patterns > MAX_PATTERNS {
            return Err(PolicyError::TooMany);
        }
        Ok(Self {
            statements,
            text: text.to_owned(),
        })
    }

    /// The document it was read from.
    pub fn as_json(&self) -> &str {
        &self.text
    }

    /// Whether `action` is allowed on `resource`.
    pub fn decide(&self, action: &str, resource: &str) -> Decision {
        // The language compares actions without regard to case.
        let action = action.to_ascii_lowercase();
        let mut decision = Decision::Denied;
        for statement in &self.statements {
            let applies = statement.actions.iter().any(|it| it.matches(&action))
                && statement.resources.iter().any(|it| it.matches(resource));
            match statement.effect {
                Effect::Deny if applies => return Decision::Denied,
                Effect::Allow if applies => decision = Decision::Allowed,
                Effect::Deny | Effect::Allow => {}
            }
        }
        decision
    }
}

/// Read the document, and say at which place it is not one.
fn strict(text: &str) -> Result<Written, PolicyError> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| PolicyError::Form(error.to_string()))?;
    // An untagged list does not say which element is not understood: read each on its own.
    if let Some(statements) = value.get("Statement").and_then(|it| it.as_array()) {
        for (number, statement) in (1..).zip(statements) {
            if let Err(error) = WrittenStatement::deserialize(statement) {
                return Err(PolicyError::Form(format!("statement {number}: {error}")));
            }
        }
    }
    serde_json::from_str(text).map_err(|error| PolicyError::Form(error.to_string()))
}

impl Statement {
    fn new(written: WrittenStatement) -> Result<Self, PolicyError> {
        let (actions, resources) = (written.action.into_vec(), written.resource.into_vec());
        if actions.is_empty() || resources.is_empty() {
            return Err(PolicyError::Empty);
        }
        for action in &actions {
            check_action(written.effect, action)?;
        }
        for resource in &resources {
            check_resource(resource)?;
        }
        Ok(Self {
            effect: written.effect,
            actions: actions
                .iter()
                .map(|it| WildMatch::new(&it.to_ascii_lowercase()))
                .collect(),
            resources: resources.iter().map(|it| WildMatch::new(it)).collect(),
        })
    }
}

fn check_action(effect: Effect, action: &str) -> Result<(), PolicyError> {
    let name = match action {
        "*" => return Ok(()),
        _ => match action.split_once(':') {
            Some((service, name)) if service.eq_ignore_ascii_case("mq") && !name.is_empty() => name,
            _ => return Err(PolicyError::Action(shown(action))),
        },
    };
    match OTHER_NAMES
        .iter()
        .find(|(operation, _)| operation.eq_ignore_ascii_case(name))
    {
        None => match effect {
            // The vendor's other actions do no harm here.
            Effect::Allow => Ok(()),
            Effect::Deny => denies_something(action),
        },
        Some((_, meant)) => Err(PolicyError::OtherName {
            written: shown(action),
            meant,
        }),
    }
}

/// A misspelt denial would go unnoticed until it is too late.
fn denies_something(action: &str) -> Result<(), PolicyError> {
    let pattern = WildMatch::new(&action.to_ascii_lowercase());
    let mut known = Need::ALL.iter().flat_map(|need| need.actions());
    match known.any(|action| pattern.matches(&action.to_ascii_lowercase())) {
        true => Ok(()),
        false => Err(PolicyError::DeniesNothing(shown(action))),
    }
}

fn check_resource(resource: &str) -> Result<(), PolicyError> {
    let parts: Vec<_> = resource.split(':').collect();
    match parts.as_slice() {
        ["*"] => Ok(()),
        ["acs", "mq", rest @ ..] if rest.len() == 3 && !rest.contains(&"") => Ok(()),
        _ => Err(PolicyError::Resource(shown(resource))),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Operations whose action has another name than they have.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("RegisterCaCertificate", "mq:RegisterCa"),
    ("InactivateCaCertificate", "mq:UnregisterCaCertificate"),
    (
        "InactivateDeviceCertificate",
        "mq:UnregisterDeviceCertificate",
    ),
    ("QuerySessionByClientId", "mq:MqttInstanceAccess"),
    ("ExplainCertificate", "mq:GetCaCertificate"),
    ("PreviewCaCertificateChange", "mq:GetCaCertificate"),
    ("PreviewDeviceCertificateChange", "mq:GetDeviceCertificate"),
];

/// The vendor's limit for a policy document.
pub const MAX_POLICY_OCTETS: usize = 6 * 1024;

const MAX_PATTERNS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RESOURCE: &str = "acs:mq:cn-hangzhou:1000:post-cn-1";

    fn policy(statements: &str) -> Policy {
        Policy::from_json(&format!(
            r#"{{"Version": "1", "Statement": [{statements}]}}"#
        ))
        .unwrap()
    }

    fn statement(effect: &str, action: &str, resource: &str) -> String {
        format!(r#"{{"Effect": "{effect}", "Action": "{action}", "Resource": "{resource}"}}"#)
    }

    #[test]
    fn denial_that_would_deny_nothing_is_refused() {
        let read = |effect: &str, action: &str| {
            let statement = statement(effect, action, "*");
            Policy::from_json(&format!(
                r#"{{"Version": "1", "Statement": [{statement}]}}"#
            ))
        };
        let misspelt = "mq:UnregisterCaCertficate";
        let refused = PolicyError::DeniesNothing(misspelt.to_owned());
        assert_eq!(read("Deny", misspelt), Err(refused));
        assert!(read("Deny", "mq:Nothing*").is_err());
        for action in ["*", "mq:*", "MQ:unregister*", "mq:mqttinstanceaccess"] {
            assert!(read("Deny", action).is_ok(), "{action}");
        }
        // An action of the vendor's that we have not is no danger.
        assert!(read("Allow", "mq:QueryMqttTraceDevice").is_ok());
    }

    #[test]
    fn what_nothing_allows_is_denied() {
        let only_reads = policy(&statement("Allow", "mq:Get*", "*"));
        assert_eq!(
            only_reads.decide("mq:GetCaCertificate", RESOURCE),
            Decision::Allowed
        );
        assert_eq!(
            only_reads.decide("mq:DeleteCaCertificate", RESOURCE),
            Decision::Denied
        );
        assert_eq!(policy("").decide("mq:Get", RESOURCE), Decision::Denied);
    }

    #[test]
    fn denial_wins_whatever_the_order() {
        let deny = statement("Deny", "mq:UnregisterCaCertificate", "*");
        let allow = statement("Allow", "*", "*");
        for statements in [format!("{deny},{allow}"), format!("{allow},{deny}")] {
            let policy = policy(&statements);
            let of = |action| policy.decide(action, RESOURCE);
            assert_eq!(of("mq:UnregisterCaCertificate"), Decision::Denied);
            assert_eq!(of("mq:unregistercacertificate"), Decision::Denied);
            assert_eq!(of("mq:ActiveCaCertificate"), Decision::Allowed);
        }
    }

    #[test]
    fn wildcards_reach_as_far_as_they_say() {
        for (pattern, matches) in [
            ("*", true),
            ("acs:mq:*:*:*", true),
            ("acs:mq:cn-hangzhou:1000:post-cn-1", true),
            ("acs:mq:cn-*:1000:post-cn-?", true),
            ("acs:mq:*:*:post-cn-", false),
            ("acs:mq:*:*:POST-CN-1", false),
            ("acs:mq:cn-beijing:*:*", false),
            ("acs:mq:*:100:*", false),
        ] {
            let policy = policy(&statement("Allow", "MQ:getca*", pattern));
            let decision = policy.decide("mq:GetCaCertificate", RESOURCE);
            assert_eq!(decision == Decision::Allowed, matches, "{pattern}");
        }
    }

    #[test]
    fn lists_may_be_written_without_brackets() {
        let text = r#"{"Version":"1","Statement":{"Effect":"Allow","Action":["mq:A","mq:B"],"Resource":"*"}}"#;
        let policy = Policy::from_json(text).unwrap();
        assert_eq!(policy.decide("mq:B", RESOURCE), Decision::Allowed);
        assert_eq!(policy.as_json(), text);
    }

    #[test]
    fn what_is_not_understood_is_refused_and_named() {
        let with = |effect: &str, action: &str, resource: &str| {
            let one = statement(effect, action, resource);
            format!(r#"{{"Version": "1", "Statement": [{one}]}}"#)
        };
        for (text, says) in [
            (String::new(), "EOF"),
            ("[]".to_owned(), "not a policy"),
            (
                r#"{"Version": "2", "Statement": []}"#.to_owned(),
                "must be \"1\"",
            ),
            (r#"{"Statement": []}"#.to_owned(), "Version"),
            (
                r#"{"Version": "1", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {}}]}"#.to_owned(),
                "statement 1: unknown field `Condition`",
            ),
            (
                r#"{"Version": "1", "Statement": [{"Effect": "Allow", "NotAction": "*", "Resource": "*"}]}"#.to_owned(),
                "NotAction",
            ),
            (
                r#"{"Version": "1", "Statement": [], "Statement": []}"#.to_owned(),
                "duplicate field",
            ),
            (with("allow", "*", "*"), "unknown variant"),
            (with("Allow", "ecs:Get", "*"), "\"ecs:Get\""),
            (with("Allow", "mq:", "*"), "\"mq:\""),
            (with("Allow", "mq:InactivateCaCertificate", "*"), "mq:UnregisterCaCertificate"),
            (with("Deny", "mq:QuerySessionByClientId", "*"), "mq:MqttInstanceAccess"),
            (with("Deny", "mq:registercacertificate", "*"), "mq:RegisterCa"),
            (with("Allow", "*", "post-cn-1"), "acs:mq:REGION"),
            (with("Allow", "*", "acs:mq:*:*"), "acs:mq:REGION"),
            (with("Allow", "*", "acs:mq:::x"), "acs:mq:REGION"),
            (" ".repeat(MAX_POLICY_OCTETS + 1), "the most is 6144"),
            (
                r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":[],"Resource":"*"}]}"#.to_owned(),
                "no Action",
            ),
        ] {
            let error = Policy::from_json(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{text:.100}: {error}");
        }
        let many = vec![r#""mq:A""#; MAX_PATTERNS].join(",");
        let many = format!(
            r#"{{"Version":"1","Statement":[{{"Effect":"Allow","Action":[{many}],"Resource":"*"}}]}}"#
        );
        assert_eq!(Policy::from_json(&many), Err(PolicyError::TooMany));
    }

    /// A pattern that some action fits.
    fn pattern() -> impl Strategy<Value = String> {
        (
            proptest::sample::select(Need::ALL),
            3_usize..30,
            3_usize..30,
        )
            .prop_map(|(need, cut, any)| {
                let mut pattern: Vec<char> = need.action().chars().collect();
                if let Some(letter) = pattern.get_mut(any) {
                    *letter = '?';
                }
                if cut < pattern.len() {
                    pattern.truncate(cut);
                    pattern.push('*');
                }
                pattern.into_iter().collect()
            })
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in ".{0,200}") {
            let _ = Policy::from_json(&text);
        }

        /// A policy may never allow more because a denial was added to it.
        #[test]
        fn a_denial_only_takes_away(
            actions in proptest::collection::vec(pattern(), 1..5),
            denied in pattern(),
            asked in proptest::sample::select(Need::ALL),
        ) {
            let asked = asked.action();
            let allows: Vec<_> = actions.iter().map(|it| statement("Allow", it, "*")).collect();
            let before = policy(&allows.join(","));
            let deny = statement("Deny", &denied, "*");
            let after = policy(&format!("{},{deny}", allows.join(",")));
            if after.decide(asked, RESOURCE) == Decision::Allowed {
                prop_assert_eq!(before.decide(asked, RESOURCE), Decision::Allowed);
                let only_deny = policy(&statement("Allow", &denied, "*"));
                prop_assert_eq!(only_deny.decide(asked, RESOURCE), Decision::Denied);
            }
        }
    }
}

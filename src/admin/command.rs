//! The second door: JSON commands of administrators that are clients of the broker.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Value, json};
use tracing::Instrument;

use crate::admin::action;
use crate::admin::errors::{ApiError, Code};
use crate::admin::operations::Outcome;
use crate::admin::params::Params;
use crate::admin::service::{self, Call, Service};
use crate::ca::id::{AccountId, InstanceId};
use crate::ca::registry::Purpose;
use crate::control::{Caller, Door, Grant, Principal};
use crate::mqtt::control_channel::CommandHandler;
use crate::tls::peer::VerifiedPeer;

/// Which account owns an instance.
pub type Owner = Arc<dyn Fn(&InstanceId) -> Option<AccountId> + Send + Sync>;

/// Carries out commands through the same operations as HTTP.
///
/// A command is `{"Action": "InactivateCaCertificate", "MqttInstanceId": "...", "Sn": "..."}`,
/// with strings only. The answer is the body that HTTP would have, with `Action` and
/// `HttpStatus` (a number) in it.
pub struct Commands {
    service: Arc<Service>,
    owner: Owner,
}

/// The longest command, in octets.
pub const MAX_COMMAND: usize = 256 * 1024;

impl Commands {
    /// Carry out commands with `service`.
    pub fn new(service: Arc<Service>, owner: Owner) -> Self {
        Self { service, owner }
    }

    async fn answer(&self, peer: &VerifiedPeer, address: SocketAddr, command: &[u8]) -> Value {
        let request_id = match service::request_id() {
            Ok(id) => id,
            Err(error) => return error_without_id(&error),
        };
        let mut call = Call::begin(request_id, Door::Mqtt);
        let span = tracing::info_span!(
            "api",
            request.id = %request_id,
            action = tracing::field::Empty,
            ca.sn = %peer.ca_sn(),
            device.sn = %peer.serial(),
            client.addr = %address,
        );
        async {
            let mut named = None;
            let outcome = self
                .carry_out(&mut call, &mut named, peer, address, command)
                .await;
            let reply = self.service.finish(&call, outcome);
            let mut body = reply.body;
            if let Value::Object(fields) = &mut body {
                fields.insert("HttpStatus".to_owned(), json!(reply.status));
                fields.insert("Action".to_owned(), json!(named.unwrap_or_default()));
            }
            body
        }
        .instrument(span)
        .await
    }

    async fn carry_out(
        &self,
        call: &mut Call,
        named: &mut Option<String>,
        peer: &VerifiedPeer,
        address: SocketAddr,
        command: &[u8],
    ) -> Outcome {
        let (action, params) = parse(command)?;
        let action = named.insert(action);
        let account = (self.owner)(peer.instance())
            .filter(|_| peer.purpose() == Purpose::Admin)
            .ok_or(Code::PermissionCheckFailed)?;
        let counted = self
            .service
            .count(call, &account, action, action::VERSION)?;
        let caller = Caller {
            principal: Principal::Certificate {
                ca_sn: peer.ca_sn().clone(),
                serial: peer.serial().clone(),
                issuer: peer.admitted().device().issuer,
                not_after: peer.admitted().path_not_after(),
            },
            account,
            grant: Grant::Everything,
            door: Door::Mqtt,
            address: Some(address),
            request_id: call.request_id,
        };
        self.service
            .run(call, counted, caller, action, params)
            .await
    }
}

impl CommandHandler for Commands {
    fn handle(
        &self,
        peer: &VerifiedPeer,
        address: SocketAddr,
        command: Bytes,
    ) -> Pin<Box<dyn Future<Output = Bytes> + Send + '_>> {
        let peer = peer.clone();
        Box::pin(async move {
            let answer = self.answer(&peer, address, &command).await;
            Bytes::from(answer.to_string())
        })
    }
}

/// The action and the other fields of a command.
fn parse(command: &[u8]) -> Result<(String, Params), ApiError> {
    let refuse = |detail: String| ApiError::with_detail(Code::ParameterCheckFailed, detail);
    if command.len() > MAX_COMMAND {
        return Err(refuse(format!(
            "A command has at most {MAX_COMMAND} octets."
        )));
    }
    let Flat(mut params) = serde_json::from_slice(command).map_err(|error| {
        refuse(format!(
            "A command is a JSON object whose values are strings: {error}."
        ))
    })?;
    match params.remove("Action") {
        None => Err(Code::MissingAction.into()),
        Some(action) if action.len() > 64 => Err(refuse("Action is too long.".to_owned())),
        Some(action) => Ok((action, params)),
    }
}

/// An object of strings without nesting, each name once.
struct Flat(Params);

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Flat;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Flat, A::Error> {
                let mut params = Params::default();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    params.insert(name, value).map_err(A::Error::custom)?;
                }
                Ok(Flat(params))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

fn error_without_id(error: &ApiError) -> Value {
    json!({ "RequestId": "", "Code": error.code.as_str(), "Message": error.message(), "HttpStatus": 500 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_read() {
        let (action, params) =
            parse(br#"{"Sn": "00f2", "Action": "GetCaCertificate", "MqttInstanceId": "i"}"#)
                .unwrap();
        assert_eq!(action, "GetCaCertificate");
        assert_eq!(params.canonical(), "MqttInstanceId=i&Sn=00f2");
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let long = format!(r#"{{"Action": "x", "Sn": "{}"}}"#, "a".repeat(MAX_COMMAND));
        let many: Vec<_> = (0..=Params::MOST).map(|n| format!(r#""{n}":"""#)).collect();
        let many = format!("{{{}}}", many.join(","));
        for bad in [
            "",
            "null",
            "[]",
            "\"Action\"",
            r#"{"Action": 1}"#,
            r#"{"Action": "x", "Sn": {"a": "b"}}"#,
            r#"{"Action": "x", "Sn": ["a"]}"#,
            r#"{"Action": "x", "Sn": "1", "Sn": "2"}"#,
            r#"{"Action": "x"} {}"#,
            r#"{"Action": "x""#,
            &long,
            &many,
        ] {
            let error = parse(bad.as_bytes()).unwrap_err();
            assert_eq!(error.code, Code::ParameterCheckFailed, "{:.60}", bad);
        }
        assert_eq!(parse(b"{}").unwrap_err().code, Code::MissingAction);
        assert!(parse(&[0xff, 0xfe]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn hostile_commands_never_panic(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = parse(&octets);
        }
    }
}

//! What a caller may do: the actions that operations need, and what a key or certificate grants.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::control::policy::{Decision, Policy};

/// Needed besides the operation's own action, by most of them.
const INSTANCE_ACCESS: &str = "mq:MqttInstanceAccess";

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident = $action:expr;)*) => {
        /// What an operation needs, by the vendor's names of actions.
        ///
        /// Four are not named like their operation: that stands so in the vendor's documentation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Need {
            $($(#[$doc])* $name,)*
        }

        impl Need {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The action as policies name it.
            pub const fn action(self) -> &'static str {
                match self {
                    $(Self::$name => $action,)*
                }
            }
        }
    };
}

needs! {
    /// A register code.
    GetRegisterCode = "mq:GetRegisterCode";
    /// RegisterCaCertificate.
    RegisterCa = "mq:RegisterCa";
    /// Show a CA.
    GetCaCertificate = "mq:GetCaCertificate";
    /// List the CAs.
    ListCaCertificate = "mq:ListCaCertificate";
    /// Switch a CA on.
    ActiveCaCertificate = "mq:ActiveCaCertificate";
    /// InactivateCaCertificate.
    UnregisterCaCertificate = "mq:UnregisterCaCertificate";
    /// Delete a CA.
    DeleteCaCertificate = "mq:DeleteCaCertificate";
    /// List the devices.
    ListDeviceCertificate = "mq:ListDeviceCertificate";
    /// List the devices of one CA.
    ListDeviceCertificateByCaSn = "mq:ListDeviceCertificateByCaSn";
    /// Show a device.
    GetDeviceCertificate = "mq:GetDeviceCertificate";
    /// Switch a device on.
    ActiveDeviceCertificate = "mq:ActiveDeviceCertificate";
    /// InactivateDeviceCertificate.
    UnregisterDeviceCertificate = "mq:UnregisterDeviceCertificate";
    /// Forget a device.
    DeleteDeviceCertificate = "mq:DeleteDeviceCertificate";
    /// End a client's connection.
    CloseConnection = "mq:CloseConnection";
    /// Ask whether a client is connected.
    QuerySessionByClientId = INSTANCE_ACCESS;
    /// Ask it of several clients.
    BatchQuerySessionByClientIds = "mq:BatchQuerySessionByClientIds";
    /// See the sessions.
    ListSessions = "mq:ListSessions";
    /// See the instance in the list of instances.
    ListInstances = "mq:ListInstances";
    /// Import a list of revoked certificates.
    ImportCrl = "mq:ImportCrl";
    /// See the lists.
    ListCrls = "mq:ListCrls";
    /// Delete a list.
    DeleteCrl = "mq:DeleteCrl";
    /// Say what is demanded of the lists of a CA.
    SetCrlPolicy = "mq:SetCrlPolicy";
}

impl Need {
    /// All actions it needs.
    pub fn actions(self) -> impl Iterator<Item = &'static str> {
        // The vendor's documentation names the second one for every operation but these.
        let also = match self {
            Self::UnregisterDeviceCertificate
            | Self::CloseConnection
            | Self::QuerySessionByClientId
            | Self::BatchQuerySessionByClientIds
            | Self::ListInstances => None,
            Self::GetRegisterCode
            | Self::RegisterCa
            | Self::GetCaCertificate
            | Self::ListCaCertificate
            | Self::ActiveCaCertificate
            | Self::UnregisterCaCertificate
            | Self::DeleteCaCertificate
            | Self::ListDeviceCertificate
            | Self::ListDeviceCertificateByCaSn
            | Self::GetDeviceCertificate
            | Self::ActiveDeviceCertificate
            | Self::DeleteDeviceCertificate
            | Self::ListSessions
            | Self::ImportCrl
            | Self::ListCrls
            | Self::DeleteCrl
            | Self::SetCrlPolicy => Some(INSTANCE_ACCESS),
        };
        std::iter::once(self.action()).chain(also)
    }
}

/// What a caller may do on the instances of its account. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Grant {
    /// What the policy of an access key allows, as long as the key is good.
    Key(Arc<KeyGrant>),
    /// Everything.
    Everything,
}

/// What an access key grants, until it is revoked.
#[derive(Debug)]
pub struct KeyGrant {
    policy: Option<Policy>,
    revoked: AtomicBool,
}

/// Why a grant does not reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacking {
    /// The key was disabled, deleted or given another policy after the call was signed.
    Revoked,
    /// The policy does not allow this action.
    Action(&'static str),
}

impl KeyGrant {
    /// What `policy` allows; everything if there is none.
    pub fn new(policy: Option<Policy>) -> Self {
        Self {
            policy,
            revoked: AtomicBool::new(false),
        }
    }

    /// Grant nothing from now on, also to calls that are under way.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    /// The policy, if it has one.
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }
}

impl Grant {
    /// Whether it reaches for what is needed on this resource
    /// (`acs:mq:REGION:ACCOUNT:INSTANCE`).
    ///
    /// # Errors
    /// What it lacks.
    pub fn check(&self, need: Need, resource: &str) -> Result<(), Lacking> {
        let key = match self {
            Self::Everything => return Ok(()),
            Self::Key(key) => key,
        };
        if key.revoked.load(Ordering::Acquire) {
            return Err(Lacking::Revoked);
        }
        let Some(policy) = &key.policy else {
            return Ok(());
        };
        for action in need.actions() {
            if policy.decide(action, resource) == Decision::Denied {
                return Err(Lacking::Action(action));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCE: &str = "acs:mq:cn-hangzhou:1000:post-cn-1";

    fn key(actions: &str) -> Arc<KeyGrant> {
        let text = format!(
            r#"{{"Version": "1", "Statement": {{"Effect": "Allow", "Action": [{actions}], "Resource": "*"}}}}"#
        );
        Arc::new(KeyGrant::new(Some(Policy::from_json(&text).unwrap())))
    }

    #[test]
    fn both_actions_are_needed_where_the_documentation_names_both() {
        let narrow = Grant::Key(key(
            r#""mq:ListCaCertificate", "mq:UnregisterDeviceCertificate""#,
        ));
        assert_eq!(
            narrow.check(Need::ListCaCertificate, RESOURCE),
            Err(Lacking::Action("mq:MqttInstanceAccess"))
        );
        assert_eq!(
            narrow.check(Need::UnregisterDeviceCertificate, RESOURCE),
            Ok(())
        );
        let access = Grant::Key(key(r#""mq:MqttInstanceAccess""#));
        assert_eq!(access.check(Need::QuerySessionByClientId, RESOURCE), Ok(()));
        let close = Grant::Key(key(r#""mq:CloseConnection""#));
        assert_eq!(close.check(Need::CloseConnection, RESOURCE), Ok(()));
        assert_eq!(
            close.check(Need::BatchQuerySessionByClientIds, RESOURCE),
            Err(Lacking::Action("mq:BatchQuerySessionByClientIds"))
        );
        let both = Grant::Key(key(r#""mq:ListCaCertificate", "mq:MqttInstanceAccess""#));
        assert_eq!(both.check(Need::ListCaCertificate, RESOURCE), Ok(()));
        assert_eq!(
            both.check(Need::RegisterCa, RESOURCE),
            Err(Lacking::Action("mq:RegisterCa"))
        );
    }

    #[test]
    fn revoked_key_grants_nothing() {
        for key in [key(r#""*""#), Arc::new(KeyGrant::new(None))] {
            let grant = Grant::Key(Arc::clone(&key));
            assert_eq!(grant.check(Need::GetRegisterCode, RESOURCE), Ok(()));
            key.revoke();
            assert_eq!(
                grant.check(Need::GetRegisterCode, RESOURCE),
                Err(Lacking::Revoked)
            );
        }
    }
}

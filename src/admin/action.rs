//! The operations there are, by the names that the vendor gave them.

use crate::control::Door;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// One operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action { $($(#[$doc])* $name,)* }

        impl Action {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

actions! {
    /// A code that proves possession of a CA's key.
    GetRegisterCode;
    /// Register a CA.
    RegisterCaCertificate;
    /// Show a CA.
    GetCaCertificate;
    /// List the CAs.
    ListCaCertificate;
    /// Switch a CA on.
    ActiveCaCertificate;
    /// Switch a CA off.
    InactivateCaCertificate;
    /// Delete a CA and its devices.
    DeleteCaCertificate;
    /// List the devices of the instance.
    ListDeviceCertificate;
    /// List the devices of one CA.
    ListDeviceCertificateByCaSn;
    /// Show a device.
    GetDeviceCertificate;
    /// Switch a device on.
    ActiveDeviceCertificate;
    /// Switch a device off.
    InactivateDeviceCertificate;
    /// Forget a device.
    DeleteDeviceCertificate;
    /// Make an access key; on the host only.
    CreateAccessKey;
    /// List the access keys; on the host only.
    ListAccessKeys;
    /// Switch an access key off or on, or change its policy; on the host only.
    UpdateAccessKey;
    /// Delete an access key; on the host only.
    DeleteAccessKey;
}

impl Action {
    /// The operation of this name. Names are case-sensitive.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|action| action.name() == name)
    }

    /// Whether it changes nothing; the vendor's SDKs send it with GET.
    pub fn is_read(self) -> bool {
        match self {
            Self::GetRegisterCode
            | Self::GetCaCertificate
            | Self::ListCaCertificate
            | Self::ListDeviceCertificate
            | Self::ListDeviceCertificateByCaSn
            | Self::GetDeviceCertificate
            | Self::ListAccessKeys => true,
            Self::RegisterCaCertificate
            | Self::ActiveCaCertificate
            | Self::InactivateCaCertificate
            | Self::DeleteCaCertificate
            | Self::ActiveDeviceCertificate
            | Self::InactivateDeviceCertificate
            | Self::DeleteDeviceCertificate
            | Self::CreateAccessKey
            | Self::UpdateAccessKey
            | Self::DeleteAccessKey => false,
        }
    }

    /// Whether there is such an operation behind this door. Access keys are not the vendor's
    /// operations, and not for the network.
    pub fn is_open_to(self, door: Door) -> bool {
        match self {
            Self::CreateAccessKey
            | Self::ListAccessKeys
            | Self::UpdateAccessKey
            | Self::DeleteAccessKey => match door {
                Door::Http | Door::Mqtt => false,
                Door::Host | Door::System => true,
            },
            _ => true,
        }
    }
}

/// The version of the API that the operations belong to.
pub const VERSION: &str = "2020-04-20";

/// Whether the vendor has an operation of this name that this program has not.
pub fn is_unsupported(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "AddCustomAuthConnectBlack",
        "AddCustomAuthIdentity",
        "AddCustomAuthPermission",
        "ApplyToken",
        "BatchQuerySessionByClientIds",
        "CloseConnection",
        "CreateGroupId",
        "DeleteCustomAuthConnectBlack",
        "DeleteCustomAuthIdentity",
        "DeleteCustomAuthPermission",
        "DeleteGroupId",
        "DisasterDowngrade",
        "DisasterRecovery",
        "GetDeviceCredential",
        "ListDeviceCredentialClientId",
        "ListGroupId",
        "ListInstances",
        "ListTagResources",
        "QueryCustomAuthConnectBlack",
        "QueryCustomAuthIdentity",
        "QueryCustomAuthPermission",
        "QueryMqttTraceDevice",
        "QueryMqttTraceMessageOfClient",
        "QueryMqttTraceMessagePublish",
        "QueryMqttTraceMessageSubscribe",
        "QuerySessionByClientId",
        "QueryToken",
        "RefreshDeviceCredential",
        "RegisterDeviceCredential",
        "RevokeToken",
        "SendMessage",
        "SetSniConfig",
        "TagResources",
        "UnRegisterDeviceCredential",
        "UntagResources",
        "UpdateCustomAuthIdentity",
        "UpdateCustomAuthPermission",
    ];
    NAMES.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_operations() {
        assert_eq!(Action::ALL.len(), 17);
        for action in Action::ALL {
            assert_eq!(Action::find(action.name()), Some(*action));
            assert!(!is_unsupported(action.name()));
        }
        assert_eq!(Action::find("inactivatecacertificate"), None);
        assert!(is_unsupported("CloseConnection"));
        assert!(is_unsupported("AddCustomAuthConnectBlack"));
        assert!(is_unsupported("UpdateCustomAuthPermission"));
    }
}

//! The operations there are, by the names that the vendor gave them; `ListSessions` is ours.

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
    /// End the connection of a client.
    CloseConnection;
    /// Ask whether a client is connected.
    QuerySessionByClientId;
    /// Ask it of several clients.
    BatchQuerySessionByClientIds;
    /// List the sessions.
    ListSessions;
    /// List the instances.
    ListInstances;
}

impl Action {
    /// The operation of this name. Names are case-sensitive.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|action| action.name() == name)
    }

    /// The parameter that names the instance, if the operation is about one.
    pub const fn instance_parameter(self) -> Option<&'static str> {
        match self {
            Self::GetRegisterCode
            | Self::RegisterCaCertificate
            | Self::GetCaCertificate
            | Self::ListCaCertificate
            | Self::ActiveCaCertificate
            | Self::InactivateCaCertificate
            | Self::DeleteCaCertificate
            | Self::ListDeviceCertificate
            | Self::ListDeviceCertificateByCaSn
            | Self::GetDeviceCertificate
            | Self::ActiveDeviceCertificate
            | Self::InactivateDeviceCertificate
            | Self::DeleteDeviceCertificate
            | Self::ListSessions => Some("MqttInstanceId"),
            Self::CloseConnection
            | Self::QuerySessionByClientId
            | Self::BatchQuerySessionByClientIds => Some("InstanceId"),
            Self::ListInstances => None,
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
        "ListTagResources",
        "QueryCustomAuthConnectBlack",
        "QueryCustomAuthIdentity",
        "QueryCustomAuthPermission",
        "QueryMqttTraceDevice",
        "QueryMqttTraceMessageOfClient",
        "QueryMqttTraceMessagePublish",
        "QueryMqttTraceMessageSubscribe",
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

/// What there is in place of an operation of the vendor's that this program has not.
pub fn in_place_of(name: &str) -> Option<&'static str> {
    (name == "SetSniConfig").then_some(
        "It names certificates of the vendor's certificate service. Server certificates and the names they serve are set in the configuration file here: tls_certificate and tls_key of the [[instance]].",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_operations() {
        assert_eq!(Action::ALL.len(), 18);
        for action in Action::ALL {
            assert_eq!(Action::find(action.name()), Some(*action));
            assert!(!is_unsupported(action.name()));
        }
        assert_eq!(Action::find("inactivatecacertificate"), None);
        assert!(is_unsupported("SetSniConfig") && in_place_of("SetSniConfig").is_some());
        assert!(is_unsupported("SendMessage") && in_place_of("SendMessage").is_none());
        assert!(is_unsupported("AddCustomAuthConnectBlack"));
        assert!(is_unsupported("UpdateCustomAuthPermission"));
    }
}

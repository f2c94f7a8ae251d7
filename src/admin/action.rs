//! The operations there are, by the names that the vendor gave them.

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
}

impl Action {
    /// The operation of this name. Names are case-sensitive.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|action| action.name() == name)
    }
}

/// What becomes of a call if it cannot be proved that it is not a repeated one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenUnproved {
    /// It may let somebody in, or undo a denial.
    Refuse,
    /// It denies or reads: a full disk must keep nobody from that.
    CarryOut,
}

impl Action {
    /// What becomes of a call that cannot be proved to be new.
    pub const fn when_unproved(self) -> WhenUnproved {
        match self {
            Self::GetRegisterCode
            | Self::RegisterCaCertificate
            | Self::ActiveCaCertificate
            | Self::DeleteCaCertificate
            | Self::ActiveDeviceCertificate
            | Self::DeleteDeviceCertificate => WhenUnproved::Refuse,
            Self::InactivateCaCertificate
            | Self::InactivateDeviceCertificate
            | Self::GetCaCertificate
            | Self::ListCaCertificate
            | Self::ListDeviceCertificate
            | Self::ListDeviceCertificateByCaSn
            | Self::GetDeviceCertificate => WhenUnproved::CarryOut,
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
        assert_eq!(Action::ALL.len(), 13);
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

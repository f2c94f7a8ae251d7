//! The operations there are, by the names that the vendor gave them; `ListSessions`,
//! `ExplainCertificate`, those that begin with `Preview`, and those on CRLs, schedules and access keys
//! are ours.

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
    /// Import a list of revoked certificates.
    ImportCrl;
    /// List the lists of revoked certificates.
    ListCrls;
    /// Delete a list of revoked certificates.
    DeleteCrl;
    /// Say what is demanded of the lists of a CA.
    SetCrlPolicy;
    /// Say whether a chain of certificates would be let in, and why not.
    ExplainCertificate;
    /// Say what a change of a CA would cut.
    PreviewCaCertificateChange;
    /// Say what a change of a device would cut.
    PreviewDeviceCertificateChange;
    /// Have a CA switched off or on at a time.
    ScheduleCaCertificateChange;
    /// List the changes that are to be made.
    ListSchedules;
    /// Cancel a change that is to be made.
    CancelSchedule;
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
            | Self::QuerySessionByClientId
            | Self::BatchQuerySessionByClientIds
            | Self::ListSessions
            | Self::ListInstances
            | Self::ListCrls
            | Self::ExplainCertificate
            | Self::PreviewCaCertificateChange
            | Self::PreviewDeviceCertificateChange
            | Self::ListSchedules
            | Self::ListAccessKeys => true,
            Self::RegisterCaCertificate
            | Self::ActiveCaCertificate
            | Self::InactivateCaCertificate
            | Self::DeleteCaCertificate
            | Self::ActiveDeviceCertificate
            | Self::InactivateDeviceCertificate
            | Self::DeleteDeviceCertificate
            | Self::CloseConnection
            | Self::ImportCrl
            | Self::DeleteCrl
            | Self::SetCrlPolicy
            | Self::ScheduleCaCertificateChange
            | Self::CancelSchedule
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
            | Self::ImportCrl
            | Self::ListCrls
            | Self::DeleteCrl
            | Self::SetCrlPolicy
            | Self::ExplainCertificate
            | Self::PreviewCaCertificateChange
            | Self::PreviewDeviceCertificateChange
            | Self::ScheduleCaCertificateChange
            | Self::ListSchedules
            | Self::CancelSchedule
            | Self::ListSessions => Some("MqttInstanceId"),
            Self::CloseConnection
            | Self::QuerySessionByClientId
            | Self::BatchQuerySessionByClientIds => Some("InstanceId"),
            Self::CreateAccessKey
            | Self::ListAccessKeys
            | Self::UpdateAccessKey
            | Self::DeleteAccessKey
            | Self::ListInstances => None,
        }
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
            | Self::DeleteDeviceCertificate
            // One list may let in what the one before it revoked.
            | Self::ImportCrl
            | Self::DeleteCrl
            | Self::SetCrlPolicy
            // It may plan to let in, or keep a denial from coming.
            | Self::ScheduleCaCertificateChange
            | Self::CancelSchedule
            // Not for the network at all.
            | Self::CreateAccessKey
            | Self::UpdateAccessKey
            | Self::DeleteAccessKey => WhenUnproved::Refuse,
            Self::InactivateCaCertificate
            | Self::CloseConnection
            | Self::QuerySessionByClientId
            | Self::BatchQuerySessionByClientIds
            | Self::ListSessions
            | Self::ListInstances
            | Self::ListCrls
            | Self::ListAccessKeys
            | Self::ExplainCertificate
            | Self::PreviewCaCertificateChange
            | Self::PreviewDeviceCertificateChange
            | Self::ListSchedules
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
        assert_eq!(Action::ALL.len(), 32);
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

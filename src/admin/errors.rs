//! What the API says when it refuses: one table of codes, texts and statuses.

use serde_json::{Value, json};

use crate::admin::action::Action;
use crate::ca::id::RequestId;
use crate::control::ControlError;

/// Which of the vendor's two lists of HTTP statuses is used. Clients go by the code; the
/// status only selects the class of the exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatusProfile {
    /// What each operation's own page says.
    #[default]
    Documented,
    /// The later notice "adjustment of HTTP status codes".
    Adjusted,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $documented:literal, $adjusted:literal, $message:literal;)*) => {
        /// All error codes that are ever sent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as it is sent.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The vendor's text.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }

            /// HTTP status where the operation's page says nothing else: documented, adjusted.
            const fn statuses(self) -> (u16, u16) {
                match self { $(Self::$name => ($documented, $adjusted),)* }
            }
        }
    };
}

codes! {
    /// A parameter of the operation is missing or wrong.
    ParameterFieldCheckFailed = "ParameterFieldCheckFailed", 400, 400, "Failed to validate the parameters. The parameters may be missing or invalid.";
    /// No such CA.
    FindCaBySnError = "FindCaBySnError", 500, 400, "Failed to find the CA by the SN. Please check sn is valid.";
    /// No such device.
    FindDeviceBySnError = "FindDeviceBySnError", 500, 400, "Failed to find the device certificate by the SN. Please check sn is valid";
    /// No such instance.
    MqttInstanceNotFound = "MqttInstanceNotFound", 500, 400, "Specified instance is not found";
    /// The instance belongs to another account.
    MqttOwnerCheckError = "MqttOwnerCheckError", 500, 403, "Failed to validate the instance permission";
    /// A policy forbids the call.
    PermissionCheckFailed = "PermissionCheckFailed", 403, 403, "Failed to verify API permissions.";
    /// The instance's own permissions forbid the call.
    InstancePermissionCheckFailed = "InstancePermissionCheckFailed", 400, 400, "An error occurred while validating the permissions of the instance. Please verify the account that created the instance and its permissions settings.";
    /// The register code is not one of the instance's.
    RegisterCodeError = "RegisterCodeError", 500, 400, "Register code error in verification certificate.";
    /// The register code has been used.
    RegisterCodeUsed = "RegisterCodeUsed", 500, 401, "Register code has been used.";
    /// The CAs cannot be counted.
    GetCaNumError = "GetCaNumError", 500, 401, "Failed to get ca num. Try again later.";
    /// The instance has as many CAs as it may have.
    CaNumExceed = "CaNumExceed", 500, 401, "CA certificate num exceed.";
    /// A certificate is not what it must be.
    CertificateContentError = "CertificateContentError", 500, 401, "Certificate content error, please check ca/verification certificate content. BasicConstraints extension should be set to true in CA certificate.";
    /// The serial number is registered.
    SnNotUnique = "SnNotUnique", 500, 401, "Sn is not unique in global.";
    /// Something failed here.
    InternalError = "InternalError", 500, 417, "An error occurred while processing your request. Try again later.";
    /// Too much at once.
    SystemOverFlow = "SystemOverFlow", 500, 403, "An error occurred while processing your request. Please try again.";
    /// The vendor has the operation, this program has not.
    ApiNotSupport = "ApiNotSupport", 404, 404, "The specified API is not supported.";
    /// The request's parameters cannot be read.
    ParameterCheckFailed = "ParameterCheckFailed", 400, 400, "An error occurred while validating the parameters. The parameters may be missing or invalid.";

    /// No such access key.
    AccessKeyNotFound = "InvalidAccessKeyId.NotFound", 404, 404, "Specified access key is not found.";
    /// The access key is disabled.
    AccessKeyInactive = "InvalidAccessKeyId.Inactive", 400, 400, "Specified access key is disabled.";
    /// The signature is another one.
    SignatureDoesNotMatch = "SignatureDoesNotMatch", 400, 400, "Specified signature is not matched with our calculation. server string to sign is:";
    /// The nonce was seen.
    SignatureNonceUsed = "SignatureNonceUsed", 400, 400, "Specified signature nonce was used already.";
    /// The date cannot be read.
    TimeStampFormat = "InvalidTimeStamp.Format", 400, 400, "Specified time stamp or date value is not well formatted.";
    /// The date is too far from now.
    TimeStampExpired = "InvalidTimeStamp.Expired", 400, 400, "Specified time stamp or date value is expired.";
    /// The signature method is not one that is taken.
    InvalidSignatureMethod = "InvalidSignatureMethod", 400, 400, "Specified signature method is not valid.";
    /// The signature leaves out what must be signed.
    IncompleteSignature = "IncompleteSignature", 400, 400, "The request signature does not conform to Aliyun standards.";
    /// No action.
    MissingAction = "MissingAction", 400, 400, "Action is mandatory for this action.";
    /// No version.
    MissingVersion = "MissingVersion", 400, 400, "Version is mandatory for this action.";
    /// No date.
    MissingTimestamp = "MissingTimestamp", 400, 400, "Timestamp is mandatory for this action.";
    /// No nonce.
    MissingSignatureNonce = "MissingSignatureNonce", 400, 400, "SignatureNonce is mandatory for this action.";
    /// No access key, which is to say no signature at all.
    MissingAccessKeyId = "MissingAccessKeyId", 400, 400, "AccessKeyId is mandatory for this action.";
    /// No signature method.
    MissingSignatureMethod = "MissingSignatureMethod", 400, 400, "SignatureMethod is mandatory for this action.";
    /// No signature version.
    MissingSignatureVersion = "MissingSignatureVersion", 400, 400, "SignatureVersion is mandatory for this action.";
    /// Answers are wanted in a format that there is not.
    InvalidParameterFormat = "InvalidParameter.Format", 400, 400, "Specified parameter format is not valid.";
    /// No such operation or path.
    ApiNotFound = "InvalidApi.NotFound", 404, 404, "Specified api is not found, please check your url and method.";
    /// Neither GET nor POST.
    UnsupportedHttpMethod = "UnsupportedHTTPMethod", 405, 405, "This http method is not supported.";
    /// The account calls too often.
    ThrottlingUser = "Throttling.User", 429, 429, "Request was denied due to user flow control.";
    /// Everybody calls too often.
    ServiceUnavailable = "ServiceUnavailable", 503, 503, "The request has failed due to a temporary failure of the server.";
    /// The body is too long.
    BodyTooLarge = "RequestBodyTooLarge", 413, 413, "The request body is too large.";
    /// The request line or the header is too long.
    HeadTooLarge = "RequestHeadTooLarge", 431, 431, "The request line and header fields are too large.";
    /// The body did not come in time.
    RequestTimeout = "RequestTimeout", 408, 408, "The request was not completed in time.";
    /// A list of revoked certificates is not what it must be.
    CrlContentError = "CrlContentError", 400, 400, "The CRL is not taken.";
    /// No such list.
    CrlNotFound = "CrlNotFound", 404, 404, "The CRL is not found.";
    /// There is no such schedule.
    ScheduleNotFound = "ScheduleNotFound", 404, 404, "The schedule is not found.";
}

impl Code {
    /// The HTTP status for this operation.
    pub const fn status(self, profile: StatusProfile, action: Option<Action>) -> u16 {
        let (documented, adjusted) = self.statuses();
        match (profile, self, action) {
            (StatusProfile::Adjusted, _, _) => adjusted,
            (
                StatusProfile::Documented,
                Self::ParameterFieldCheckFailed,
                Some(Action::InactivateCaCertificate | Action::GetRegisterCode),
            ) => 500,
            (
                StatusProfile::Documented,
                Self::MqttOwnerCheckError,
                Some(Action::InactivateCaCertificate | Action::ActiveCaCertificate),
            ) => 403,
            // Their pages have 400 for whatever the caller may not do with the instance.
            (
                StatusProfile::Documented,
                Self::PermissionCheckFailed
                | Self::MqttOwnerCheckError
                | Self::MqttInstanceNotFound,
                Some(
                    Action::CloseConnection
                    | Action::QuerySessionByClientId
                    | Action::BatchQuerySessionByClientIds,
                ),
            ) => 400,
            (StatusProfile::Documented, _, _) => documented,
        }
    }
}

/// A refusal: what is sent, and what only the log sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// What is refused.
    pub code: Code,
    /// Follows the vendor's text; for the caller's eyes.
    pub detail: Option<String>,
    /// For the log only.
    pub cause: Option<String>,
    /// When another attempt makes sense.
    pub retry_after_ms: Option<u64>,
}

impl ApiError {
    /// The refusal with that text after the vendor's.
    pub fn with_detail(code: Code, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..code.into()
        }
    }

    /// Something failed here; the cause goes to the log only.
    pub fn internal(cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Code::InternalError.into()
        }
    }

    /// The refusal with a time, in milliseconds, after which another attempt makes sense.
    pub fn retry_after(mut self, milliseconds: u64) -> Self {
        // Clients take 0 as "not throttled".
        self.retry_after_ms = Some(milliseconds.max(1));
        self
    }

    /// The text that is sent.
    pub fn message(&self) -> String {
        let message = self.code.message();
        match &self.detail {
            None => message.to_owned(),
            // The older SDKs compare what follows the colon with what they signed.
            Some(detail) if message.ends_with(':') => format!("{message}{detail}"),
            Some(detail) => format!("{message} {detail}"),
        }
    }

    /// The body that is sent.
    pub fn body(&self, request_id: RequestId, host_id: &str) -> Value {
        json!({
            "RequestId": request_id.to_string(),
            "HostId": host_id,
            "Code": self.code.as_str(),
            "Message": self.message(),
        })
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self {
            code,
            detail: None,
            cause: None,
            retry_after_ms: None,
        }
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let text = error.to_string();
        match error {
            ControlError::Parameter(detail) => {
                Self::with_detail(Code::ParameterFieldCheckFailed, detail)
            }
            ControlError::InstanceNotFound(_) => Code::MqttInstanceNotFound.into(),
            ControlError::NotOwner { .. } => Code::MqttOwnerCheckError.into(),
            ControlError::PermissionDenied(why) => {
                Self::with_detail(Code::PermissionCheckFailed, sentence(&why))
            }
            ControlError::CaNotFound(_) => Code::FindCaBySnError.into(),
            ControlError::DeviceNotFound(_) => Code::FindDeviceBySnError.into(),
            ControlError::RegisterCodeUnknown => Code::RegisterCodeError.into(),
            ControlError::RegisterCodeUsed => Code::RegisterCodeUsed.into(),
            ControlError::TooManyCas(_) => Code::CaNumExceed.into(),
            ControlError::CaRefused(_) => Self::with_detail(Code::CertificateContentError, text),
            ControlError::SnNotUnique(_) => Code::SnNotUnique.into(),
            ControlError::CrlRefused(why) => {
                Self::with_detail(Code::CrlContentError, sentence(&why.to_string()))
            }
            ControlError::CrlNotFound(_) => Code::CrlNotFound.into(),
            ControlError::ScheduleNotFound(_) => Code::ScheduleNotFound.into(),
            ControlError::KeyNotFound(_) => Self::with_detail(Code::AccessKeyNotFound, sentence(&text)),
            ControlError::KeyIsConfigured(_) => {
                Self::with_detail(Code::ParameterFieldCheckFailed, sentence(&text))
            }
            ControlError::TooManyKeys(_) => {
                Self::with_detail(Code::ParameterFieldCheckFailed, sentence(&text))
            }
            ControlError::NotDurable(cause) => Self {
                detail: Some(
                    "It is denied now, but this is not durable: a restart may admit it again. Repeat the call."
                        .to_owned(),
                ),
                ..Self::internal(cause)
            },
            ControlError::Unrecorded(cause) => Self {
                detail: Some(
                    "It is denied now, also after a restart. The audit log cannot be written; it is recorded when it can."
                        .to_owned(),
                ),
                ..Self::internal(cause)
            },
            ControlError::Unanswered(cause) => Self {
                detail: Some(
                    "The disk does not answer in time. The change is not made, and is taken back if the disk makes it later."
                        .to_owned(),
                ),
                ..Self::internal(cause)
            },
            ControlError::Internal(cause) => Self::internal(cause),
            ControlError::LocksOut(_) => Self::with_detail(
                Code::PermissionCheckFailed,
                format!("{} Repeat the call with Force=true if that is meant.", sentence(&text)),
            ),
            ControlError::Busy => Self::from(Code::ServiceUnavailable).retry_after(1000),
            ControlError::ShuttingDown => Code::ServiceUnavailable.into(),
        }
    }
}

/// The text with its first letter in upper case and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_complete() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code:?}");
            assert!(!code.message().is_empty());
            for profile in [StatusProfile::Documented, StatusProfile::Adjusted] {
                for action in Action::ALL.iter().copied().map(Some).chain([None]) {
                    let status = code.status(profile, action);
                    assert!((400..600).contains(&status), "{code:?} {status}");
                }
            }
        }
    }

    /// Every code with the HTTP statuses of the vendor's pages and of its later notice, where the
    /// page of an operation says nothing else. The last few are codes of ours, for what the
    /// vendor's documents are silent about.
    #[test]
    fn statuses_are_those_of_the_documents() {
        let table = [
            ("ParameterFieldCheckFailed", 400, 400),
            ("FindCaBySnError", 500, 400),
            ("FindDeviceBySnError", 500, 400),
            ("MqttInstanceNotFound", 500, 400),
            ("MqttOwnerCheckError", 500, 403),
            ("PermissionCheckFailed", 403, 403),
            ("InstancePermissionCheckFailed", 400, 400),
            ("RegisterCodeError", 500, 400),
            ("RegisterCodeUsed", 500, 401),
            ("GetCaNumError", 500, 401),
            ("CaNumExceed", 500, 401),
            ("CertificateContentError", 500, 401),
            ("SnNotUnique", 500, 401),
            ("InternalError", 500, 417),
            ("SystemOverFlow", 500, 403),
            ("ApiNotSupport", 404, 404),
            ("ParameterCheckFailed", 400, 400),
            ("InvalidAccessKeyId.NotFound", 404, 404),
            ("InvalidAccessKeyId.Inactive", 400, 400),
            ("SignatureDoesNotMatch", 400, 400),
            ("SignatureNonceUsed", 400, 400),
            ("InvalidTimeStamp.Format", 400, 400),
            ("InvalidTimeStamp.Expired", 400, 400),
            ("InvalidSignatureMethod", 400, 400),
            ("IncompleteSignature", 400, 400),
            ("MissingAction", 400, 400),
            ("MissingVersion", 400, 400),
            ("MissingTimestamp", 400, 400),
            ("MissingSignatureNonce", 400, 400),
            ("MissingAccessKeyId", 400, 400),
            ("MissingSignatureMethod", 400, 400),
            ("MissingSignatureVersion", 400, 400),
            ("InvalidParameter.Format", 400, 400),
            ("InvalidApi.NotFound", 404, 404),
            ("UnsupportedHTTPMethod", 405, 405),
            ("Throttling.User", 429, 429),
            ("ServiceUnavailable", 503, 503),
            ("RequestBodyTooLarge", 413, 413),
            ("RequestHeadTooLarge", 431, 431),
            ("RequestTimeout", 408, 408),
            ("CrlContentError", 400, 400),
            ("CrlNotFound", 404, 404),
            ("ScheduleNotFound", 404, 404),
        ];
        let found: Vec<_> = Code::ALL
            .iter()
            .map(|code| (code.as_str(), code.statuses().0, code.statuses().1))
            .collect();
        assert_eq!(found, table);
    }

    #[test]
    fn statuses_of_inactivating_are_those_of_its_page() {
        for (code, documented, adjusted) in [
            (Code::ParameterFieldCheckFailed, 500, 400),
            (Code::FindCaBySnError, 500, 400),
            (Code::MqttInstanceNotFound, 500, 400),
            (Code::PermissionCheckFailed, 403, 403),
            (Code::MqttOwnerCheckError, 403, 403),
            (Code::InternalError, 500, 417),
            (Code::SystemOverFlow, 500, 403),
        ] {
            let action = Some(Action::InactivateCaCertificate);
            assert_eq!(code.status(StatusProfile::Documented, action), documented);
            assert_eq!(code.status(StatusProfile::Adjusted, action), adjusted);
        }
    }

    #[test]
    fn statuses_of_other_operations_are_those_of_their_pages() {
        use Action::*;
        let documented = StatusProfile::Documented;
        for (code, action, status) in [
            (Code::ParameterFieldCheckFailed, GetRegisterCode, 500),
            (Code::MqttOwnerCheckError, GetRegisterCode, 500),
            (Code::ParameterFieldCheckFailed, GetCaCertificate, 400),
            (Code::MqttOwnerCheckError, DeleteCaCertificate, 500),
            (Code::ParameterFieldCheckFailed, RegisterCaCertificate, 400),
            (Code::RegisterCodeError, RegisterCaCertificate, 500),
            (Code::RegisterCodeUsed, RegisterCaCertificate, 500),
            (Code::CaNumExceed, RegisterCaCertificate, 500),
            (Code::CertificateContentError, RegisterCaCertificate, 500),
            (Code::SnNotUnique, RegisterCaCertificate, 500),
            (Code::FindDeviceBySnError, InactivateDeviceCertificate, 500),
            (
                Code::ParameterFieldCheckFailed,
                ActiveDeviceCertificate,
                400,
            ),
            (Code::PermissionCheckFailed, CloseConnection, 400),
            (Code::MqttOwnerCheckError, QuerySessionByClientId, 400),
            (
                Code::MqttInstanceNotFound,
                BatchQuerySessionByClientIds,
                400,
            ),
            (Code::PermissionCheckFailed, GetCaCertificate, 403),
        ] {
            assert_eq!(code.status(documented, Some(action)), status, "{code:?}");
        }
        for (code, status) in [
            (Code::RegisterCodeError, 400),
            (Code::RegisterCodeUsed, 401),
            (Code::GetCaNumError, 401),
            (Code::CaNumExceed, 401),
            (Code::CertificateContentError, 401),
            (Code::SnNotUnique, 401),
        ] {
            let action = Some(RegisterCaCertificate);
            assert_eq!(code.status(StatusProfile::Adjusted, action), status);
        }
    }

    #[test]
    fn documented_text_comes_first_and_causes_stay_inside() {
        let error: ApiError = ControlError::Parameter("Sn is missing".to_owned()).into();
        assert_eq!(
            error.message(),
            "Failed to validate the parameters. The parameters may be missing or invalid. Sn is missing"
        );
        let error: ApiError = ControlError::NotDurable("disk full on /dev/sda".to_owned()).into();
        assert!(error.message().starts_with(Code::InternalError.message()));
        assert!(error.message().contains("denied now"));
        assert!(!error.message().contains("sda"));
        let id = RequestId::from_random([7; 16]);
        let error: ApiError = ControlError::Internal("disk full on /dev/sda".to_owned()).into();
        assert!(!error.body(id, "here").to_string().contains("sda"));
        let error = ApiError::with_detail(Code::SignatureDoesNotMatch, "GET&%2F&");
        assert!(error.message().ends_with("sign is:GET&%2F&"));
    }
}

//! Version 1, `HMAC-SHA1`, of the older SDKs: everything is in the parameters.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Claim, Incoming, Method, parse_date};
use crate::admin::errors::{ApiError, Code};
use crate::admin::params::{Params, encode};

/// What is signed. `params` are all but `Signature`.
pub fn string_to_sign(method: &str, params: &Params) -> String {
    let mut text = format!("{method}&%2F&");
    text.extend(encode(&params.canonical()));
    text
}

/// Read what the request says of its signer.
///
/// # Errors
/// If a parameter of the signature is missing or is not what it must be.
pub(super) fn claim(request: &Incoming<'_>) -> Result<Claim, ApiError> {
    let mut params = request
        .query
        .clone()
        .merge(request.form.clone())
        .map_err(|error| ApiError::with_detail(Code::ParameterCheckFailed, error.to_string()))?;
    let signature = params.remove("Signature").unwrap_or_default();
    let required = |name: &str, code: Code| match params.get(name) {
        None | Some("") => Err(ApiError::from(code)),
        Some(value) => Ok(value),
    };
    if required("SignatureMethod", Code::MissingSignatureMethod)? != "HMAC-SHA1"
        || required("SignatureVersion", Code::MissingSignatureVersion)? != "1.0"
    {
        return Err(Code::InvalidSignatureMethod.into());
    }
    Ok(Claim {
        key_id: required("AccessKeyId", Code::MissingAccessKeyId)?.to_owned(),
        action: required("Action", Code::MissingAction)?.to_owned(),
        version: required("Version", Code::MissingVersion)?.to_owned(),
        signed_at_ms: parse_date(required("Timestamp", Code::MissingTimestamp)?)?,
        nonce: required("SignatureNonce", Code::MissingSignatureNonce)?.to_owned(),
        method: Method::V1,
        string_to_sign: string_to_sign(request.method, &params),
        signature: STANDARD.decode(signature).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;
    use axum::http::HeaderMap;

    const QUERY: &str = "MqttInstanceId=post-cn-7mz2d000001&Sn=007269004887aabb&Version=2020-04-20&Action=InactivateCaCertificate&Format=JSON&RegionId=cn-hangzhou&Timestamp=2026-11-24T08%3A43%3A17Z&SignatureMethod=HMAC-SHA1&SignatureType=&SignatureVersion=1.0&SignatureNonce=d074619205073af3662ae270e2a921c3&AccessKeyId=LTAI5tFakeKeyId000001&Signature=jlyUwqh6hWHkjNQyOwYPGcf71zM%3D";

    fn check(method: &str, query: &str, form: &str) -> Result<bool, Code> {
        let request = Incoming {
            method,
            path: "/",
            query: &Params::decode(query).unwrap(),
            form: &Params::decode(form).unwrap(),
            headers: &HeaderMap::new(),
            body: form.as_bytes(),
        };
        let claim = claim(&request).map_err(|error| error.code)?;
        let secret = Secret::new("FakeSecret0123456789abcdefghij".to_owned());
        Ok(Method::V1.verify(&secret, &claim.string_to_sign, &claim.signature))
    }

    #[test]
    fn request_of_the_vendor_sdk_verifies() {
        assert_eq!(check("POST", QUERY, ""), Ok(true));
        // pop-core puts all of it into the body.
        assert_eq!(check("POST", "", QUERY), Ok(true));
        assert_eq!(check("GET", QUERY, ""), Ok(false));
        assert_eq!(check("POST", &QUERY.replace("aabb", "aabc"), ""), Ok(false));
        assert_eq!(check("POST", QUERY, "CaSn=1"), Ok(false));
        assert_eq!(
            check("POST", QUERY, "Sn=1"),
            Err(Code::ParameterCheckFailed)
        );
    }

    #[test]
    fn string_to_sign_is_the_known_one() {
        let mut params = Params::decode(QUERY).unwrap();
        params.remove("Signature");
        assert_eq!(
            string_to_sign("POST", &params),
            "POST&%2F&AccessKeyId%3DLTAI5tFakeKeyId000001%26Action%3DInactivateCaCertificate%26Format%3DJSON%26MqttInstanceId%3Dpost-cn-7mz2d000001%26RegionId%3Dcn-hangzhou%26SignatureMethod%3DHMAC-SHA1%26SignatureNonce%3Dd074619205073af3662ae270e2a921c3%26SignatureType%3D%26SignatureVersion%3D1.0%26Sn%3D007269004887aabb%26Timestamp%3D2026-11-24T08%253A43%253A17Z%26Version%3D2020-04-20"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (name, code) in [
            ("AccessKeyId", Code::MissingAccessKeyId),
            ("Action", Code::MissingAction),
            ("Version", Code::MissingVersion),
            ("Timestamp", Code::MissingTimestamp),
            ("SignatureNonce", Code::MissingSignatureNonce),
            ("SignatureMethod", Code::MissingSignatureMethod),
            ("SignatureVersion", Code::MissingSignatureVersion),
        ] {
            let mut params = Params::decode(QUERY).unwrap();
            params.remove(name);
            assert_eq!(check("POST", &params.canonical(), ""), Err(code), "{name}");
        }
        let other = QUERY.replace("HMAC-SHA1", "HMAC-MD5");
        assert_eq!(check("POST", &other, ""), Err(Code::InvalidSignatureMethod));
        let other = QUERY.replace("=1.0", "=2.0");
        assert_eq!(check("POST", &other, ""), Err(Code::InvalidSignatureMethod));
    }
}

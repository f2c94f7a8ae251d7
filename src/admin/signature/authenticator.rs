//! From a request to the access key that signed it.

use std::sync::Arc;

use super::replay::{ReplayGuard, Request};
use super::{Claim, Incoming, MAX_SKEW_MS, header, v1, v3};
use crate::admin::errors::{ApiError, Code};
use crate::ca::lifecycle::Status;
use crate::config::SignatureV1;
use crate::config::secret::Secret;
use crate::control::access_key::{AccessKey, AccessKeys};

/// Checks signatures against the access keys.
#[derive(Debug)]
pub struct Authenticator {
    keys: Arc<AccessKeys>,
    replays: ReplayGuard,
    v1: SignatureV1,
    /// Signs in place of keys that do not exist, so that they take as long.
    nobody: Secret,
}

/// A request whose signer is proved, and which has not been used up yet: it may be carried out
/// once [`Authenticator::use_up`] has given it back as [`Signed`].
#[derive(Debug)]
pub struct Proved {
    signed: Signed,
    nonce: String,
    signed_at_ms: i64,
    now_ms: i64,
}

impl Proved {
    /// What is signed, for the rate limit and the log.
    pub fn signed(&self) -> &Signed {
        &self.signed
    }
}

/// A request whose signer is proved.
#[derive(Debug)]
pub struct Signed {
    /// Who signed it.
    pub key: Arc<AccessKey>,
    /// The operation it names; not known to exist yet.
    pub action: String,
    /// The version of the API it names.
    pub version: String,
}

const MAX_NONCE_LENGTH: usize = 256;

impl Authenticator {
    /// Check against these keys, and let each request through once.
    pub fn new(keys: Arc<AccessKeys>, v1: SignatureV1, replays: ReplayGuard) -> Self {
        Self {
            keys,
            replays,
            v1,
            nobody: Secret::new("0123456789abcdefghijklmnopqrst".to_owned()),
        }
    }

    /// Prove who signed the request, and that it is fresh and not known to be a repeated one.
    ///
    /// # Errors
    /// What is wrong with the signature.
    pub fn check(&self, request: &Incoming<'_>, now_ms: i64) -> Result<Proved, ApiError> {
        let claim = self.claim(request)?;
        if now_ms.abs_diff(claim.signed_at_ms) > MAX_SKEW_MS.unsigned_abs() {
            return Err(Code::TimeStampExpired.into());
        }
        if claim.nonce.len() > MAX_NONCE_LENGTH {
            return Err(ApiError::with_detail(
                Code::ParameterCheckFailed,
                "The signature nonce is too long.",
            ));
        }
        let key = self.verify(&claim)?;
        self.replays.refuse_known(&key.id, &claim.nonce)?;
        Ok(Proved {
            signed: Signed {
                key,
                action: claim.action,
                version: claim.version,
            },
            nonce: claim.nonce,
            signed_at_ms: claim.signed_at_ms,
            now_ms,
        })
    }

    /// Use the request up: it is good once, and that is on disk when this returns `Ok`, or the
    /// request allows nothing. Comes after the rate limit, so that a flood costs no flush to disk.
    ///
    /// # Errors
    /// As [`ReplayGuard`] says.
    pub async fn use_up(&self, proved: Proved) -> Result<Signed, ApiError> {
        self.replays
            .use_up(Request {
                key: &proved.signed.key.id,
                nonce: &proved.nonce,
                now_ms: proved.now_ms,
                signed_at_ms: proved.signed_at_ms,
                action: &proved.signed.action,
            })
            .await?;
        Ok(proved.signed)
    }

    fn claim(&self, request: &Incoming<'_>) -> Result<Claim, ApiError> {
        if let Some(authorization) = header(request.headers, "authorization")? {
            return v3::claim(request, authorization);
        }
        let has = |name| request.query.get(name).or(request.form.get(name)).is_some();
        if request.headers.contains_key("x-acs-bearer-token") {
            return Err(Code::InvalidSignatureMethod.into());
        }
        match self.v1 {
            SignatureV1::Accept if has("Signature") => v1::claim(request),
            SignatureV1::Refuse if has("Signature") => Err(ApiError::with_detail(
                Code::InvalidSignatureMethod,
                "Signature version 1 is switched off here; sign with ACS3-HMAC-SHA256.",
            )),
            SignatureV1::Accept | SignatureV1::Refuse => Err(Code::MissingAccessKeyId.into()),
        }
    }

    fn verify(&self, claim: &Claim) -> Result<Arc<AccessKey>, ApiError> {
        let key = claim.key_id.parse().ok().and_then(|id| self.keys.get(&id));
        let secret = key.as_ref().map_or(&self.nobody, |key| &key.secret);
        let matches = claim
            .method
            .verify(secret, &claim.string_to_sign, &claim.signature);
        let Some(key) = key else {
            return Err(Code::AccessKeyNotFound.into());
        };
        if !matches {
            return Err(ApiError::with_detail(
                Code::SignatureDoesNotMatch,
                claim.string_to_sign.clone(),
            ));
        }
        match key.status {
            Status::Active => Ok(key),
            Status::Inactive => Err(Code::AccessKeyInactive.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::params::Params;
    use crate::admin::signature::replay::tests::TestKeeper;
    use crate::admin::signature::{Method, format_date};
    use crate::control::access_key::KeyOrigin;
    use crate::control::grant::KeyGrant;
    use axum::http::HeaderMap;
    use base64::Engine;
    use time::OffsetDateTime;

    const NOW: i64 = 1_795_509_582_000;

    fn authenticator(v1: SignatureV1) -> Authenticator {
        let key = |id: &str, status| AccessKey {
            id: id.parse().unwrap(),
            secret: Secret::new("secret".to_owned()),
            account: "owner".parse().unwrap(),
            grant: Arc::new(KeyGrant::new(None)),
            status,
            origin: KeyOrigin::Configuration,
        };
        let keys = [key("on", Status::Active), key("off", Status::Inactive)];
        let replays = ReplayGuard::new(Arc::new(TestKeeper::default()), 0, []);
        Authenticator::new(Arc::new(keys.into_iter().collect()), v1, replays)
    }

    fn legacy(key: &str, secret: &str, at_ms: i64, nonce: &str) -> Params {
        let date = format_date(OffsetDateTime::from_unix_timestamp(at_ms / 1000).unwrap());
        let mut params = Params::decode(&format!(
            "Action=GetRegisterCode&Version=2020-04-20&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0&AccessKeyId={key}&Timestamp={date}&SignatureNonce={nonce}"
        ))
        .unwrap();
        let text = v1::string_to_sign("GET", &params);
        let signature = Method::V1.sign(&Secret::new(secret.to_owned()), &text);
        let signature = base64::engine::general_purpose::STANDARD.encode(signature);
        params.insert("Signature".to_owned(), signature).unwrap();
        params
    }

    fn check(with: &Authenticator, query: &Params, now_ms: i64) -> Result<String, ApiError> {
        let request = Incoming {
            method: "GET",
            path: "/",
            query,
            form: &Params::default(),
            headers: &HeaderMap::new(),
            body: b"",
        };
        let proved = with.check(&request, now_ms)?;
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        let signed = runtime.block_on(with.use_up(proved))?;
        Ok(signed.action)
    }

    #[test]
    fn good_signature_is_good_once_and_only_near_its_date() {
        let with = authenticator(SignatureV1::Accept);
        let request = legacy("on", "secret", NOW, "n1");
        let code = |request: &Params, now| check(&with, request, now).map_err(|error| error.code);
        assert_eq!(
            code(&request, NOW + MAX_SKEW_MS + 1),
            Err(Code::TimeStampExpired)
        );
        assert_eq!(
            code(&request, NOW - MAX_SKEW_MS - 1),
            Err(Code::TimeStampExpired)
        );
        assert_eq!(code(&request, NOW), Ok("GetRegisterCode".to_owned()));
        assert_eq!(code(&request, NOW), Err(Code::SignatureNonceUsed));
        assert_eq!(
            code(&request, NOW + MAX_SKEW_MS),
            Err(Code::SignatureNonceUsed)
        );
        let next = legacy("on", "secret", NOW + 1000, "n1");
        assert_eq!(code(&next, NOW), Err(Code::SignatureNonceUsed));
        let next = legacy("on", "secret", NOW - MAX_SKEW_MS, "n2");
        assert_eq!(code(&next, NOW), Ok("GetRegisterCode".to_owned()));
    }

    #[test]
    fn request_is_not_used_up_by_being_checked() {
        let with = authenticator(SignatureV1::Accept);
        let query = legacy("on", "secret", NOW, "n");
        let request = Incoming {
            method: "GET",
            path: "/",
            query: &query,
            form: &Params::default(),
            headers: &HeaderMap::new(),
            body: b"",
        };
        for _ in 0..3 {
            assert!(with.check(&request, NOW).is_ok());
        }
        assert!(check(&with, &query, NOW).is_ok());
        let again = with.check(&request, NOW).unwrap_err();
        assert_eq!(again.code, Code::SignatureNonceUsed);
    }

    #[test]
    fn wrong_signature_uses_no_nonce_and_shows_what_was_to_be_signed() {
        let with = authenticator(SignatureV1::Accept);
        let wrong = legacy("on", "other", NOW, "n");
        let error = check(&with, &wrong, NOW).unwrap_err();
        assert_eq!(error.code, Code::SignatureDoesNotMatch);
        let mut signed = wrong.clone();
        signed.remove("Signature");
        let message = error.message();
        let (_, after) = message.split_once(':').unwrap();
        assert_eq!(after, v1::string_to_sign("GET", &signed));
        assert!(check(&with, &legacy("on", "secret", NOW, "n"), NOW).is_ok());
    }

    #[test]
    fn keys_that_may_not_sign_are_refused() {
        let with = authenticator(SignatureV1::Accept);
        for (key, secret, code) in [
            ("nobody", "secret", Code::AccessKeyNotFound),
            (
                "nobody",
                "0123456789abcdefghijklmnopqrst",
                Code::AccessKeyNotFound,
            ),
            ("n%20o", "secret", Code::AccessKeyNotFound),
            ("off", "secret", Code::AccessKeyInactive),
            ("off", "other", Code::SignatureDoesNotMatch),
        ] {
            let error = check(&with, &legacy(key, secret, NOW, "n"), NOW).unwrap_err();
            assert_eq!(error.code, code, "{key}");
        }
    }

    #[test]
    fn unsigned_requests_and_switched_off_methods_are_refused() {
        let with = authenticator(SignatureV1::Refuse);
        let error = check(&with, &legacy("on", "secret", NOW, "n"), NOW).unwrap_err();
        assert_eq!(error.code, Code::InvalidSignatureMethod);
        let error = check(&with, &Params::default(), NOW).unwrap_err();
        assert_eq!(error.code, Code::MissingAccessKeyId);
    }
}

//! Register codes: made, and used up as the proof that a registrant holds a CA's key.

use std::sync::Arc;

use crate::ca::certificate::{CaCertificate, VerificationCertificate};
use crate::ca::id::InstanceId;
use crate::control::change::Toward;
use crate::control::{Answer, CaRefusal, Caller, Control, ControlError, Inner, Need};
use crate::store::{Change, RegisterCodeRecord};

impl Control {
    /// A new register code for the instance: single use, with a lifetime.
    ///
    /// # Errors
    /// If the caller may not, or the code cannot be made durable.
    pub async fn register_code(&self, caller: &Caller, instance: &str) -> Answer<String> {
        let (inner, caller) = (Arc::clone(&self.0), caller.clone());
        let instance = instance.to_owned();
        self.detached(async move {
            let mut turn = inner.turn.lock().await;
            // Under the turn: a key that was revoked while the call waited gets no code.
            let instance = inner
                .authorize(&caller, &instance, Need::GetRegisterCode)?
                .id
                .clone();
            let now_ms = inner.now_ms();
            let lifetime = i64::try_from(inner.settings.register_code_lifetime.as_millis());
            let code = RegisterCodeRecord {
                instance: instance.clone(),
                account: caller.account.clone(),
                code: uuid::Uuid::new_v4().to_string(),
                expires_at_ms: now_ms.saturating_add(lifetime.unwrap_or(i64::MAX)),
                used: false,
            };
            let most = inner.settings.max_register_codes.saturating_sub(1);
            let stale = inner.ledger().stale_codes(&instance, now_ms, most);
            let mut changes: Vec<_> = stale
                .iter()
                .cloned()
                .map(Change::DeleteRegisterCode)
                .collect();
            changes.push(Change::PutRegisterCode(code.clone()));
            inner
                .commit(&mut turn, changes, Toward::Allow)
                .await
                .map_err(|error| ControlError::Internal(error.to_string()))?;
            let mut ledger = inner.ledger_mut();
            for code in stale {
                ledger.remove_code(&code);
            }
            let answer = code.code.clone();
            ledger.put_code(code);
            Ok(answer)
        })
        .await
    }
}

impl Inner {
    /// The register code that the verification certificate proves the key with, as used.
    pub(crate) fn check_proof(
        &self,
        caller: &Caller,
        instance: &InstanceId,
        certificate: &CaCertificate,
        verification_pem: &str,
    ) -> Answer<RegisterCodeRecord> {
        let proof =
            VerificationCertificate::from_pem(verification_pem).map_err(CaRefusal::Verification)?;
        if !certificate.has_signed(proof.der(), crate::tls::server_config::algorithms()) {
            return Err(CaRefusal::VerificationNotSigned.into());
        }
        if !proof.is_current(self.now()) {
            return Err(CaRefusal::VerificationOutsideValidity.into());
        }
        let ledger = self.ledger();
        let code = ledger
            .code(proof.common_name())
            .filter(|code| &code.instance == instance && code.account == caller.account)
            .filter(|code| code.expires_at_ms > self.now_ms())
            .ok_or(ControlError::RegisterCodeUnknown)?;
        if code.used {
            return Err(ControlError::RegisterCodeUsed);
        }
        Ok(RegisterCodeRecord {
            used: true,
            ..code.clone()
        })
    }
}

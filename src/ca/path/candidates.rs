//! Which registered certificates a chain may lead to.

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;

use super::unix;
use crate::ca::id::{CaId, CaKeyId};
use crate::ca::registry::{CaEntry, Registry};

impl Registry {
    /// The registered certificates whose subject is an issuer named in the chain, those that
    /// are valid now first and among them those that stay valid longest.
    pub(super) fn candidates(
        &self,
        leaf: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Vec<CaEntry> {
        let mut candidates = self.with_subject(leaf.issuer());
        let mut seen: Vec<Vec<u8>> = vec![leaf.issuer().to_vec()];
        for intermediate in intermediates {
            let Ok(intermediate) = EndEntityCert::try_from(intermediate) else {
                continue;
            };
            if !seen.iter().any(|seen| seen == intermediate.issuer()) {
                candidates.extend(self.with_subject(intermediate.issuer()));
                seen.push(intermediate.issuer().to_vec());
            }
        }
        let now = unix(now);
        candidates.sort_by_key(|entry| {
            let certificate = &entry.certificate;
            (!certificate.is_current(now), -certificate.not_after())
        });
        candidates
    }

    /// A registered certificate of this authority to name in a listing: the given one if it is
    /// registered, else the one that stays valid longest.
    pub(super) fn registered(&self, der: &[u8], subject: &[u8], key: CaKeyId) -> Option<CaEntry> {
        self.entry(CaId::of_der(der)).or_else(|| {
            self.with_subject(subject)
                .into_iter()
                .filter(|entry| entry.certificate.key_id() == key)
                .max_by_key(|entry| entry.certificate.not_after())
        })
    }
}

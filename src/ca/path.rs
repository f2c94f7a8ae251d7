//! Which certificate gets in: the rules of acceptance, applied to paths whose signatures hold.
//!
//! `webpki` builds the paths and checks signatures, names, name constraints, basic constraints,
//! extended key usages and dates of every certificate but the anchor. What it leaves out is
//! checked here: the anchor's own dates, path length and usages, key usages, and the states.
//! The rules look at the path that was verified, never at the certificates as sent.

mod candidates;
pub(crate) mod signatures;
mod webpki_error;

use std::cell::RefCell;

use rustls_pki_types::{
    CertificateDer, Der, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::certificate::X509Certificate;

use crate::ca::certificate::{
    ClientAuth, MAX_CERTIFICATE_OCTETS, check_device_key, common_name, key_usage, parse, serial,
    validity,
};
use crate::ca::crl::{Issued, Kind, points};
use crate::ca::error::{CertificateError, OffReason, PathMember, Refusal};
use crate::ca::explain::Trace;
use crate::ca::id::{CaId, CaKeyId, CertSerial};
use crate::ca::lifecycle::Status;
use crate::ca::path::webpki_error::from_webpki;
use crate::ca::registry::{CaEntry, DeviceKey, Purpose, Registry};
use crate::ca::topology::Verdict;

/// A device certificate that was accepted, and over which path. Only [`Registry::admit`] makes
/// one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    purpose: Purpose,
    device: DeviceKey,
    ca: CaId,
    ca_sn: CertSerial,
    path: Vec<CaKeyId>,
    issued: Vec<Issued>,
    anchor_key: CaKeyId,
    common_name: Option<String>,
    der: Vec<u8>,
    not_before: i64,
    not_after: i64,
    path_not_after: i64,
    ends_first: PathMember,
}

impl Admitted {
    /// One that no registry has seen, for tests of what comes after the gate.
    #[cfg(test)]
    pub(crate) fn for_test(
        purpose: Purpose,
        device: DeviceKey,
        ca_sn: CertSerial,
        common_name: Option<&str>,
    ) -> Self {
        Self {
            purpose,
            ca: CaId::of_der(ca_sn.as_bytes()),
            ca_sn,
            path: vec![device.issuer],
            issued: Vec::new(),
            anchor_key: device.issuer,
            common_name: common_name.map(str::to_owned),
            der: Vec::new(),
            not_before: 0,
            not_after: i64::MAX,
            path_not_after: i64::MAX,
            ends_first: PathMember::Device,
            device,
        }
    }

    /// The same with this certificate, which nobody looks at but for its names.
    #[cfg(test)]
    pub(crate) fn with_der(self, der: &[u8]) -> Self {
        let der = der.to_vec();
        Self { der, ..self }
    }

    /// What the registered CA at the end of the path is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }
    /// Which certificate it is: issuer and serial number.
    pub fn device(&self) -> &DeviceKey {
        &self.device
    }
    /// The registered CA certificate nearest to it on the path.
    pub fn ca(&self) -> CaId {
        self.ca
    }
    /// Serial number of that CA certificate.
    pub fn ca_sn(&self) -> &CertSerial {
        &self.ca_sn
    }
    /// The authorities of the path, from the issuer up to the registered one it ends at.
    pub fn path(&self) -> &[CaKeyId] {
        &self.path
    }
    /// The certificates of the path below the registered one, from the device's up.
    pub(crate) fn issued(&self) -> &[Issued] {
        &self.issued
    }
    /// The registered authority that the path ends at.
    pub fn anchor_key(&self) -> CaKeyId {
        self.anchor_key
    }
    /// Its most specific common name, without control characters.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }
    /// The certificate itself.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
    /// First second of validity of the certificate, Unix seconds.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }
    /// Last second of validity of the certificate, Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }
    /// Last second at which every certificate of the path is valid, Unix seconds.
    pub fn path_not_after(&self) -> i64 {
        self.path_not_after
    }
    /// The certificate of the path that expires first.
    pub fn ends_first(&self) -> &PathMember {
        &self.ends_first
    }
}

/// A refusal, with what is known of the certificate that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The serial number on the device certificate; what the client claims, if unverified.
    pub device: Option<CertSerial>,
    /// The registered CA that was to vouch for it, if one has the issuer's name.
    pub ca: Option<CertSerial>,
}

impl Registry {
    /// Decide about a chain as a TLS client sent it.
    ///
    /// The client must also prove to own the key of `end_entity`; that is the caller's affair.
    ///
    /// # Errors
    /// The refusal. If paths over several CAs are refused, the one of the first path counts.
    pub fn admit(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Admitted, Box<Refused>> {
        self.admit_tracing(end_entity, intermediates, now, None)
    }

    /// The same; what was tried is left in `trace` for whoever wants to know more than the answer.
    pub(crate) fn admit_tracing(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        trace: Option<&Trace>,
    ) -> Result<Admitted, Box<Refused>> {
        let refuse = |refusal, device: Option<&CertSerial>, ca: Option<&CaEntry>| {
            Box::new(Refused {
                refusal,
                device: device.cloned(),
                ca: ca.map(|entry| entry.certificate.serial().clone()),
            })
        };
        let sizes = || std::iter::once(end_entity).chain(intermediates);
        if intermediates.len() > MAX_INTERMEDIATES
            || sizes().any(|der| der.len() > MAX_CERTIFICATE_OCTETS)
            || sizes().map(|der| der.len()).sum::<usize>() > MAX_CHAIN_OCTETS
        {
            return Err(refuse(Refusal::ChainTooLarge, None, None));
        }
        let leaf = EndEntityCert::try_from(end_entity)
            .map_err(|error| refuse(Refusal::Malformed(error.to_string()), None, None))?;
        let device = CertSerial::from_be_bytes(leaf.serial())
            .map_err(|error| refuse(Refusal::Malformed(error.to_string()), None, None))?;

        let candidates = match trace.and_then(Trace::only) {
            Some(only) => vec![only.clone()],
            None => self.candidates(&leaf, intermediates, now),
        };
        if let Some(trace) = trace {
            trace.candidates(&candidates);
        }
        let Some(first) = candidates.first() else {
            return Err(refuse(Refusal::UnknownCa, Some(&device), None));
        };
        let parsed = parse(end_entity)
            .map_err(|error| refuse(malformed(&error), Some(&device), Some(first)))?;
        let anchors: Vec<TrustAnchor<'_>> = candidates.iter().map(borrowed_anchor).collect();
        let judgement = Judgement {
            registry: self,
            leaf: &parsed,
            candidates: &candidates,
            anchors: &anchors,
            now: unix(now),
            outcome: RefCell::new(None),
            trace,
        };
        let judge = |path: &VerifiedPath<'_>| judgement.judge(path);
        let verify = |algorithms: &[&dyn SignatureVerificationAlgorithm]| {
            leaf.verify_for_usage(
                algorithms,
                &anchors,
                intermediates,
                now,
                KeyUsage::client_auth(),
                None,
                Some(&judge),
            )
        };
        let verified = match trace {
            None => self.signatures().remembering(verify),
            // An explanation leaves nothing behind.
            Some(_) => verify(self.algorithms()),
        };
        if let (Some(trace), Err(error)) = (trace, &verified) {
            trace.unverified(error);
        }
        let result = match (verified.map(|_| ()), judgement.outcome.into_inner()) {
            (Ok(()), Some(Ok(admitted))) => Ok(admitted),
            // A path held, and our rules refused it.
            (_, Some(Err(refusal))) => Err(refusal),
            (Err(error), _) => Err(from_webpki(&error, &parsed, now)),
            // Not possible: a path is accepted by a judgement only.
            (Ok(()), None) => Err(Refusal::InvalidPath("it was not judged".to_owned())),
        };
        result.map_err(|refusal| refuse(refusal, Some(&device), Some(first)))
    }
}

/// The rules, over one path after the other.
struct Judgement<'a> {
    registry: &'a Registry,
    leaf: &'a X509Certificate<'a>,
    candidates: &'a [CaEntry],
    /// Borrowed from `candidates`, at the same indices.
    anchors: &'a [TrustAnchor<'a>],
    now: i64,
    outcome: RefCell<Option<Result<Admitted, Refusal>>>,
    trace: Option<&'a Trace>,
}

impl Judgement<'_> {
    fn judge(&self, path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
        let ruling = self.rules(path);
        if let Some(trace) = self.trace {
            trace.path(self.anchor_of(path).ok(), path, ruling.as_ref().err());
        }
        match ruling {
            Ok(admitted) => {
                self.outcome.replace(Some(Ok(admitted)));
                Ok(())
            }
            Err(refusal) => {
                // `webpki` goes on to the next path; the first refusal is the one to tell.
                self.outcome.borrow_mut().get_or_insert(Err(refusal));
                Err(webpki::Error::UnknownIssuer)
            }
        }
    }

    fn rules(&self, path: &VerifiedPath<'_>) -> Result<Admitted, Refusal> {
        let anchor = self.anchor_of(path)?;
        let certificate = &anchor.certificate;
        let ca = || PathMember::Ca(certificate.serial().clone());

        // Rule 1, what the path builder leaves out.
        if !certificate.is_current(self.now) {
            return Err(Refusal::OutsideValidity(ca()));
        }
        if certificate
            .path_len()
            .is_some_and(|most| path.intermediate_certificates().count() > most)
        {
            return Err(Refusal::Misused {
                who: ca(),
                rule: "more CAs stand below it than its path length allows",
            });
        }
        if certificate.client_auth() == ClientAuth::Forbidden {
            return Err(Refusal::Misused {
                who: ca(),
                rule: "its extended key usage does not allow TLS clients",
            });
        }
        if key_usage(self.leaf)
            .map_err(|error| malformed(&error))?
            .is_some_and(|usage| !usage.digital_signature())
        {
            return Err(Refusal::Misused {
                who: PathMember::Device,
                rule: "its key usage does not allow digital signatures",
            });
        }
        check_device_key(self.leaf).map_err(|rule| Refusal::Misused {
            who: PathMember::Device,
            rule,
        })?;
        let (not_before, not_after) = validity(self.leaf).map_err(|error| malformed(&error))?;
        let (mut path_not_after, mut ends_first) = (not_after, PathMember::Device);
        if certificate.not_after() < path_not_after {
            (path_not_after, ends_first) = (certificate.not_after(), ca());
        }

        // Rules 2 and 3, for every authority of the path, registered or not.
        let mut keys = Vec::with_capacity(2);
        let mut below = vec![(
            serial(self.leaf).map_err(|error| malformed(&error))?,
            Kind::Device,
            points(self.leaf),
        )];
        let mut nearest: Option<CaEntry> = None;
        let mut purpose = anchor.purpose;
        let mut all_named = true;
        for intermediate in path.intermediate_certificates() {
            let der = intermediate.der();
            let parsed = parse(&der).map_err(|error| malformed(&error))?;
            if key_usage(&parsed)
                .map_err(|error| malformed(&error))?
                .is_some_and(|usage| !usage.key_cert_sign())
            {
                return Err(Refusal::Misused {
                    who: PathMember::Intermediate,
                    rule: "its key usage does not allow signing certificates",
                });
            }
            let (_, end) = validity(&parsed).map_err(|error| malformed(&error))?;
            if end < path_not_after {
                (path_not_after, ends_first) = (end, PathMember::Intermediate);
            }
            let key = CaKeyId::of_parts(
                intermediate.subject(),
                &intermediate.subject_public_key_info(),
            );
            keys.push(key);
            let registered = self.registry.registered(&der, intermediate.subject(), key);
            let serial = serial(&parsed).map_err(|error| malformed(&error))?;
            let kind = match &registered {
                Some(_) => Kind::Registered,
                None => Kind::Intermediate,
            };
            below.push((serial.clone(), kind, points(&parsed)));
            self.check_state(key, registered.as_ref(), serial)?;
            self.check_own_state(CaId::of_der(&der), registered.as_ref())?;
            match registered.as_ref().map(|entry| entry.purpose) {
                // A device CA below an administrators' CA makes no administrators.
                Some(Purpose::Device) => purpose = Purpose::Device,
                Some(Purpose::Admin) => {}
                None => all_named = false,
            }
            if nearest.is_none() {
                nearest = registered;
            }
        }
        let anchor_key = certificate.key_id();
        keys.push(anchor_key);
        if self.registry.verdict(anchor_key).is_none() {
            // Deleted since it was looked up.
            return Err(Refusal::UnknownCa);
        }
        self.check_state(anchor_key, Some(anchor), certificate.serial().clone())?;
        self.check_own_state(certificate.id(), Some(anchor))?;
        if let Some(refusal) = self.registry.own_revocation(certificate.id()) {
            return Err(refusal);
        }
        if purpose == Purpose::Admin && !all_named {
            // It may be a device CA that is not registered, or no longer.
            return Err(Refusal::Misused {
                who: PathMember::Intermediate,
                rule: "it makes no administrators: the configuration does not name it",
            });
        }

        // Rule 4.
        let issued: Vec<Issued> = below
            .into_iter()
            .zip(&keys)
            .map(|((serial, kind, points), &issuer)| Issued {
                issuer,
                serial,
                kind,
                points,
            })
            .collect();
        let device = issued
            .first()
            .map(|leaf| DeviceKey {
                issuer: leaf.issuer,
                serial: leaf.serial.clone(),
            })
            .ok_or(Refusal::UnknownCa)?;
        match self.registry.device_status(&device) {
            Some(Status::Inactive) => return Err(Refusal::DeviceInactive),
            Some(Status::Active) | None => {}
        }
        if let Some(refusal) = self.registry.revocation(&issued, self.now) {
            return Err(refusal);
        }

        let nearest = nearest.as_ref().unwrap_or(anchor);
        Ok(Admitted {
            purpose,
            device,
            ca: nearest.certificate.id(),
            ca_sn: nearest.certificate.serial().clone(),
            path: keys,
            issued,
            anchor_key,
            common_name: common_name(self.leaf),
            der: path.end_entity().der().to_vec(),
            not_before,
            not_after,
            path_not_after,
            ends_first,
        })
    }

    /// Which registered certificate the path ends at. Certificates of one subject and key give
    /// equal anchors, so they are told apart by place, not by value.
    fn anchor_of(&self, path: &VerifiedPath<'_>) -> Result<&CaEntry, Refusal> {
        let address = std::ptr::from_ref(path.anchor()).cast::<()>();
        self.anchors
            .iter()
            .position(|anchor| std::ptr::from_ref(anchor).cast::<()>() == address)
            .and_then(|index| self.candidates.get(index))
            .ok_or(Refusal::UnknownCa)
    }

    /// An authority that is on may have certificates that are not: a path over one of those is
    /// none.
    fn check_own_state(&self, id: CaId, registered: Option<&CaEntry>) -> Result<(), Refusal> {
        match registered {
            Some(entry) if self.registry.is_inactive(id) => Err(Refusal::CaInactive {
                sn: entry.certificate.serial().clone(),
                why: OffReason::Own,
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn check_state(
        &self,
        key: CaKeyId,
        registered: Option<&CaEntry>,
        serial: CertSerial,
    ) -> Result<(), Refusal> {
        match self.registry.verdict(key) {
            Some(Verdict::Off(culprit)) => Err(match registered {
                Some(entry) => culprit.refusal(entry.certificate.id(), entry.certificate.serial()),
                None if culprit.revoked.is_none() => Refusal::CaInactive {
                    sn: serial,
                    why: OffReason::Sibling(culprit.sn.clone()),
                },
                None => culprit.refusal(culprit.id, &serial),
            }),
            Some(Verdict::On) | None => Ok(()),
        }
    }
}

fn borrowed_anchor(entry: &CaEntry) -> TrustAnchor<'_> {
    let anchor = entry.certificate.anchor();
    TrustAnchor {
        subject: Der::from_slice(&anchor.subject),
        subject_public_key_info: Der::from_slice(&anchor.subject_public_key_info),
        name_constraints: anchor
            .name_constraints
            .as_ref()
            .map(|constraints| Der::from_slice(constraints)),
    }
}

fn malformed(error: &CertificateError) -> Refusal {
    Refusal::Malformed(error.to_string())
}

fn unix(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// `webpki` takes paths with up to 6 CAs below the anchor; a client that sends more
/// certificates than this has no honest reason.
pub const MAX_INTERMEDIATES: usize = 8;

/// Octets of all certificates: what fits into one message of a handshake, which `rustls` takes up to
/// 64 KiB of, with the lengths and extensions beside them.
const MAX_CHAIN_OCTETS: usize = 0xffff - 64;

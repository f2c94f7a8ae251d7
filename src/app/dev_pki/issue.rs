//! Making certificates: ECDSA P-256, with the extensions that a careful verifier looks for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::DevPkiError;
use super::plan::{Piece, Role, Signs};

/// How far back a new certificate begins, for clients whose clock is slow.
const BACKDATED: Duration = Duration::hours(1);

const AUTHORITY_LIFETIME: Duration = Duration::days(3652);

const END_ENTITY_LIFETIME: Duration = Duration::days(365);

/// A new private key.
pub(super) fn new_key() -> Result<KeyPair, DevPkiError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// The certificate (PEM) of `piece` for `key`, signed by `issuer` (its certificate and key), or
/// by itself.
pub(super) fn certificate(
    piece: &Piece,
    key: &KeyPair,
    issuer: Option<(&[u8], &KeyPair)>,
    now: OffsetDateTime,
) -> Result<String, DevPkiError> {
    let params = params(piece, now)?;
    let certificate = match issuer {
        None => params.self_signed(key)?,
        Some((der, issuer_key)) => {
            let issuer = Issuer::from_ca_cert_der(&der.into(), issuer_key)?;
            params.signed_by(key, &issuer)?
        }
    };
    Ok(certificate.pem())
}

fn params(piece: &Piece, now: OffsetDateTime) -> Result<CertificateParams, DevPkiError> {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Portcullis development");
    name.push(DnType::CommonName, piece.common_name);

    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - BACKDATED;
    match piece.role {
        Role::Authority { signs, .. } => {
            params.not_after = now + AUTHORITY_LIFETIME;
            params.is_ca = IsCa::Ca(match signs {
                Signs::EndEntities => BasicConstraints::Constrained(0),
                Signs::Anything => BasicConstraints::Unconstrained,
            });
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        }
        Role::Client { .. } => {
            params.not_after = now + END_ENTITY_LIFETIME;
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
        Role::Server { .. } => {
            params.not_after = now + END_ENTITY_LIFETIME;
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = vec![
                SanType::DnsName("localhost".try_into()?),
                SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            ];
        }
    }
    Ok(params)
}

/// 16 random octets, made positive and without a leading zero (RFC 5280, 4.1.2.2).
fn random_serial() -> Result<[u8; 16], DevPkiError> {
    let mut octets = [0; 16];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| DevPkiError::Random)?;
    let [first, ..] = &mut octets;
    *first = *first & 0x7f | 0x40;
    Ok(octets)
}

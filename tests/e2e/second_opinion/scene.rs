//! Chains of certificates made from choices: CAs that share names and keys, that sign each other
//! in a circle, that may not sign or not for this, and a device below one of them.

use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// Certificates, and which of them are registered and which are sent.
#[derive(Debug)]
pub struct Scene {
    /// What is registered, if the registry takes it.
    pub registered: Vec<CertificateDer<'static>>,
    /// The device's certificate.
    pub device: CertificateDer<'static>,
    /// What is sent after it.
    pub sent: Vec<CertificateDer<'static>>,
}

/// Keys are costly to make, and those that are shared are what is interesting.
static KEYS: LazyLock<[KeyPair; 4]> = LazyLock::new(|| {
    [
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
    ]
});

static DEVICE_KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

/// Choices, one octet each; when they are used up, the plain choice.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    /// A number below `of`; 0 is the plain choice and the most frequent one.
    fn of(&mut self, of: u8) -> usize {
        let octet = self.0.next().copied().unwrap_or(0);
        let others = 255 - octet.max(255 - 12 * (of - 1));
        match octet > 255 - 12 * (of - 1) {
            true => usize::from(of - 1 - others / 12),
            false => 0,
        }
    }

    /// A number below `of`, each as frequent as the others.
    fn any(&mut self, of: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % of
    }
}

/// A CA that is to be made.
struct Plan {
    params: CertificateParams,
    key: usize,
    /// Which of those before it signs it; `None`: its own key.
    above: Option<usize>,
}

/// Whether two have one name and not one key.
fn is_ambiguous(plans: &[Plan]) -> bool {
    plans.iter().any(|one| {
        plans.iter().any(|other| {
            one.key != other.key && one.params.distinguished_name == other.params.distinguished_name
        })
    })
}

/// A CA that was made.
struct Made {
    params: CertificateParams,
    key: usize,
    der: CertificateDer<'static>,
}

impl Scene {
    /// The scene that these choices make. Any octets make one.
    pub fn of(octets: &[u8]) -> Self {
        let mut choices = Choices(octets.iter());
        // Each is signed by itself, or by any before it; a circle is closed by CAs of one name and key.
        let mut plans: Vec<Plan> = Vec::new();
        for before in 0..=choices.any(5) {
            let (params, key) = (ca(&mut choices), choices.any(KEYS.len()));
            let above = choices.any(before + 1).checked_sub(1);
            plans.push(Plan { params, key, above });
        }
        let mut params = device(&mut choices);
        // OpenSSL goes by the names, and does not come back from a wrong turn, unless it is told
        // which key is meant.
        if is_ambiguous(&plans) {
            for params in plans
                .iter_mut()
                .map(|plan| &mut plan.params)
                .chain([&mut params])
            {
                params.use_authority_key_identifier_extension = true;
            }
        }
        let mut cas: Vec<Made> = Vec::new();
        for Plan { params, key, above } in plans {
            let der = match above {
                None => params.self_signed(&KEYS[key]).unwrap().der().clone(),
                Some(above) => sign(&params, &KEYS[key], &cas[above]),
            };
            cas.push(Made { params, key, der });
        }
        let issuer = &cas[cas.len() - 1 - choices.of(2).min(cas.len() - 1)];
        let mut device = sign(&params, &DEVICE_KEY, issuer);
        if choices.of(8) == 1 {
            // A signature that does not verify.
            let mut spoilt = device.to_vec();
            *spoilt.last_mut().unwrap() ^= 1;
            device = spoilt.into();
        }
        let mut registered: Vec<_> = vec![cas[choices.any(cas.len())].der.clone()];
        let mut sent = Vec::new();
        for made in &cas {
            if choices.any(4) == 1 {
                registered.push(made.der.clone());
            }
            if choices.any(3) < 2 {
                sent.push(made.der.clone());
            }
        }
        match choices.of(6) {
            1 => sent.reverse(),
            2 => sent.extend(sent.clone()),
            3 => sent.insert(0, device.clone()),
            4 => sent.push(vec![0x30, 0].into()),
            _ => {}
        }
        Self {
            registered,
            device,
            sent,
        }
    }
}

fn sign(params: &CertificateParams, key: &KeyPair, above: &Made) -> CertificateDer<'static> {
    let issuer = Issuer::from_params(&above.params, &KEYS[above.key]);
    params.signed_by(key, &issuer).unwrap().der().clone()
}

fn ca(choices: &mut Choices<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let name = ["a", "b", "c", "d"][choices.any(4)];
    params.distinguished_name.push(DnType::CommonName, name);
    let serial = u64::try_from(1 + choices.any(3)).unwrap();
    params.serial_number = Some(SerialNumber::from(serial));
    params.is_ca = IsCa::Ca(match choices.of(5) {
        3 => BasicConstraints::Constrained(0),
        4 => BasicConstraints::Constrained(1),
        _ => BasicConstraints::Unconstrained,
    });
    if choices.of(8) == 1 {
        params.is_ca = IsCa::ExplicitNoCa;
    }
    params.key_usages = match choices.of(6) {
        4 => vec![],
        5 => vec![KeyUsagePurpose::CrlSign],
        _ => vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
    };
    params.extended_key_usages = match choices.of(6) {
        4 => vec![ExtendedKeyUsagePurpose::ServerAuth],
        5 => vec![ExtendedKeyUsagePurpose::ClientAuth],
        _ => vec![],
    };
    params.use_authority_key_identifier_extension = choices.of(3) == 2;
    params.name_constraints = match choices.of(7) {
        5 => Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("plant.test".to_owned())],
            excluded_subtrees: vec![],
        }),
        6 => Some(NameConstraints {
            permitted_subtrees: vec![],
            excluded_subtrees: vec![GeneralSubtree::DnsName("plant.test".to_owned())],
        }),
        _ => None,
    };
    dates(choices, &mut params);
    unknown_extension(choices, &mut params);
    params
}

fn device(choices: &mut Choices<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "device");
    params.serial_number = Some(SerialNumber::from(7_u64));
    params.is_ca = match choices.of(6) {
        4 => IsCa::ExplicitNoCa,
        5 => IsCa::Ca(BasicConstraints::Unconstrained),
        _ => IsCa::NoCa,
    };
    params.key_usages = match choices.of(6) {
        4 => vec![],
        5 => vec![KeyUsagePurpose::KeyEncipherment],
        _ => vec![KeyUsagePurpose::DigitalSignature],
    };
    params.extended_key_usages = match choices.of(6) {
        3 => vec![],
        4 => vec![ExtendedKeyUsagePurpose::ServerAuth],
        5 => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
        _ => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = choices.of(3) == 2;
    let names = [&[][..], &["d.plant.test"], &["elsewhere.test"]][choices.any(3)];
    params.subject_alt_names = names
        .iter()
        .map(|name| SanType::DnsName((*name).try_into().unwrap()))
        .collect();
    dates(choices, &mut params);
    unknown_extension(choices, &mut params);
    params
}

fn dates(choices: &mut Choices<'_>, params: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    let (from, to) = match choices.of(8) {
        6 => (-20, -10),
        7 => (10, 20),
        _ => (-10, 10),
    };
    params.not_before = now + Duration::days(from);
    params.not_after = now + Duration::days(to);
}

fn unknown_extension(choices: &mut Choices<'_>, params: &mut CertificateParams) {
    let critical = match choices.of(8) {
        6 => true,
        7 => false,
        _ => return,
    };
    let content = vec![0x05, 0x00];
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], content);
    extension.set_criticality(critical);
    params.custom_extensions = vec![extension];
}

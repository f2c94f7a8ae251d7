//! The certificates of a run: a CA of devices, one of servers, all ECDSA P-256.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::Result;

/// The organization of the devices: stock rumqttd lets a device publish only below its name.
pub const ORGANIZATION: &str = "bench";

/// A CA.
pub struct Authority {
    pub der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a client logs in with, ready to use.
pub type Device = Arc<ClientConfig>;

/// All certificates of a run.
pub struct Pki {
    pub devices: Authority,
    /// Its devices go on while the others are shut out.
    pub others: Authority,
    servers: Authority,
}

impl Pki {
    pub fn new() -> Result<Self> {
        Ok(Self {
            devices: Authority::new("bench devices", 1, KeyPair::generate()?)?,
            others: Authority::new("bench others", 2, KeyPair::generate()?)?,
            servers: Authority::new("bench servers", 3, KeyPair::generate()?)?,
        })
    }

    /// Write what brokers are configured with: `ca.pem`, `server.pem`, `server.key`.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = leaf("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        let server = self.servers.sign(&params, &key)?;
        fs::write(directory.join("ca.pem"), pem(&self.devices.der))?;
        fs::write(directory.join("server.pem"), pem(&server))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(directory.join("server.key"))?;
        file.write_all(key.serialize_pem().as_bytes())?;
        Ok(())
    }

    /// Devices of a CA, each with a key of its own.
    pub fn fleet(&self, authority: &Authority, size: usize) -> Result<Vec<Device>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.servers.der.clone())?;
        let roots = Arc::new(roots);
        let device = |number: usize| -> Result<Device> {
            let key = KeyPair::generate()?;
            let name = format!("device-{number}");
            let params = leaf(&name, ExtendedKeyUsagePurpose::ClientAuth);
            let certificate = authority.sign(&params, &key)?;
            let mut config = ClientConfig::builder_with_provider(rustls_as_it_comes())
                .with_safe_default_protocol_versions()?
                .with_root_certificates(Arc::clone(&roots))
                .with_client_auth_cert(vec![certificate], key.serialize_der().try_into()?)?;
            config.resumption = Resumption::disabled();
            Ok(Arc::new(config))
        };
        (0..size).map(device).collect()
    }
}

impl Authority {
    /// A root with that key. Many may have the same key: under another name it is another CA.
    pub fn new(name: &str, serial: u64, key: KeyPair) -> Result<Self> {
        let params = root(name, serial);
        let der = params.self_signed(&key)?.der().clone();
        let issuer = Issuer::new(params, key);
        Ok(Self { der, issuer })
    }

    /// The certificate of a device or server.
    pub fn sign(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> Result<CertificateDer<'static>> {
        Ok(params.clone().signed_by(key, &self.issuer)?.der().clone())
    }
}

/// What a root certificate is made of.
pub fn root(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What the certificate of a server or a device is made of.
pub fn leaf(name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let organization = DnType::OrganizationName;
    params.distinguished_name.push(organization, ORGANIZATION);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The cryptography of rustls, nothing changed: what clients and the floor use.
pub fn rustls_as_it_comes() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn pem(der: &CertificateDer<'_>) -> String {
    portcullis::ca::certificate::to_pem(der)
}

//! This broker, on a configuration file as in production.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::portcullis::ca::certificate::CaCertificate;
use ::portcullis::ca::id::CaId;
use ::portcullis::ca::lifecycle::Status;
use ::portcullis::store::sqlite::SqliteStore;
use ::portcullis::store::{CaRecord, Change, DeviceRecord, Store};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, SerialNumber};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use time::OffsetDateTime;

use super::Place;
use crate::Result;
use crate::pki::{Pki, leaf, root};

/// The instance that it serves.
pub const INSTANCE: &str = "post-cn-bench0001";

pub(super) fn command(at: &Place<'_>, seed: Option<&Seed>) -> Result<(Command, Option<PathBuf>)> {
    let seed = seed.ok_or("Portcullis admits nobody without registered CAs")?;
    let data = at.directory.join("data");
    copy(seed.directory.path(), &data)?;
    let text = format!(
        "[[instance]]\n\
         id = \"{INSTANCE}\"\n\
         account = \"bench\"\n\
         mqtt_listen = \"127.0.0.1:{}\"\n\
         tls_certificate = \"{}\"\n\
         tls_key = \"{}\"\n\
         [registry]\n\
         max_devices = 2000000\n\
         max_cas = 200000\n\
         [admin]\n\
         listen = \"127.0.0.1:0\"\n\
         [store]\n\
         data_dir = \"data\"\n",
        at.port,
        at.cert("server.pem"),
        at.cert("server.key"),
    );
    let path = at.configure("portcullis.toml", &text)?;
    let mut command = Command::new(at.program);
    command.arg("serve").arg("--config").arg(path);
    Ok((command, Some(data.join("admin.sock"))))
}

/// What is registered before the start.
pub struct Seed {
    directory: TempDir,
}

impl Seed {
    /// The CAs of the run, as many others as make `cas` in all, and records of `devices`.
    pub async fn new(pki: &Pki, cas: usize, devices: usize) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("portcullis-bench-")
            .tempdir()?;
        let store = SqliteStore::open(&directory.path().join("registry.db"))?;
        let mut at = 0;
        let mut first = Vec::new();
        for der in [&pki.devices.der, &pki.others.der] {
            first.push(Change::PutCa(record(der)?));
        }
        at = store.commit(at, first).await?;
        // Of one key, since a name makes another CA of it, and keys are slow to make.
        let key = KeyPair::generate()?;
        let numbers: Vec<u64> = (3..=cas as u64).collect();
        for some in numbers.chunks(BATCH) {
            let mut changes = Vec::new();
            for number in some {
                let params = root(&format!("other {number}"), *number);
                let der = params.self_signed(&key)?.der().clone();
                changes.push(Change::PutCa(record(&der)?));
            }
            at = store.commit(at, changes).await?;
        }
        let mut template = Template::new(pki)?;
        let numbers: Vec<u64> = (1..=devices as u64).collect();
        for some in numbers.chunks(BATCH) {
            let changes = some.iter().map(|number| template.device(*number));
            let changes = changes.collect::<Result<Vec<_>>>()?;
            at = store.commit(at, changes).await?;
        }
        drop(store);
        Ok(Self { directory })
    }
}

/// Records of devices that differ in name and serial number only: a million signatures would take
/// minutes, and nobody checks them when they are read back.
struct Template {
    ca: CaId,
    record: DeviceRecord,
    der: Vec<u8>,
    serial_at: usize,
}

impl Template {
    fn new(pki: &Pki) -> Result<Self> {
        let ca = CaCertificate::from_der(&pki.devices.der)?;
        let mut params = leaf("device-0", ExtendedKeyUsagePurpose::ClientAuth);
        params.serial_number = Some(SerialNumber::from_slice(&serial(MARK)));
        let der = pki.devices.sign(&params, &KeyPair::generate()?)?.to_vec();
        let mark = serial(MARK);
        let serial_at = der.windows(mark.len()).position(|some| some == mark);
        Ok(Self {
            ca: ca.id(),
            serial_at: serial_at.ok_or("the certificate has another serial number")?,
            record: DeviceRecord {
                instance: INSTANCE.parse()?,
                issuer: ca.key_id(),
                serial: ::portcullis::ca::id::CertSerial::from_be_bytes(&mark)?,
                ca: ca.id(),
                name: String::new(),
                status: Status::Active,
                first_seen_ms: now_ms()?,
            },
            der,
        })
    }

    fn device(&mut self, number: u64) -> Result<Change> {
        let serial = serial(number);
        let place = self.serial_at..self.serial_at + serial.len();
        self.der[place].copy_from_slice(&serial);
        Ok(Change::PutDevice {
            record: DeviceRecord {
                serial: ::portcullis::ca::id::CertSerial::from_be_bytes(&serial)?,
                ca: self.ca,
                name: format!("device-{number}"),
                ..self.record.clone()
            },
            der: self.der.clone().into(),
        })
    }
}

/// Sixteen octets, as CAs make them.
fn serial(number: u64) -> [u8; 16] {
    (u128::from(number) | (0x5a << 120)).to_be_bytes()
}

fn record(der: &CertificateDer<'_>) -> Result<CaRecord> {
    let ca = CaCertificate::from_der(der)?;
    Ok(CaRecord {
        instance: INSTANCE.parse()?,
        id: ca.id(),
        name: "bench".to_owned(),
        status: Status::Active,
        der: der.to_vec(),
        verification_pem: None,
        register_code: None,
        registered_at_ms: now_ms()?,
    })
}

fn now_ms() -> Result<i64> {
    let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    Ok(i64::try_from(now)?)
}

/// Copy the files of a data directory.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Records written in one commit.
const BATCH: usize = 20_000;
/// A serial number that is easily found in a certificate.
const MARK: u64 = 0x0102_0304_0506_0708;

//! The audit log: when it goes on in a new file, and where its records are sent as well.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::fault::Faults;
use super::file;
use crate::audit::{Destination, Format, Forward, Rotation};
use crate::tls::server_config::provider;

pub(super) fn rotation(faults: &mut Faults, written: &file::Audit) -> Option<Rotation> {
    let most = written.max_bytes;
    // A file for every few records would be none that anybody can look through.
    let least = if most == 0 { 0 } else { 64 << 10 };
    let most = faults.number("audit.max_bytes", most, least, 1 << 40)?;
    Some(Rotation {
        max_octets: (most > 0).then_some(most),
        keep: (written.keep_files > 0).then_some(written.keep_files),
    })
}

/// Where records are sent as well, if they are.
pub(super) fn forward(faults: &mut Faults, written: &file::Audit) -> Option<Option<Forward>> {
    let Some(written) = &written.forward else {
        return Some(None);
    };
    let formats = [("syslog", Format::Syslog), ("json", Format::JsonLines)];
    let format = faults.word("audit.forward.format", &written.format, &formats);
    let trust = match &written.ca_file {
        Some(path) => trust(faults, path).map(Some),
        None => Some(None),
    };
    let key = "audit.forward.to";
    let to = faults.required(key, written.to.as_ref())?;
    let to = match Destination::parse(to, trust?) {
        Ok(to) => Some(to),
        Err(error) => {
            faults.add(key, to, error.to_string());
            None
        }
    };
    Some(Some(Forward {
        to: to?,
        format: format?,
    }))
}

/// To trust the CAs of the file, and no others.
fn trust(faults: &mut Faults, path: &Path) -> Option<Arc<ClientConfig>> {
    match read_trust(path) {
        Ok(config) => Some(Arc::new(config)),
        Err(what) => {
            faults.add("audit.forward.ca_file", path.display(), what);
            None
        }
    }
}

fn read_trust(path: &Path) -> Result<ClientConfig, String> {
    let pem = std::fs::read(path).map_err(|error| format!("the file cannot be read: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|der| roots.add(der).map_err(|error| error.to_string()));
        added.map_err(|error| format!("a certificate in the file cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in the file".to_owned());
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

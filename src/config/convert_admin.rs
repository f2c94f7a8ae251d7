//! The admin API and the control topic: `[admin]`.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::fault::Faults;
use super::{
    AccessKey, Admin, AdminTransport, ControlChannel, Overrides, Secret, SignatureV1, file,
};
use crate::admin::errors::StatusProfile;
use crate::admin::router::RequestLimits;
use crate::admin::server::ConnectionLimits;
use crate::admin::service::ServiceSettings;
use crate::ca::id::AccessKeyId;
use crate::control::policy::Policy;
use crate::control::seal::EncryptionKey;

pub(super) fn admin(
    faults: &mut Faults,
    written: &file::Admin,
    overrides: &Overrides,
    certs_dir: Option<&Path>,
    data_dir: &Path,
) -> Option<Admin> {
    let listen = match overrides.admin_listen {
        Some(address) => Some(address),
        None => faults.parse("admin.listen", &written.listen),
    };
    let access_keys: Vec<Option<AccessKey>> = written
        .access_key
        .iter()
        .enumerate()
        .filter(|_| certs_dir.is_none())
        .map(|(index, written)| access_key(faults, &format!("admin.access_key[{index}]"), written))
        .collect();
    let control_channel = match &written.control_channel {
        None => Some(None),
        Some(written) => control_channel(faults, written, certs_dir).map(Some),
    };
    let transport = transport(faults, written);
    let socket = socket(faults, written, data_dir);
    let encryption = match &written.secret_encryption_file {
        None => Some(None),
        Some(path) => encryption(faults, path).map(Some),
    };
    let service = service(faults, written);
    let requests = requests(faults, written);
    let connections = connections(faults, written);
    Some(Admin {
        listen: listen?,
        transport: transport?,
        socket: socket?,
        secret_encryption: encryption?,
        service: service?,
        requests: requests?,
        connections: connections?,
        signature_v1: if written.signature_v1 {
            SignatureV1::Accept
        } else {
            SignatureV1::Refuse
        },
        access_keys: access_keys.into_iter().collect::<Option<_>>()?,
        control_channel: control_channel?,
    })
}

/// The path, if a socket can have it; an empty one is no socket.
fn socket(faults: &mut Faults, written: &file::Admin, data_dir: &Path) -> Option<Option<PathBuf>> {
    let path = match &written.socket {
        Some(path) if path.as_os_str().is_empty() => return Some(None),
        Some(path) => path.clone(),
        None => data_dir.join("admin.sock"),
    };
    // `sun_path` has 108 octets, the last of which is zero (unix(7)).
    if path.as_os_str().len() > 107 {
        let what = "a socket's path has at most 107 octets; set admin.socket to a shorter one";
        faults.add("admin.socket", path.display(), what);
        return None;
    }
    Some(Some(path))
}

fn encryption(faults: &mut Faults, path: &Path) -> Option<EncryptionKey> {
    let key = "admin.secret_encryption_file";
    let text = faults.secret_file(key, path)?;
    let read = EncryptionKey::from_hex(&text);
    if read.is_none() {
        let what = format!(
            "must hold 64 hexadecimal digits; make one: (umask 077; openssl rand -hex 32 > {})",
            path.display()
        );
        faults.add(key, path.display(), what);
    }
    read
}

/// The policy in the file.
fn policy(faults: &mut Faults, key: &str, path: &Path) -> Option<Policy> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let what = format!("the file cannot be read: {error}");
            faults.add(key, path.display(), what);
            return None;
        }
    };
    match Policy::from_json(&text) {
        Ok(policy) => Some(policy),
        Err(error) => {
            faults.add(key, path.display(), error.to_string());
            None
        }
    }
}

fn transport(faults: &mut Faults, written: &file::Admin) -> Option<AdminTransport> {
    let together = "admin.tls_certificate and admin.tls_key go together";
    match (&written.tls_certificate, &written.tls_key) {
        (None, None) => Some(AdminTransport::Plain),
        (Some(certificate), Some(key)) => {
            faults.is_exposed("admin.tls_key", key);
            Some(AdminTransport::Tls {
                certificate: certificate.clone(),
                key: key.clone(),
            })
        }
        (Some(_), None) => {
            faults.missing("admin.tls_key", together);
            None
        }
        (None, Some(_)) => {
            faults.missing("admin.tls_certificate", together);
            None
        }
    }
}

fn service(faults: &mut Faults, written: &file::Admin) -> Option<ServiceSettings> {
    let statuses = faults.word(
        "admin.status_profile",
        &written.status_profile,
        &[
            ("documented", StatusProfile::Documented),
            ("adjusted", StatusProfile::Adjusted),
        ],
    );
    let calls = faults.number(
        "admin.max_calls_per_second",
        written.max_calls_per_second,
        1,
        1_000_000,
    );
    let timeout = faults.seconds(
        "admin.call_timeout_seconds",
        written.call_timeout_seconds,
        1,
        600,
    );
    Some(ServiceSettings {
        statuses: statuses?,
        host_id: written.host_id.clone(),
        calls_per_second: NonZeroU32::new(calls?)?,
        call_timeout: timeout?,
    })
}

fn requests(faults: &mut Faults, written: &file::Admin) -> Option<RequestLimits> {
    let mut count =
        |key: &str, value, least, most| faults.number(&format!("admin.{key}"), value, least, most);
    let concurrent = count(
        "max_concurrent_requests",
        written.max_concurrent_requests,
        1,
        1_000_000,
    );
    // The server's own buffer for a request's head has 64 KiB.
    let head = count("max_head_bytes", written.max_head_bytes, 16 << 10, 60 << 10);
    let headers = count("max_head_fields", written.max_head_fields, 16, 190);
    let body = count("max_body_bytes", written.max_body_bytes, 16 << 10, 16 << 20);
    let body_timeout = faults.seconds(
        "admin.body_timeout_seconds",
        written.body_timeout_seconds,
        1,
        600,
    );
    Some(RequestLimits {
        head: head?,
        headers: headers?,
        body: body?,
        body_timeout: body_timeout?,
        concurrent: concurrent?,
        ..RequestLimits::default()
    })
}

fn connections(faults: &mut Faults, written: &file::Admin) -> Option<ConnectionLimits> {
    let total = faults.number(
        "admin.max_connections",
        written.max_connections,
        1,
        1_000_000,
    );
    let per_address = faults.number(
        "admin.max_connections_per_address",
        written.max_connections_per_address,
        1,
        1_000_000,
    );
    let mut time = |key: &str, value, most| faults.seconds(&format!("admin.{key}"), value, 1, most);
    let handshake = time(
        "handshake_timeout_seconds",
        written.handshake_timeout_seconds,
        300,
    );
    let head = time("head_timeout_seconds", written.head_timeout_seconds, 600);
    let lifetime = time(
        "max_connection_lifetime_seconds",
        written.max_connection_lifetime_seconds,
        86_400,
    );
    Some(ConnectionLimits {
        total: total?,
        per_address: per_address?,
        handshake_timeout: handshake?,
        head_timeout: head?,
        lifetime: lifetime?,
    })
}

/// The names that `admin-key.json` uses; what else is in it is for clients.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AccessKeyFile {
    access_key_id: AccessKeyId,
    access_key_secret: String,
}

fn access_key(faults: &mut Faults, key: &str, written: &file::AccessKey) -> Option<AccessKey> {
    let account_key = format!("{key}.account");
    let account = faults
        .required(&account_key, written.account.as_ref())
        .and_then(|text| faults.parse(&account_key, text));
    let file_key = format!("{key}.file");
    let policy = match &written.policy {
        None => Some(None),
        Some(path) => policy(faults, &format!("{key}.policy"), path).map(Some),
    };
    let path = faults.required(&file_key, written.file.as_ref())?;
    let text = faults.secret_file(&file_key, path)?;
    match serde_json::from_str::<AccessKeyFile>(text.reveal()) {
        Ok(file) => Some(AccessKey {
            id: file.access_key_id,
            secret: Secret::new(file.access_key_secret),
            account: account?,
            policy: policy?,
        }),
        Err(error) => {
            let what = format!(
                "must be JSON with AccessKeyId and AccessKeySecret (line {}, column {} is not)",
                error.line(),
                error.column()
            );
            faults.add(&file_key, path.display(), what);
            None
        }
    }
}

fn control_channel(
    faults: &mut Faults,
    written: &file::ControlChannel,
    certs_dir: Option<&Path>,
) -> Option<ControlChannel> {
    let ca = match certs_dir {
        Some(directory) => Some(directory.join("admin-ca.pem")),
        None => faults
            .required("admin.control_channel.ca", written.ca.as_ref())
            .cloned(),
    };
    if written.common_names.is_empty() {
        faults.missing(
            "admin.control_channel.common_names",
            "there must be at least one common name",
        );
    }
    Some(ControlChannel {
        ca: ca?,
        common_names: written.common_names.clone(),
    })
}

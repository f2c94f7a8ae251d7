//! From what is written to what the program runs on, with all faults at once.

use std::path::{Path, PathBuf};

use super::addresses::{self, Reach};
use super::fault::{ConfigError, Faults};
use super::{
    Config, CrlSource, Development, Instance, Overrides, Persistence, Tls, convert_access,
    convert_admin, convert_audit, convert_mqtt, convert_reach, file,
};
use crate::ca::id::InstanceId;
use crate::ca::topology::SameKey;
use crate::control::{ControlSettings, OnInactivate};
use crate::mqtt::settings::Settings;
use crate::mqtt::sys::SysSettings;
use crate::telemetry::{self, LogFormat, LogSettings};
use crate::tls::server_config::{CipherOrder, TlsVersions};

/// Convert the file. In the development mode (`certs_dir` is given) the certificates and keys
/// are made later, and are not looked at.
pub(super) fn convert(
    file: file::File,
    overrides: &Overrides,
    certs_dir: Option<PathBuf>,
    origin: &str,
) -> Result<Config, ConfigError> {
    let mut faults = Faults::default();
    let config = whole(&mut faults, file, overrides, certs_dir);
    match config {
        Some(config) if faults.0.is_empty() => Ok(config),
        _ => Err(ConfigError::Faults {
            origin: origin.to_owned(),
            faults: faults.0,
        }),
    }
}

fn whole(
    faults: &mut Faults,
    file: file::File,
    overrides: &Overrides,
    certs_dir: Option<PathBuf>,
) -> Option<Config> {
    let mqtt = convert_mqtt::settings(faults, &file);
    let instances = instances(
        faults,
        &file.instance,
        mqtt.as_ref(),
        overrides,
        certs_dir.as_deref(),
    );
    let registry = registry(faults, &file.registry);
    let tls = tls(faults, &file.tls);
    let data_dir = overrides.data_dir.clone().unwrap_or(file.store.data_dir);
    let mut admin = convert_admin::admin(
        faults,
        &file.admin,
        overrides,
        certs_dir.as_deref(),
        &data_dir,
    );
    if let (Some(admin), Some(registry)) = (&mut admin, &registry) {
        // What a list has in DER is longer by a third in base64, and a little more in PEM.
        admin.requests.crl = registry.max_crl_octets.saturating_mul(3) / 2;
    }
    let crl_poll = file.registry.crl_poll_seconds;
    let crl_poll = faults.seconds("registry.crl_poll_seconds", crl_poll, 1, 3600);
    let log = log(faults, &file.log);
    let grace = file.shutdown.grace_seconds;
    let grace = faults.seconds("shutdown.grace_seconds", grace, 1, 3600);
    let save = file.shutdown.save_seconds;
    let save = faults.seconds("shutdown.save_seconds", save, 1, 3600);
    let checkpoint = file.store.checkpoint_seconds;
    let checkpoint = faults.seconds("store.checkpoint_seconds", checkpoint, 1, 3600);
    let rotation = convert_audit::rotation(faults, &file.audit);
    let forward = convert_audit::forward(faults, &file.audit);
    Some(Config {
        instances: instances?,
        registry: registry?,
        crl_poll: crl_poll?,
        tls: tls?,
        admin: admin?,
        audit_path: file
            .audit
            .path
            .unwrap_or_else(|| data_dir.join("audit.log")),
        audit_rotation: rotation?,
        audit_forward: forward?,
        data_dir,
        checkpoint: checkpoint?,
        log: log?,
        shutdown_grace: grace?,
        save_limit: save?,
        development: certs_dir.map(|certs_dir| Development { certs_dir }),
    })
}

fn instances(
    faults: &mut Faults,
    written: &[file::Instance],
    mqtt: Option<&Settings>,
    overrides: &Overrides,
    certs_dir: Option<&Path>,
) -> Option<Vec<Instance>> {
    if written.is_empty() {
        faults.missing("instance", "there must be at least one [[instance]]");
    }
    if let Some(address) = overrides.mqtt_listen
        && written.len() > 1
    {
        let what = "can only be given for a configuration with one instance";
        faults.add("--mqtt-listen", address, what);
    }
    let mut reaches = Vec::new();
    let converted: Vec<Option<Instance>> = written
        .iter()
        .enumerate()
        .map(|(index, written)| {
            instance(
                faults,
                &format!("instance[{index}]"),
                written,
                mqtt,
                overrides,
                certs_dir,
                &mut reaches,
            )
        })
        .collect();
    let converted: Option<Vec<Instance>> = converted.into_iter().collect();
    if let Some(instances) = &converted {
        distinct(faults, instances);
    }
    addresses::check(faults, &reaches);
    converted
}

/// Ids must not be given twice.
fn distinct(faults: &mut Faults, instances: &[Instance]) {
    for (index, instance) in instances.iter().enumerate() {
        for earlier in instances.iter().take(index) {
            if earlier.id == instance.id {
                let what = "another instance has this id";
                faults.add(&format!("instance[{index}].id"), &instance.id, what);
            }
        }
    }
}

fn instance(
    faults: &mut Faults,
    key: &str,
    written: &file::Instance,
    mqtt: Option<&Settings>,
    overrides: &Overrides,
    certs_dir: Option<&Path>,
    reaches: &mut Vec<Reach>,
) -> Option<Instance> {
    let at = |name: &str| format!("{key}.{name}");
    let id = faults
        .required(&at("id"), written.id.as_ref())
        .and_then(|text| faults.parse(&at("id"), text));
    let account = faults
        .required(&at("account"), written.account.as_ref())
        .and_then(|text| faults.parse(&at("account"), text));
    // It stands between colons in the names of resources.
    let region_fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if written.region.is_empty() || !written.region.chars().all(region_fits) {
        let what = "must be letters, digits and -";
        faults.add(&at("region"), &written.region, what);
    }
    let listen = match overrides.mqtt_listen {
        Some(address) => Some(address),
        None => faults.parse(&at("mqtt_listen"), &written.mqtt_listen),
    };
    let websocket = convert_reach::websocket(faults, key, written);
    let proxies = convert_reach::proxies(faults, key, written);
    let on_websocket = websocket.as_ref().and_then(Option::as_ref);
    let reach = Reach::read(
        faults,
        key,
        written,
        [listen, on_websocket.map(|it| it.listen)],
        proxies.clone(),
    );
    let server_names = reach.names();
    reaches.push(reach);
    let (certificate, private_key) = match certs_dir {
        Some(directory) => (
            Some(directory.join("server.pem")),
            Some(directory.join("server.key")),
        ),
        None => (
            faults
                .required(&at("tls_certificate"), written.tls_certificate.as_ref())
                .cloned(),
            faults
                .required(&at("tls_key"), written.tls_key.as_ref())
                .cloned(),
        ),
    };
    if certs_dir.is_none()
        && let Some(path) = &private_key
    {
        faults.is_exposed(&at("tls_key"), path);
    }
    let on_inactivate = faults.word(
        &at("on_inactivate"),
        &written.on_inactivate,
        &[("cut", OnInactivate::Cut), ("keep", OnInactivate::Keep)],
    );
    let policy = convert_mqtt::policy(faults, key, written);
    let same_key = faults.word(
        &at("same_key"),
        &written.same_key,
        &[
            ("deny", SameKey::Deny),
            ("allow_active", SameKey::AllowActive),
        ],
    );
    let crls: Vec<Option<CrlSource>> = written
        .crl
        .iter()
        .enumerate()
        .map(|(index, source)| {
            let key = at(&format!("crl[{index}].path"));
            let path = faults.required(&key, source.path.as_ref())?.clone();
            Some(CrlSource {
                path,
                ca: source.ca.clone(),
            })
        })
        .collect();
    let persistence = faults.word(
        &at("persistence"),
        &written.persistence,
        &[("off", Persistence::Off), ("on", Persistence::On)],
    );
    let access = convert_access::access(faults, key, written);
    let mqtt = mqtt?;
    let id: InstanceId = id?;
    Some(Instance {
        id: id.clone(),
        account: account?,
        region: written.region.clone(),
        mqtt_listen: listen?,
        websocket: websocket?,
        proxies: proxies?,
        server_names,
        tls_certificate: certificate?,
        tls_key: private_key?,
        on_inactivate: on_inactivate?,
        same_key: same_key?,
        crls: crls.into_iter().collect::<Option<_>>()?,
        persistence: persistence?,
        mqtt: Settings {
            policy: convert_mqtt::with_shared(policy?, mqtt),
            access: access?,
            sys: SysSettings {
                instance: Some(id),
                ..mqtt.sys.clone()
            },
            ..mqtt.clone()
        },
    })
}

fn registry(faults: &mut Faults, written: &file::Registry) -> Option<ControlSettings> {
    let lifetime = faults.seconds(
        "registry.register_code_lifetime_seconds",
        written.register_code_lifetime_seconds,
        60,
        365 * 24 * 3600,
    );
    let mut count =
        |key: &str, value, most| faults.number(&format!("registry.{key}"), value, 1, most);
    let codes = count("max_register_codes", written.max_register_codes, 1_000_000);
    let cas = count("max_cas", written.max_cas, 1_000_000);
    let devices = count("max_devices", written.max_devices, 100_000_000);
    let keys = count("max_access_keys", written.max_access_keys, 100_000);
    let crls = count("max_crls", written.max_crls, 100_000);
    let entries = count("max_crl_entries", written.max_crl_entries, 1_000_000_000);
    let signatures = faults.number(
        "registry.max_remembered_signatures",
        written.max_remembered_signatures,
        0,
        100_000_000,
    );
    let octets = written.max_crl_bytes;
    let octets = faults.number("registry.max_crl_bytes", octets, 1 << 10, 1 << 30);
    Some(ControlSettings {
        register_code_lifetime: lifetime?,
        max_register_codes: codes?,
        max_cas: cas?,
        max_devices: devices?,
        max_access_keys: keys?,
        max_crls: crls?,
        max_crl_entries: entries?,
        max_crl_octets: octets?,
        max_remembered_signatures: signatures?,
    })
}

fn tls(faults: &mut Faults, written: &file::Tls) -> Option<Tls> {
    let versions = faults.word(
        "tls.min_version",
        &written.min_version,
        &[("1.2", TlsVersions::From12), ("1.3", TlsVersions::Only13)],
    );
    let cipher_order = faults.word(
        "tls.cipher_order",
        &written.cipher_order,
        &[
            ("cheapest", CipherOrder::Cheapest),
            ("client", CipherOrder::Client),
        ],
    );
    let timeout = faults.seconds(
        "tls.handshake_timeout_seconds",
        written.handshake_timeout_seconds,
        1,
        300,
    );
    Some(Tls {
        versions: versions?,
        cipher_order: cipher_order?,
        handshake_timeout: timeout?,
    })
}

fn log(faults: &mut Faults, written: &file::Log) -> Option<LogSettings> {
    let format = faults.word(
        "log.format",
        &written.format,
        &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    );
    if let Err(error) = telemetry::check_filter(&written.filter) {
        faults.add("log.filter", &written.filter, error.to_string());
    }
    Some(LogSettings {
        format: format?,
        filter: written.filter.clone(),
    })
}

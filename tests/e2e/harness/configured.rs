//! A broker that runs on a configuration file, as in production, for what the development mode
//! has no switch for.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{ExtendedKeyUsagePurpose, SanType};
use serde_json::json;
use tempfile::TempDir;

use super::Broker;
use super::broker::INSTANCE;
use super::pki::{Ca, device_params, pem};

/// Another instance of the same owner.
pub const SECOND_INSTANCE: &str = "post-cn-second01";

/// An instance of another account, whose access key is in `stranger-key.json`.
pub const FOREIGN_INSTANCE: &str = "post-cn-foreign1";

/// What is said in the configuration beyond the least.
#[derive(Default)]
pub struct Configured {
    /// Lines of `[admin]`.
    pub admin: &'static str,
    /// Lines of `[registry]`.
    pub registry: &'static str,
    /// Whether the admin API speaks HTTP or HTTPS.
    pub transport: Transport,
}

/// What the admin API speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    #[default]
    Http,
    Https,
}

impl Configured {
    /// Start it on fresh directories. It has no CAs.
    pub fn start(&self) -> Broker {
        let home = Arc::new(tempfile::tempdir().unwrap());
        self.lay_out(&home);
        Broker::start_with_config(home.clone(), &home.path().join("portcullis.toml"))
    }

    fn lay_out(&self, home: &TempDir) {
        let certs = home.path().join("certs");
        fs::create_dir(&certs).unwrap();
        let ca = Ca::root("the CA of the servers");
        fs::write(certs.join("server-ca.pem"), ca.pem()).unwrap();
        let mut params = device_params("localhost");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        let server = ca.issue_device(params, &[]);
        fs::write(certs.join("server.pem"), pem(&server.chain[0])).unwrap();
        let key = pem(server.key.secret_der()).replace("CERTIFICATE", "PRIVATE KEY");
        private(&certs.join("server.key"), &key);
        for (file, id) in [("admin-key", "LTAIowner"), ("stranger-key", "LTAIstranger")] {
            let key = json!({
                "AccessKeyId": id,
                "AccessKeySecret": format!("the secret of {id}"),
                "MqttInstanceId": INSTANCE,
            });
            private(&certs.join(format!("{file}.json")), &key.to_string());
        }
        fs::write(home.path().join("portcullis.toml"), self.text()).unwrap();
    }

    fn text(&self) -> String {
        let server = "tls_certificate = \"certs/server.pem\"\ntls_key = \"certs/server.key\"";
        let instance = |(id, account): (&str, &str)| {
            format!(
                "[[instance]]\nid = \"{id}\"\naccount = \"{account}\"\n\
                 mqtt_listen = \"127.0.0.1:0\"\n{server}\n"
            )
        };
        let instances = [
            (INSTANCE, "owner"),
            (SECOND_INSTANCE, "owner"),
            (FOREIGN_INSTANCE, "stranger"),
        ];
        let https = match self.transport {
            Transport::Http => "",
            Transport::Https => server,
        };
        let key = |(file, account): (&str, &str)| {
            format!("[[admin.access_key]]\nfile = \"certs/{file}.json\"\naccount = \"{account}\"\n")
        };
        let keys = [("admin-key", "owner"), ("stranger-key", "stranger")];
        format!(
            "{}[admin]\nlisten = \"127.0.0.1:0\"\n{https}\n{}\n{}[registry]\n{}\n",
            instances.map(instance).concat(),
            self.admin,
            keys.map(key).concat(),
            self.registry,
        )
    }
}

/// A file that only its owner may read.
fn private(path: &Path, content: &str) {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.unwrap().write_all(content.as_bytes()).unwrap();
}

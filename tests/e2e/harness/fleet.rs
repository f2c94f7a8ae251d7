//! Several instances in one process, from a configuration file.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use super::Broker;
use super::api::Api;
use super::pki::{Ca, pem, server_params};
use super::tls::{Identity, TlsClient, Version};

/// A configuration in the making, with the files that it names.
pub struct Setup {
    home: Arc<TempDir>,
    server_ca: Ca,
    instances: String,
    rest: String,
    accounts: HashMap<String, String>,
}

/// A running process with several instances.
pub struct Fleet {
    pub broker: Broker,
    config: PathBuf,
    accounts: HashMap<String, String>,
    /// By instance: where it is reached.
    addresses: HashMap<String, SocketAddr>,
    /// By instance: where it is reached over WebSocket, if it is.
    websockets: HashMap<String, SocketAddr>,
}

impl Setup {
    pub fn new() -> Self {
        let home = Arc::new(tempfile::tempdir().unwrap());
        let server_ca = Ca::root("the servers' CA");
        fs::write(home.path().join("server-ca.pem"), server_ca.pem()).unwrap();
        Self {
            home,
            server_ca,
            instances: String::new(),
            rest: "[admin]\nlisten = \"127.0.0.1:0\"\n".to_owned(),
            accounts: HashMap::new(),
        }
    }

    /// An instance with these server names, and a server certificate for them and no others
    /// (`localhost` if there are none). Its account has an access key.
    pub fn instance(self, id: &str, account: &str, listen: &str, names: &[&str]) -> Self {
        let certified = match names {
            [] => &["localhost"],
            names => names,
        };
        self.instance_certified_for(id, account, listen, names, certified)
    }

    /// An instance whose server certificate is for other names than its own.
    pub fn instance_certified_for(
        mut self,
        id: &str,
        account: &str,
        listen: &str,
        names: &[&str],
        certified: &[&str],
    ) -> Self {
        let server = self.server_ca.issue_device(server_params(certified), &[]);
        self.write(&format!("{id}.pem"), &pem(&server.chain[0]));
        self.write(&format!("{id}.key"), &key_pem(&server));
        self.instances += &format!(
            r#"
[[instance]]
id = "{id}"
account = "{account}"
mqtt_listen = "{listen}"
server_names = {names:?}
tls_certificate = "{id}.pem"
tls_key = "{id}.key"
"#
        );
        if !self.accounts.values().any(|known| known == account) {
            let key = format!(
                r#"{{"AccessKeyId": "key-of-{account}", "AccessKeySecret": "{}"}}"#,
                secret(account)
            );
            self.write(&format!("{account}.json"), &key);
            self.rest += &format!(
                "[[admin.access_key]]\nfile = \"{account}.json\"\naccount = \"{account}\"\n"
            );
        }
        self.accounts.insert(id.to_owned(), account.to_owned());
        self
    }

    /// More keys of the last instance.
    pub fn also(mut self, keys: &str) -> Self {
        self.instances += keys;
        self.instances += "\n";
        self
    }

    /// More of the configuration.
    pub fn with(mut self, text: &str) -> Self {
        self.rest += text;
        self
    }

    /// A file that the configuration can name.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.home.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn start(self) -> Fleet {
        let config = self.home.path().join("portcullis.toml");
        fs::write(&config, self.instances + &self.rest).unwrap();
        Fleet::start(self.home, config, self.accounts)
    }
}

impl Fleet {
    fn start(home: Arc<TempDir>, config: PathBuf, accounts: HashMap<String, String>) -> Self {
        let mut broker = Broker::start_with_config(home, &config);
        let banner = broker.process().stdout();
        let told = |line: &str, what: &str| Some(line.trim().strip_prefix(what)?.trim().to_owned());
        let (mut addresses, mut websockets) = (HashMap::new(), HashMap::new());
        let mut instance = String::new();
        for line in &banner {
            if let Some(name) = told(line, "Instance") {
                instance = name;
            } else if let Some(address) = told(line, "MQTT over TLS   mqtts://") {
                addresses.insert(instance.clone(), address.parse().unwrap());
            } else if let Some(url) = told(line, "WebSocket       wss://") {
                let address = url.split('/').next().unwrap().parse().unwrap();
                websockets.insert(instance.clone(), address);
            }
        }
        assert_eq!(addresses.len(), accounts.len(), "{banner:?}");
        Self {
            addresses,
            websockets,
            broker,
            config,
            accounts,
        }
    }

    /// Start again on what a broker that ended has left.
    pub fn again(self, end: impl FnOnce(Broker) -> Arc<TempDir>) -> Self {
        Self::start(end(self.broker), self.config, self.accounts)
    }

    /// Where an instance is reached.
    pub fn address(&self, instance: &str) -> SocketAddr {
        self.addresses[instance]
    }

    /// Where an instance is reached over WebSocket.
    pub fn websocket(&self, instance: &str) -> SocketAddr {
        self.websockets[instance]
    }

    /// A CA registered at the instance, and a device of it.
    pub fn device(&self, instance: &str) -> (Ca, Identity) {
        let ca = Ca::root(&format!("a CA of {instance}"));
        self.api(instance).register("a CA", &ca);
        let device = ca.device("device");
        (ca, device)
    }

    /// The API for an instance, with the key of its owner.
    pub fn api(&self, instance: &str) -> Api {
        self.api_of(&self.accounts[instance], instance)
    }

    /// The API for an instance, with the key of some account.
    pub fn api_of(&self, account: &str, instance: &str) -> Api {
        let key = format!("key-of-{account}");
        Api::new(self.broker.admin, instance, &key, &secret(account))
    }

    /// A client at the address of an instance that asks for this server name.
    pub fn client(
        &self,
        instance: &str,
        server_name: &str,
        identity: &Identity,
        version: Version,
    ) -> TlsClient {
        let address = self.address(instance);
        let client = TlsClient::new(address, &self.server_ca(), Some(identity), version);
        client.asking_for(server_name)
    }

    /// The CA that the clients trust.
    pub fn server_ca(&self) -> PathBuf {
        self.file("server-ca.pem")
    }

    /// A file next to the configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.broker.home().path().join(name)
    }

    /// Write the device's files for tools that take no other; gives certificate and key.
    pub fn write_identity(&self, name: &str, identity: &Identity) -> (PathBuf, PathBuf) {
        let files = (
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.key")),
        );
        fs::write(&files.0, pem(&identity.chain[0])).unwrap();
        fs::write(&files.1, key_pem(identity)).unwrap();
        files
    }

    /// The server certificate of an instance.
    pub fn certificate(&self, instance: &str) -> CertificateDer<'static> {
        super::pki::read_der(Path::new(&self.file(&format!("{instance}.pem"))))
    }

    /// A counter of the metrics with these labels, such as `portcullis_x_total{a="b"}`.
    pub fn counter(&self, name: &str) -> u64 {
        let metrics = super::api::get(self.broker.admin, "/metrics").unwrap().text;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }
}

/// An address of loopback that nobody listens on, for instances that share one although they have
/// no names: port 0 would be another port for each.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn secret(account: &str) -> String {
    format!("a secret of thirty characters or more for {account}")
}

fn key_pem(identity: &Identity) -> String {
    let der = identity.key.secret_der();
    rcgen::KeyPair::try_from(der).unwrap().serialize_pem()
}

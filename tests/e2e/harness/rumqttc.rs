//! MQTT clients that are the unmodified crate rumqttc.
//!
//! Its own TLS would bring a second crypto library, so it speaks to a socket of this process, and
//! what comes there goes on over mutual TLS: one connection to the broker for each of the client.

use std::collections::VecDeque;
use std::path::PathBuf;

use rumqttc::Transport;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::{Broker, DEADLINE, Version};

/// The way from clients to the broker, with the certificate of a device.
pub struct Tunnel {
    home: TempDir,
    _runtime: Runtime,
}

impl Tunnel {
    /// A way for this development device.
    pub fn start(broker: &Broker, device: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let client = broker.client(&broker.identity(device), Version::V13);
        let connector = TlsConnector::from(client.config());
        let runtime = Runtime::new().unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(home.path().join("socket")).unwrap()
        };
        let address = broker.mqtt;
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let far = TcpStream::connect(address).await?;
                    carry(near, connector, far).await
                });
            }
        });
        Self {
            home,
            _runtime: runtime,
        }
    }

    /// Options of MQTT 5 for a client with this id: clean start, a long keep alive.
    pub fn v5(&self, client_id: &str) -> rumqttc::v5::MqttOptions {
        let mut options = rumqttc::v5::MqttOptions::new(client_id, self.path(), 1);
        options.set_transport(Transport::unix());
        options.set_clean_start(true);
        options
    }

    /// Options of MQTT 3.1.1.
    pub fn v4(&self, client_id: &str) -> rumqttc::MqttOptions {
        let mut options = rumqttc::MqttOptions::new(client_id, self.path(), 1);
        options.set_transport(Transport::unix());
        options.set_clean_session(true);
        options
    }

    fn path(&self) -> String {
        let path: PathBuf = self.home.path().join("socket");
        path.to_str().unwrap().to_owned()
    }
}

/// Until either side has enough.
async fn carry(
    mut near: UnixStream,
    connector: TlsConnector,
    far: TcpStream,
) -> std::io::Result<()> {
    far.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut far = connector.connect(name, far).await?;
    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    Ok(())
}

/// A client of one version: packets that are waited for, whatever comes between them.
macro_rules! client {
    ($(#[$doc:meta])* $name:ident, $options:path, $client:path, $connection:path, $event:path,
     $packet:path, $error:path) => {
        $(#[$doc])*
        pub struct $name {
            pub client: $client,
            connection: $connection,
            /// The packets that nobody waited for.
            pub passed: VecDeque<$packet>,
        }

        impl $name {
            /// Connect. The CONNACK is the first packet.
            pub fn connect(options: $options) -> Self {
                let (client, connection) = <$client>::new(options, 100);
                Self { client, connection, passed: VecDeque::new() }
            }

            /// The first packet, of those that nobody waited for yet, that `pick` makes something
            /// of.
            #[track_caller]
            pub fn wait<T>(&mut self, what: &str, pick: impl Fn(&$packet) -> Option<T>) -> T {
                for (place, packet) in self.passed.iter().enumerate() {
                    if let Some(found) = pick(packet) {
                        self.passed.remove(place);
                        return found;
                    }
                }
                loop {
                    match self.next() {
                        Ok(packet) => match pick(&packet) {
                            Some(found) => return found,
                            None => self.passed.push_back(packet),
                        },
                        Err(error) => panic!("{error} in place of {what}"),
                    }
                }
            }

            /// How the library tells that the connection ended.
            pub fn ended(&mut self) -> $error {
                loop {
                    match self.next() {
                        Ok(packet) => self.passed.push_back(packet),
                        Err(error) => return error,
                    }
                }
            }

            /// Leave in order, and wait until the broker has closed.
            pub fn leave(mut self) {
                self.client.disconnect().unwrap();
                self.ended();
            }

            #[allow(clippy::result_large_err, reason = "it is the library's")]
            fn next(&mut self) -> Result<$packet, $error> {
                loop {
                    let event = self.connection.recv_timeout(DEADLINE).expect("in time")?;
                    if let $event(packet) = event {
                        return Ok(packet);
                    }
                }
            }
        }
    };
}

client!(
    /// A client of MQTT 5.
    V5,
    rumqttc::v5::MqttOptions,
    rumqttc::v5::Client,
    rumqttc::v5::Connection,
    rumqttc::v5::Event::Incoming,
    rumqttc::v5::mqttbytes::v5::Packet,
    rumqttc::v5::ConnectionError
);
client!(
    /// A client of MQTT 3.1.1.
    V4,
    rumqttc::MqttOptions,
    rumqttc::Client,
    rumqttc::Connection,
    rumqttc::Event::Incoming,
    rumqttc::Packet,
    rumqttc::ConnectionError
);

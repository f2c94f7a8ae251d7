use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::ca::certificate::CaCertificate;
use crate::ca::id::{CaKeyId, CertSerial, RequestId};
use crate::ca::lifecycle::Status;
use crate::ca::registry::Purpose;
use crate::config::Overrides;
use crate::control::{Caller, Door, Grant, PageRequest, Principal};
use crate::store::sessions::record::{
    HolderRecord, Row, SessionRecord, SubscriptionRecord, WholeSession, WillRecord, Write,
};
use crate::store::sessions::{SessionStore, SqliteSessions};

fn config(directory: &Path) -> Config {
    let any = Some("127.0.0.1:0".parse().unwrap());
    let overrides = Overrides {
        data_dir: Some(directory.join("data")),
        mqtt_listen: any,
        admin_listen: any,
    };
    Config::development(Some(directory.join("certs")), &overrides).unwrap()
}

fn instance() -> InstanceId {
    "post-cn-dev00001".parse().unwrap()
}

fn system() -> Caller {
    Caller {
        principal: Principal::System,
        account: "dev-account".parse().unwrap(),
        grant: Grant::Everything,
        door: Door::System,
        address: None,
        request_id: RequestId::from_random([7; 16]),
    }
}

async fn registered(app: &App) -> Vec<String> {
    let page = PageRequest {
        number: 1,
        size: 100,
    };
    let instance = instance();
    let page = app
        .control()
        .list_cas(&system(), instance.as_str(), page)
        .await;
    page.unwrap().items.into_iter().map(|ca| ca.name).collect()
}

/// Run the app while `during` does its work, then end it in order.
async fn while_it_runs<T>(app: App, during: impl Future<Output = T>) -> T {
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(app.run(shutdown.clone()));
    let result = during.await;
    shutdown.cancel();
    running.await.unwrap();
    result
}

/// CONNECT as this device, and what the broker answers; `None` if it lets nobody in.
async fn connect(certs: &Path, device: &str, address: SocketAddr) -> Option<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(certs.join("server-ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let chain: Vec<_> = CertificateDer::pem_file_iter(certs.join(format!("{device}.pem")))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(certs.join(format!("{device}.key"))).unwrap();
    let provider = crate::tls::server_config::provider();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut stream = connector.connect(name, tcp).await.ok()?;
    // CONNECT of MQTT 3.1.1, clean session, client id "t".
    let packet = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01t";
    stream.write_all(packet).await.ok()?;
    let mut answer = vec![0; 4];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn first_start_registers_the_development_cas_and_serves_their_devices() {
    let directory = tempfile::tempdir().unwrap();
    let app = App::build(config(directory.path())).await.unwrap();
    assert_eq!(registered(&app).await, dev_pki::REGISTERED_CAS);

    let address = app.mqtt_address(&instance()).unwrap();
    assert_ne!(address.port(), 0);
    let certs = directory.path().join("certs");
    let key = dev_pki::AdminKey::read(&certs.join("admin-key.json"));
    let key = key.unwrap().unwrap();
    assert_eq!(key.endpoint, format!("http://{}", app.admin_address()));
    assert!(app.banner().contains(&format!("mqtts://{address}")));

    while_it_runs(app, async {
        let accepted = Some(vec![0x20, 2, 0, 0]);
        assert_eq!(connect(&certs, "device-a1", address).await, accepted);
        assert_eq!(connect(&certs, "device-b1", address).await, accepted);
        assert_eq!(connect(&certs, "device-x1", address).await, None);
    })
    .await;
}

#[tokio::test]
async fn later_start_leaves_a_deleted_ca_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let app = App::build(config(directory.path())).await.unwrap();
    let certs = directory.path().join("certs");
    let pem = std::fs::read_to_string(certs.join("ca-a.pem")).unwrap();
    let ca = CaCertificate::from_pem(&pem).unwrap();
    let sn = ca.serial().to_string();
    let instance = instance();
    let deleted = app
        .control()
        .delete_ca(&system(), instance.as_str(), &sn)
        .await;
    deleted.unwrap();
    while_it_runs(app, async {}).await;

    let app = App::build(config(directory.path())).await.unwrap();
    assert_eq!(registered(&app).await, ["ca-b", "ca-b-issuing"]);
}

#[tokio::test]
async fn taken_address_is_told_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(directory.path());
    config.instances[0].mqtt_listen = taken.local_addr().unwrap();
    let Err(error) = App::build(config).await else {
        panic!("it started");
    };
    assert!(
        matches!(error, StartError::Bind { what: "MQTT", .. }),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn second_broker_on_the_same_data_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _first = App::build(config(directory.path())).await.unwrap();
    let second = App::build(config(directory.path())).await;
    assert!(matches!(second, Err(StartError::Store(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_start_that_was_cut_short_is_finished_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let now = time::OffsetDateTime::now_utc();
    let pki = DevPki::ensure(
        &directory.path().join("certs"),
        "http://127.0.0.1:1",
        &instance(),
        now,
    )
    .unwrap();
    let pem = std::fs::read_to_string(pki.certificate("ca-a")).unwrap();
    let ca = CaCertificate::from_pem(&pem).unwrap();
    let store = SqliteStore::open(&config.data_dir.join(DATABASE)).unwrap();
    let record = crate::store::CaRecord {
        instance: instance(),
        id: ca.id(),
        name: "ca-a".to_owned(),
        status: crate::ca::lifecycle::Status::Active,
        der: ca.der().to_vec(),
        verification_pem: None,
        register_code: None,
        registered_at_ms: 1,
    };
    store
        .commit(0, vec![crate::store::Change::PutCa(record)])
        .await
        .unwrap();
    drop(store);
    let app = App::build(config).await.unwrap();
    let mut names = registered(&app).await;
    names.sort();
    assert_eq!(names, ["ca-a", "ca-b", "ca-b-issuing"]);
}

#[tokio::test]
async fn ca_is_inactivated_while_the_thread_of_the_connections_has_no_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    let socket = directory.path().join("admin.sock");
    config.admin.socket = Some(socket.clone());
    let app = App::build(config).await.unwrap();
    let pem = std::fs::read_to_string(directory.path().join("certs").join("ca-a.pem")).unwrap();
    let ca = CaCertificate::from_pem(&pem).unwrap();
    let registry = app.control().registry(&instance()).unwrap();
    let answer = while_it_runs(app, async {
        tokio::task::yield_now().await;
        inactivate(&socket, ca.serial())
    });
    let answer = answer.await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(registry.status(ca.id()), Some(Status::Inactive));
}

/// Waits for the answer on this thread, which does nothing else meanwhile.
fn inactivate(socket: &Path, sn: &CertSerial) -> String {
    let form = format!(
        "Action=InactivateCaCertificate&MqttInstanceId={}&Sn={sn}",
        instance()
    );
    let mut stream = UnixStream::connect(socket).unwrap();
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A session that never ends and waits for topic `w`, and one that has ended and whose will for that
/// topic is overdue.
async fn put_overdue_will(path: &Path) {
    let session = |key, expires_at_ms| WholeSession {
        session: SessionRecord {
            key,
            client_id: format!("c{key}").into(),
            holder: HolderRecord {
                purpose: Purpose::Device,
                administrator: false,
                issuer: CaKeyId::from_bytes([1; 32]),
                serial: CertSerial::from_be_bytes(&[1]).unwrap(),
                common_name: Some("c".to_owned()),
                ca_sn: CertSerial::from_be_bytes(&[1]).unwrap(),
                address: ([127, 0, 0, 1], 1).into(),
                since_ms: 0,
            },
            expires_at_ms,
            next_packet_id: 1,
        },
        will: None,
        subscriptions: Vec::new(),
        received: Vec::new(),
        in_flight: Vec::new(),
        queue: Vec::new(),
        first: 0,
    };
    let mut waits = session(1, None);
    waits.subscriptions.push(SubscriptionRecord {
        filter: "w".to_owned(),
        options: 1,
        identifier: None,
    });
    let mut ended = session(2, Some(2));
    ended.will = Some(WillRecord {
        due_at_ms: 2,
        expiry_seconds: None,
        qos: 1,
        retain: false,
        topic: "w".into(),
        properties: Bytes::new(),
        payload: "gone".into(),
    });
    let store = SqliteSessions::open(path).unwrap();
    for whole in [waits, ended] {
        store.write(Write::Session(Box::new(whole)));
    }
    store.close().await;
}

#[tokio::test]
async fn start_that_fails_loses_no_overdue_will() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    drop(SqliteStore::open(&config.data_dir.join(DATABASE)).unwrap());
    let path = config.data_dir.join(format!("sessions-{}.db", instance()));
    put_overdue_will(&path).await;
    // That is found out when the sessions are back.
    config.admin.socket = Some(directory.path().join("missing").join("admin.sock"));
    let failed = App::build(config).await;
    assert!(matches!(failed, Err(StartError::Local(_))));
    let store = SqliteSessions::open(&path).unwrap();
    let (to, mut rows) = tokio::sync::mpsc::channel(16);
    store.load(to).await.unwrap();
    let mut waiting = Vec::new();
    while let Some(batch) = rows.recv().await {
        for row in batch {
            match row {
                Row::Session(session) => assert_eq!(session.key, 1),
                Row::Queued(1, _, message) => waiting.push(message.payload),
                _ => {}
            }
        }
    }
    assert_eq!(waiting, ["gone"]);
}

//! The API through a real listener: the server, the signatures and the client of this crate.

mod commands;
mod door;
mod operations;

use std::collections::HashMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::action::{Action, VERSION};
use super::errors::{ApiError, Code};
use super::operations::{Execute, Outcome};
use super::params::Params;
use super::router::{Api, RequestLimits};
use super::server::{AdminServer, ConnectionLimits};
use super::service::{Service, ServiceSettings};
use super::signature::authenticator::Authenticator;
use super::signature::replay::tests::TestKeeper;
use super::signature::replay::{KeepNonces, ReplayGuard};
use super::signature::{self, v3};
use crate::ca::lifecycle::Status;
use crate::cli::client::{Connection, ConnectionArgs};
use crate::config::SignatureV1;
use crate::config::secret::Secret;
use crate::control::Caller;
use crate::control::access_key::{AccessKey, AccessKeys, KeyOrigin};
use crate::control::grant::KeyGrant;

const INSTANCE: &str = "post-cn-test0001";
const SECRET: &str = "a-secret-of-the-tests";

/// How a server of a test differs from the usual.
#[derive(Default)]
struct Setup {
    settings: ServiceSettings,
    limits: RequestLimits,
    connections: ConnectionLimits,
    tls: Option<Arc<rustls::ServerConfig>>,
    keeper: Arc<TestKeeper>,
}

struct Server {
    runtime: Runtime,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: Option<JoinHandle<()>>,
    files: tempfile::TempDir,
}

impl Server {
    fn start(runtime: Runtime, operations: Arc<dyn Execute>, setup: Setup) -> Self {
        let key = |id: &str, account: &str| AccessKey {
            id: id.parse().unwrap(),
            secret: Secret::new(SECRET.to_owned()),
            account: account.parse().unwrap(),
            grant: Arc::new(KeyGrant::new(None)),
            status: Status::Active,
            origin: KeyOrigin::Configuration,
        };
        let keys: AccessKeys = [key("operator", "owner"), key("stranger", "other")]
            .into_iter()
            .collect();
        let replays = ReplayGuard::new(Arc::clone(&setup.keeper) as Arc<dyn KeepNonces>, 0, []);
        let api = Api {
            service: Arc::new(Service::new(operations, setup.settings)),
            authenticator: Authenticator::new(Arc::new(keys), SignatureV1::Accept, replays),
            owner: Arc::new(|_| None),
            only_instance: None,
            ready: Arc::new(|| Err("no store".to_owned())),
            metrics: Arc::new(|| "portcullis_up 1\n".to_owned()),
            clock: Arc::new(SystemTime::now),
            limits: setup.limits,
        };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let server = AdminServer::new(listener, setup.tls, None, api, setup.connections);
        let address = server.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = runtime.spawn(server.serve(shutdown.clone()));
        Self {
            runtime,
            address,
            shutdown,
            serving: Some(serving),
            files: tempfile::tempdir().unwrap(),
        }
    }

    /// With operations that answer without any [`Control`](crate::control::Control).
    fn echo(setup: Setup) -> Self {
        Self::start(runtime(), Arc::new(Echo), setup)
    }

    /// The client of the command line.
    fn client(&self, scheme: &str, key: &str, more: &[&str]) -> Connection {
        let file = self.files.path().join(format!("{key}.json"));
        let content = json!({
            "AccessKeyId": key,
            "AccessKeySecret": SECRET,
            "Endpoint": format!("{scheme}://{}", self.address),
            "MqttInstanceId": INSTANCE,
        });
        std::fs::write(&file, content.to_string()).unwrap();
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            connection: ConnectionArgs,
        }
        let mut line = vec!["x", "--key-file", file.to_str().unwrap()];
        line.extend(more);
        let line: Line = clap::Parser::parse_from(line);
        line.connection.open().unwrap()
    }

    /// Send these octets and read to the end.
    fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(request).unwrap();
        Answer::read(&mut stream)
    }

    /// A request signed with version 3, to be sent as it is or tampered with.
    fn signed(&self, action: &str, query: &str) -> String {
        let params = Params::decode(query).unwrap();
        let host = self.address.to_string();
        let date = signature::format_date(SystemTime::now().into());
        let nonce = uuid::Uuid::new_v4().to_string();
        let payload = signature::sha256_hex(b"");
        let headers = [
            ("host", host.as_str()),
            ("x-acs-action", action),
            ("x-acs-content-sha256", &payload),
            ("x-acs-date", &date),
            ("x-acs-signature-nonce", &nonce),
            ("x-acs-version", VERSION),
        ];
        let text = v3::string_to_sign("POST", "/", &params, &headers, &payload);
        let signature = signature::Method::V3.sign(&Secret::new(SECRET.to_owned()), &text);
        let authorization = v3::authorization("operator", &headers, &signature);
        let fields: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!(
            "POST /?{query} HTTP/1.1\r\n{fields}authorization: {authorization}\r\nconnection: close\r\n\r\n"
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(serving) = self.serving.take() {
            let _ = self.runtime.block_on(serving);
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Answer {
    /// To the end of the connection.
    fn read(stream: &mut TcpStream) -> Self {
        let mut octets = Vec::new();
        // A reset after the answer, for what was not read of the request, is no matter.
        let _ = stream.read_to_end(&mut octets);
        let text = String::from_utf8(octets).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().unwrap_or_default();
        let status = status.split(' ').nth(1).unwrap_or("0").parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self {
            status,
            headers,
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Check that it is a refusal as the SDKs want it, and give its code.
    #[track_caller]
    fn code(&self) -> (u16, String) {
        let body = self.json();
        for name in ["RequestId", "HostId", "Code", "Message"] {
            assert!(
                body[name].as_str().is_some_and(|it| !it.is_empty()),
                "{body}"
            );
        }
        assert_eq!(
            self.headers["content-type"],
            "application/json; charset=utf-8"
        );
        assert_eq!(self.headers["x-acs-request-id"], body["RequestId"]);
        assert!(!self.headers.contains_key("location"));
        (self.status, body["Code"].as_str().unwrap().to_owned())
    }
}

/// Answers with the `Sn` it is given; some of them have their own effect.
struct Echo;

impl Execute for Echo {
    fn execute(
        &self,
        caller: Caller,
        action: Action,
        params: Params,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(async move {
            match params.get("Sn") {
                Some("panic") => panic!("as asked"),
                Some("never") => std::future::pending().await,
                Some("fail") => Err(ApiError::internal("a cause")),
                sn => Ok(json!({
                    "Sn": sn,
                    "Action": action.name(),
                    "Account": caller.account.as_str(),
                })),
            }
        })
    }
}

fn per_second(calls: u32) -> ServiceSettings {
    ServiceSettings {
        calls_per_second: NonZeroU32::new(calls).unwrap(),
        ..ServiceSettings::default()
    }
}

fn text(code: Code) -> String {
    code.as_str().to_owned()
}

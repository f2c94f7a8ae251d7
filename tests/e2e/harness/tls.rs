//! A TLS client that shows what usual clients hide: the alert, resumption, the flights.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::client::{ClientConnection, ClientSessionStore, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore};

use super::DEADLINE;
use super::mqtt::{Channel, Mqtt};

/// A protocol version to offer, alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V12,
    V13,
}

/// Both, for scenarios that hold in either.
pub const BOTH: [Version; 2] = [Version::V12, Version::V13];

/// A certificate chain and its key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The peer sent a fatal alert.
    Alert(AlertDescription),
    /// The peer closed, with or without saying so.
    Closed,
    /// Nothing came within the deadline.
    Silent,
    /// The peer did something that is no TLS.
    Broken(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Identity {
    /// Read PEM files.
    pub fn from_files(certificate: &Path, key: &Path) -> Self {
        Self {
            chain: CertificateDer::pem_file_iter(certificate)
                .unwrap()
                .map(Result::unwrap)
                .collect(),
            key: PrivateKeyDer::from_pem_file(key).unwrap(),
        }
    }
}

/// Makes connections; keeps session tickets between them, as a device would.
pub struct TlsClient {
    address: SocketAddr,
    server_name: String,
    config: Arc<ClientConfig>,
    /// The address of this host that it connects from, if it matters.
    source: Option<IpAddr>,
    /// What it sends before TLS, as a proxy would.
    before: Vec<u8>,
}

impl TlsClient {
    /// A client of one protocol version, with or without a certificate.
    pub fn new(
        address: SocketAddr,
        server_ca: &Path,
        identity: Option<&Identity>,
        version: Version,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(server_ca).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let versions = match version {
            Version::V12 => [&rustls::version::TLS12],
            Version::V13 => [&rustls::version::TLS13],
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .unwrap(),
        };
        config.resumption = Resumption::in_memory_sessions(8);
        Self {
            address,
            server_name: "localhost".to_owned(),
            config: Arc::new(config),
            source: None,
            before: Vec::new(),
        }
    }

    /// The same client, with the same sessions to resume, asking for another server name.
    pub fn asking_for(&self, server_name: &str) -> Self {
        Self {
            address: self.address,
            server_name: server_name.to_owned(),
            config: self.config.clone(),
            source: self.source,
            before: self.before.clone(),
        }
    }

    /// The same client asking for no server name.
    pub fn asking_for_none(mut self) -> Self {
        Arc::make_mut(&mut self.config).enable_sni = false;
        self
    }

    /// The same client, connecting elsewhere.
    pub fn going_to(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// The same client, connecting from another address of this host.
    pub fn coming_from(mut self, source: &str) -> Self {
        self.source = Some(source.parse().unwrap());
        self
    }

    /// The same client, whose connections begin with these octets before TLS.
    pub fn beginning_with(mut self, octets: &[u8]) -> Self {
        self.before = octets.to_vec();
        self
    }

    /// The same client with a store of its own for the sessions it is given.
    pub fn keeping_sessions_in(mut self, store: Arc<dyn ClientSessionStore>) -> Self {
        Arc::make_mut(&mut self.config).resumption = Resumption::store(store);
        self
    }

    /// The same client with its flights cut into many small records.
    pub fn with_small_records(mut self) -> Self {
        Arc::make_mut(&mut self.config).max_fragment_size = Some(64);
        self
    }

    /// What it brings along, for clients of another make.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    fn open(&self) -> TlsStream {
        let mut socket = match self.source {
            Some(source) => connect_from(source, self.address),
            None => TcpStream::connect(self.address).unwrap(),
        };
        socket.set_nodelay(true).unwrap();
        // Who is not wanted may be gone already.
        let _ = socket.write_all(&self.before);
        let name = ServerName::try_from(self.server_name.clone()).unwrap();
        TlsStream {
            connection: ClientConnection::new(self.config.clone(), name).unwrap(),
            socket,
        }
    }

    /// The record of its ClientHello.
    pub fn hello(&self) -> Vec<u8> {
        let name = ServerName::try_from(self.server_name.clone()).unwrap();
        let mut connection = ClientConnection::new(self.config.clone(), name).unwrap();
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).unwrap();
        hello
    }

    /// Run the handshake as far as this side sees it.
    ///
    /// In TLS 1.3 the client is done before the server has looked at its certificate: only an
    /// answer to CONNECT says that it was accepted.
    pub fn handshake(&self) -> Result<TlsStream, End> {
        let mut stream = self.open();
        while stream.connection.is_handshaking() {
            stream.flush()?;
            if stream.connection.is_handshaking() {
                stream.receive()?;
            }
        }
        stream.flush()?;
        Ok(stream)
    }

    /// Handshake and CONNECT (MQTT 5, clean start, a client id of its own).
    pub fn connect(&self) -> Result<Mqtt, End> {
        Mqtt::connect(self.handshake()?, Mqtt::hello(""))
    }

    /// Whether it gets a CONNACK that says yes.
    pub fn admitted(&self) -> bool {
        self.connect().is_ok()
    }

    /// How the server refuses it. Sends nothing after the handshake, so that the alert is not
    /// lost in a reset.
    ///
    /// # Panics
    /// If it is not refused.
    pub fn refusal(&self) -> End {
        let mut stream = match self.handshake() {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        loop {
            match stream.receive() {
                Ok(()) => {}
                Err(End::Silent) => panic!("the server keeps a connection it should refuse"),
                Err(end) => return end,
            }
        }
    }

    /// Check that the server refuses it with this alert.
    #[track_caller]
    pub fn refused_with(&self, alert: AlertDescription) {
        assert_eq!(self.refusal(), End::Alert(alert));
    }

    /// Send everything of the handshake up to the record that would complete it: the server has
    /// seen the certificate, and waits for Finished.
    pub fn hold_before_finished(&self) -> Held {
        let mut stream = self.open();
        let mut out = Vec::new();
        let mut flights = 0;
        loop {
            out.clear();
            while stream.connection.wants_write() {
                stream.connection.write_tls(&mut out).unwrap();
            }
            let records = records(&out);
            let has_handshake = records.iter().any(|r| r[0] != 20);
            if flights > 0 && has_handshake {
                let last = records.last().unwrap().len();
                let (now, held) = out.split_at(out.len() - last);
                stream.socket.write_all(now).unwrap();
                let held = held.to_vec();
                return Held { stream, held };
            }
            flights += usize::from(has_handshake);
            stream.socket.write_all(&out).unwrap();
            stream
                .receive()
                .expect("the server's flight before the hold");
        }
    }
}

/// A handshake that lacks its last record.
pub struct Held {
    stream: TlsStream,
    held: Vec<u8>,
}

impl Held {
    /// Send the last record; says whether the server's Finished comes, which completes the
    /// handshake. Only TLS 1.2 has one at this place.
    pub fn completes(mut self) -> bool {
        assert_eq!(
            self.stream.connection.protocol_version(),
            Some(ProtocolVersion::TLSv1_2)
        );
        if self.stream.socket.write_all(&self.held).is_err() {
            return false;
        }
        while self.stream.connection.is_handshaking() {
            if self.stream.receive().is_err() {
                return false;
            }
        }
        true
    }

    /// Send the last record and CONNECT; says whether the server answers with CONNACK.
    pub fn release(mut self) -> Result<Mqtt, End> {
        self.stream
            .socket
            .write_all(&self.held)
            .map_err(|_| End::Closed)?;
        while self.stream.connection.is_handshaking() {
            self.stream.receive()?;
        }
        Mqtt::connect(self.stream, Mqtt::hello(""))
    }
}

fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while bytes.len() >= 5 {
        let length = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        let (record, rest) = bytes.split_at(length);
        found.push(record);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a record");
    found
}

/// A TLS connection whose handshake is done, as far as this side sees it.
pub struct TlsStream {
    connection: ClientConnection,
    socket: TcpStream,
}

impl TlsStream {
    /// Whether the handshake was a resumption.
    pub fn kind(&self) -> HandshakeKind {
        self.connection.handshake_kind().unwrap()
    }

    /// The server's certificate.
    pub fn server_certificate(&self) -> &CertificateDer<'static> {
        &self.connection.peer_certificates().unwrap()[0]
    }

    /// Send plaintext.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        // No more at a time than is buffered before it is sent.
        for some in bytes.chunks(16 * 1024) {
            self.connection.writer().write_all(some).unwrap();
            self.flush()?;
        }
        Ok(())
    }

    /// Send these octets as they are, outside of the connection that is encrypted.
    pub fn send_in_clear(&mut self, octets: &[u8]) {
        self.socket.write_all(octets).unwrap();
    }

    /// Plaintext, as soon as there is some.
    pub fn read(&mut self) -> Result<Vec<u8>, End> {
        loop {
            let mut buffer = vec![0; 16 * 1024];
            match self.connection.reader().read(&mut buffer) {
                Ok(0) => return Err(End::Closed),
                Ok(read) => {
                    buffer.truncate(read);
                    return Ok(buffer);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.receive()?,
                Err(_) => return Err(End::Closed),
            }
        }
    }

    fn flush(&mut self) -> Result<(), End> {
        while self.connection.wants_write() {
            if let Err(error) = self.connection.write_tls(&mut self.socket) {
                // The peer may have said why before it closed.
                return Err(match self.receive() {
                    Err(End::Alert(alert)) => End::Alert(alert),
                    _ => io_end(&error),
                });
            }
        }
        Ok(())
    }

    /// Take in what the peer sends next.
    fn receive(&mut self) -> Result<(), End> {
        self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        // A read with a time limit is interrupted when the process is stopped and goes on.
        let read = loop {
            match self.connection.read_tls(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => return Err(End::Closed),
            Ok(_) => {}
            Err(error) => return Err(io_end(&error)),
        }
        match self.connection.process_new_packets() {
            Ok(_) => Ok(()),
            Err(rustls::Error::AlertReceived(alert)) => Err(End::Alert(alert)),
            Err(error) => Err(End::Broken(error.to_string())),
        }
    }
}

impl Channel for TlsStream {
    fn send(&mut self, octets: &[u8]) -> Result<(), End> {
        TlsStream::send(self, octets)
    }
    fn read(&mut self) -> Result<Vec<u8>, End> {
        TlsStream::read(self)
    }
}

/// Connect from this address of the host; every address of 127/8 is one.
pub fn connect_from(source: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn io_end(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => End::Silent,
        _ => End::Closed,
    }
}

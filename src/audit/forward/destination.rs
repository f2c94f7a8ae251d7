//! Where records are sent, and the connection to it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Where records are sent.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A datagram socket of this host, such as `/dev/log`.
    Unix(PathBuf),
    /// Datagrams.
    Udp(HostPort),
    /// A connection.
    Tcp(HostPort),
    /// A connection over TLS, to a server whose certificate is for its name.
    Tls(HostPort, Arc<ClientConfig>),
}

/// A name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// What is written is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDestination {
    /// It does not begin with one of the words.
    #[error("must be \"unix:PATH\", \"udp:HOST:PORT\", \"tcp:HOST:PORT\" or \"tls:HOST:PORT\"")]
    Kind,
    /// There is no host or no port.
    #[error("must have a host and a port from 1 to 65535, such as \"tcp:logs.example.com:6514\"")]
    Place,
    /// TLS to a name that no certificate can have.
    #[error("{0:?} is no name or address that a certificate can have")]
    Name(String),
    /// TLS without CAs.
    #[error("needs audit.forward.ca_file: the PEM file of the CAs that vouch for the collector")]
    NoTrust,
    /// CAs without TLS.
    #[error("has no use for audit.forward.ca_file: only tls: has")]
    Trust,
}

impl Destination {
    /// Read `unix:PATH`, `udp:HOST:PORT`, `tcp:HOST:PORT` or, with whom to trust,
    /// `tls:HOST:PORT`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str, trust: Option<Arc<ClientConfig>>) -> Result<Self, BadDestination> {
        let (kind, place) = text.split_once(':').ok_or(BadDestination::Kind)?;
        if kind == "tls" {
            let place: HostPort = place.parse()?;
            if ServerName::try_from(place.host.as_str()).is_err() {
                return Err(BadDestination::Name(place.host));
            }
            return Ok(Self::Tls(place, trust.ok_or(BadDestination::NoTrust)?));
        }
        let parsed = match kind {
            "unix" if place.is_empty() => Err(BadDestination::Kind),
            "unix" => Ok(Self::Unix(place.into())),
            "udp" => Ok(Self::Udp(place.parse()?)),
            "tcp" => Ok(Self::Tcp(place.parse()?)),
            _ => Err(BadDestination::Kind),
        };
        match trust {
            Some(_) if parsed.is_ok() => Err(BadDestination::Trust),
            _ => parsed,
        }
    }

    /// Whether records follow each other there, without a border that can be seen.
    pub(super) fn is_stream(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Udp(_) => false,
            Self::Tcp(_) | Self::Tls(..) => true,
        }
    }

    /// Be ready to send there.
    pub(super) fn connect(&self) -> io::Result<Connection> {
        Ok(match self {
            Self::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(LIMIT))?;
                Connection::Unix(socket)
            }
            Self::Udp(place) => place.try_each(|address| {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Ok(Connection::Udp(socket))
            })?,
            Self::Tcp(place) => Connection::Tcp(place.connect()?),
            Self::Tls(place, config) => {
                let name = ServerName::try_from(place.host.clone()).map_err(io::Error::other)?;
                let tls =
                    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(tls, place.connect()?);
                // Now, so that a collector that is not to be trusted is told as what it is.
                stream.conn.complete_io(&mut stream.sock)?;
                Connection::Tls(Box::new(stream))
            }
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(place) => write!(f, "udp:{place}"),
            Self::Tcp(place) => write!(f, "tcp:{place}"),
            Self::Tls(place, _) => write!(f, "tls:{place}"),
        }
    }
}

impl HostPort {
    fn connect(&self) -> io::Result<TcpStream> {
        let stream = self.try_each(|address| TcpStream::connect_timeout(&address, LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// With the first address of the host with which it works.
    fn try_each<T>(&self, mut with: impl FnMut(SocketAddr) -> io::Result<T>) -> io::Result<T> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match with(address) {
                Ok(it) => return Ok(it),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

impl FromStr for HostPort {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(BadDestination::Place)?;
        let port = port.parse().ok().filter(|port| *port != 0);
        let in_brackets = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match in_brackets {
            Some(address) => address.parse::<Ipv6Addr>().ok().map(|it| it.to_string()),
            None => (!host.is_empty() && !host.contains([':', '/'])).then(|| host.to_owned()),
        };
        match (host, port) {
            (Some(host), Some(port)) => Ok(Self { host, port }),
            _ => Err(BadDestination::Place),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}

/// Something to send over.
pub(super) enum Connection {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Why it was not sent.
pub(super) enum NotSent {
    /// Never will be: a datagram is not so long.
    TooLong,
    /// Now.
    Failed(io::Error),
}

impl Connection {
    /// Whether the other side has it open, as far as is known here: what is sent after it has closed
    /// is lost without an error. What it says meanwhile is read and means nothing.
    pub(super) fn is_open(&mut self) -> bool {
        let heard = match self {
            Self::Unix(_) | Self::Udp(_) => return true,
            Self::Tcp(stream) => stream.set_nonblocking(true).and_then(|()| drain(stream)),
            Self::Tls(stream) => (stream.sock.set_nonblocking(true)).and_then(|()| drain(stream)),
        };
        let blocking = match self {
            Self::Unix(_) | Self::Udp(_) => return true,
            Self::Tcp(stream) => stream.set_nonblocking(false),
            Self::Tls(stream) => stream.sock.set_nonblocking(false),
        };
        blocking.is_ok() && heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Send it, as one datagram or on the connection.
    pub(super) fn send(&mut self, octets: &[u8]) -> Result<(), NotSent> {
        let sent = match self {
            Self::Unix(socket) => socket.send(octets).map(|_| ()),
            Self::Udp(socket) => socket.send(octets).map(|_| ()),
            Self::Tcp(stream) => stream.write_all(octets),
            Self::Tls(stream) => stream.write_all(octets).and_then(|()| stream.flush()),
        };
        sent.map_err(|error| match error.raw_os_error() {
            Some(code) if code == nix::errno::Errno::EMSGSIZE as i32 => NotSent::TooLong,
            _ => NotSent::Failed(error),
        })
    }
}

/// Read what has come, up to a limit; what is more, a collector has no reason to say.
fn drain(stream: &mut impl Read) -> io::Result<()> {
    let mut buffer = [0; 1024];
    for _ in 0..64 {
        if stream.read(&mut buffer)? == 0 {
            break;
        }
    }
    Ok(())
}

/// How long connecting, and sending some records, may take.
const LIMIT: Duration = Duration::from_secs(5);

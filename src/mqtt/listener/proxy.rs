//! Who a client behind a load balancer is: the header of the PROXY protocol, version 2.
//!
//! The balancer passes TLS through and says first where the connection comes from. Whoever can say
//! that can say anything, so only trusted networks may, and nothing but the address is taken from
//! it: what a header tells about TLS or certificates is skipped.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ppp::v2::{Addresses, Command, Header, ParseError, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Which proxies stand before an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proxies {
    /// There are none: clients come by themselves.
    #[default]
    None,
    /// Every connection comes from one of these networks, and begins with a header.
    Trusted(Vec<IpNet>),
}

impl Proxies {
    /// Whether there is a proxy with this address.
    pub(super) fn are_trusted_at(&self, address: IpAddr) -> bool {
        // A socket for both families shows addresses of IPv4 as such of IPv6.
        let address = address.to_canonical();
        match self {
            Self::None => false,
            Self::Trusted(networks) => networks.iter().any(|it| it.contains(&address)),
        }
    }
}

/// Why a connection has no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHeader {
    /// It ended before anything came, as those do that only look whether somebody listens.
    #[error("the connection was closed")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("what came is no header of the PROXY protocol, version 2: {0}")]
    Malformed(#[from] ParseError),
    #[error("the header has {0} octets, more than are read")]
    TooLong(usize),
    #[error("the header tells of datagrams")]
    Datagrams,
}

/// Read a header, and not one octet more. Gives where the client is; `None` if the proxy speaks for
/// itself or does not tell. The caller bounds the time.
pub(super) async fn read_header<S>(stream: &mut S) -> Result<Option<SocketAddr>, NoHeader>
where
    S: AsyncRead + Unpin,
{
    let mut octets = Vec::with_capacity(USUAL);
    let mut length = FIXED;
    // What is none is known for it as soon as it differs, not when there is enough of it.
    loop {
        let missing = length.saturating_sub(octets.len());
        if missing > 0 {
            let mut rest = (&mut *stream).take(missing as u64);
            if rest.read_buf(&mut octets).await? == 0 {
                return Err(match octets.is_empty() {
                    true => NoHeader::Closed,
                    false => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
                });
            }
        }
        if let Some([LOCAL, family]) = octets.get_mut(12..14) {
            // Whatever family a proxy names that speaks for itself, it counts as none.
            *family = 0;
        }
        match Header::try_from(octets.as_slice()) {
            Ok(header) => return client(&header),
            Err(ParseError::Incomplete(_)) => {}
            Err(ParseError::Partial(_, rest)) if rest > MOST - FIXED => {
                return Err(NoHeader::TooLong(rest));
            }
            Err(ParseError::Partial(_, rest)) => length = FIXED + rest,
            Err(error) => return Err(error.into()),
        }
    }
}

fn client(header: &Header<'_>) -> Result<Option<SocketAddr>, NoHeader> {
    if header.command == Command::Local {
        return Ok(None);
    }
    let address: SocketAddr = match header.addresses {
        Addresses::IPv4(it) => (it.source_address, it.source_port).into(),
        Addresses::IPv6(it) => (it.source_address, it.source_port).into(),
        Addresses::Unspecified | Addresses::Unix(_) => return Ok(None),
    };
    match header.protocol {
        Protocol::Stream => Ok(Some(address)),
        Protocol::Datagram | Protocol::Unspecified => Err(NoHeader::Datagrams),
    }
}

/// Version 2, and the command of a proxy that speaks for itself.
const LOCAL: u8 = 0x20;

/// Octets before the addresses; they say how many follow.
const FIXED: usize = 16;

/// Octets of a header with addresses of IPv6 and nothing more.
const USUAL: usize = 52;

/// Octets of a header that are read. Balancers add some hundreds to the addresses at most.
const MOST: usize = 4_096;

#[cfg(test)]
mod tests;

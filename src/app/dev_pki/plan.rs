//! What the development tree consists of.

/// One certificate with its key: `NAME.pem` and `NAME.key`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Name of the files, without the ending.
    pub(super) name: &'static str,
    /// Common name of the subject.
    pub(super) common_name: &'static str,
    pub(super) role: Role,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A CA, signed by itself or by another piece.
    Authority {
        issuer: Option<&'static str>,
        signs: Signs,
        when_expired: WhenExpired,
    },
    /// A TLS client: a device or an administrator.
    Client { issuer: &'static str },
    /// The broker's own certificate.
    Server { issuer: &'static str },
}

/// What a CA may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signs {
    /// End entities only (path length 0).
    EndEntities,
    /// Other CAs too.
    Anything,
}

/// What happens to a CA certificate at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenExpired {
    /// It stays as it is: the registry knows it by its hash.
    Keep,
    /// A new certificate is made for the same key.
    Renew,
}

/// Names under which the broker registers CAs, which are also the names of their files.
pub const REGISTERED_CAS: [&str; 3] = ["ca-a", "ca-b", "ca-b-issuing"];

/// All pieces, each after the one that signs it.
pub(super) const PIECES: [Piece; 13] = [
    root(
        "server-ca",
        "Portcullis development server CA",
        Signs::EndEntities,
        WhenExpired::Renew,
    ),
    root(
        "admin-ca",
        "Portcullis development admin CA",
        Signs::EndEntities,
        WhenExpired::Renew,
    ),
    root(
        "ca-a",
        "Portcullis development device CA A",
        Signs::Anything,
        WhenExpired::Keep,
    ),
    root(
        "ca-b",
        "Portcullis development device CA B",
        Signs::Anything,
        WhenExpired::Keep,
    ),
    root(
        "ca-x",
        "Portcullis development device CA X, not registered",
        Signs::Anything,
        WhenExpired::Renew,
    ),
    Piece {
        name: "ca-b-issuing",
        common_name: "Portcullis development device CA B, issuing",
        role: Role::Authority {
            issuer: Some("ca-b"),
            signs: Signs::EndEntities,
            when_expired: WhenExpired::Keep,
        },
    },
    Piece {
        name: "server",
        common_name: "localhost",
        role: Role::Server {
            issuer: "server-ca",
        },
    },
    client("device-a1", "ca-a"),
    client("device-a2", "ca-a"),
    client("device-b1", "ca-b-issuing"),
    client("device-b2", "ca-b-issuing"),
    client("device-x1", "ca-x"),
    client("admin", "admin-ca"),
];

const fn root(
    name: &'static str,
    common_name: &'static str,
    signs: Signs,
    when_expired: WhenExpired,
) -> Piece {
    Piece {
        name,
        common_name,
        role: Role::Authority {
            issuer: None,
            signs,
            when_expired,
        },
    }
}

const fn client(name: &'static str, issuer: &'static str) -> Piece {
    Piece {
        name,
        common_name: name,
        role: Role::Client { issuer },
    }
}

impl Piece {
    /// Name of the piece that signs it; `None` if it signs itself.
    pub(super) fn issuer(&self) -> Option<&'static str> {
        match self.role {
            Role::Authority { issuer, .. } => issuer,
            Role::Client { issuer } | Role::Server { issuer } => Some(issuer),
        }
    }
}

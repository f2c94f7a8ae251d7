//! Why a CRL is not taken.

use webpki::Error as E;

/// Why a CRL cannot be read, or is not one of a registered CA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// Neither DER, nor one CRL in PEM, nor base64.
    #[error("it is neither DER nor one CRL in PEM nor base64 of one: {0}")]
    Encoding(String),
    /// Larger than allowed.
    #[error("it has {octets} octets, the most is {most}")]
    TooLarge {
        /// How many it has.
        octets: usize,
        /// How many it may have.
        most: usize,
    },
    /// Not whole, or not a CRL.
    #[error("it cannot be read: {0}")]
    Malformed(String),
    /// Version 1, which has no number.
    #[error("it is not of version 2, which alone has a number")]
    Version,
    /// Only what changed since another one.
    #[error("it is a delta CRL; import the complete one")]
    Delta,
    /// About certificates of other issuers.
    #[error("it is an indirect CRL; import those that the CAs sign themselves")]
    Indirect,
    /// For some reasons of revocation only.
    #[error("it is for some reasons of revocation only; import one for all of them")]
    SomeReasons,
    /// Its scope cannot be told.
    #[error(
        "its issuing distribution point is not understood: it must have one to {MOST_POINTS} URIs \
         of at most {MOST_POINT_OCTETS} octets, and not exclude every certificate"
    )]
    DistributionPoint,
    /// An extension that must be understood is not.
    #[error("it has a critical extension that is not understood")]
    CriticalExtension,
    /// Without number, or with one that is none.
    #[error("it has no CRL number of 1 to 20 octets")]
    Number,
    /// The dates contradict each other.
    #[error("the next update is not after this one")]
    Dates,
    /// An entry without a serial number of the allowed length.
    #[error("the serial number of an entry does not have 1 to 20 octets")]
    Serial,
    /// Such entries belong into delta CRLs only.
    #[error("an entry has the reason removeFromCRL, which only a delta CRL may have")]
    RemoveFromCrl,
    /// More entries than allowed.
    #[error("it has more than {0} entries")]
    TooManyEntries(usize),
    /// Nobody who is registered signed it.
    #[error("no registered CA with the name of its issuer ({issuer}) signed it")]
    NotSigned {
        /// The issuer's name, as the list has it.
        issuer: String,
    },
    /// The signer may not sign CRLs.
    #[error("its issuer ({issuer}) may not sign CRLs: cRLSign is not in its key usage")]
    NoCrlSign {
        /// The issuer's name.
        issuer: String,
    },
    /// Signed with something weak or unknown.
    #[error("the algorithm of its signature is not one that is taken")]
    SignatureAlgorithm,
}

impl CrlError {
    /// What the strict reader objects to.
    pub(super) fn of(error: &E) -> Self {
        match error {
            E::UnsupportedCrlVersion => Self::Version,
            E::UnsupportedDeltaCrl => Self::Delta,
            E::UnsupportedIndirectCrl => Self::Indirect,
            E::UnsupportedRevocationReasonsPartitioning => Self::SomeReasons,
            E::UnsupportedCrlIssuingDistributionPoint => Self::DistributionPoint,
            E::UnsupportedCriticalExtension => Self::CriticalExtension,
            E::InvalidCrlNumber => Self::Number,
            E::InvalidSerialNumber => Self::Serial,
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// Distribution points that one list may name; real ones name one or two.
pub(super) const MOST_POINTS: usize = 16;

/// The longest name of a distribution point.
pub(super) const MOST_POINT_OCTETS: usize = 2048;

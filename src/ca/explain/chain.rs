//! A chain of certificates as it is given to be explained.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject, SectionKind};

use super::trace::TracedPath;
use super::{Facts, Sent};
use crate::ca::certificate::with_line_ends;
use crate::ca::error::CertificateError;

/// A chain as a TLS client would send it: the device's certificate first, then what it sends after
/// it. At least one certificate, at most [`Chain::MOST`]; what is in them is not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    leaf: CertificateDer<'static>,
    rest: Vec<CertificateDer<'static>>,
}

impl Chain {
    /// Certificates that are read. The gate takes fewer; here more are read, to say so.
    pub const MOST: usize = 32;

    /// The longest text, in octets.
    pub const MOST_OCTETS: usize = 256 * 1024;

    /// The certificates of a text in PEM, in their order.
    ///
    /// # Errors
    /// [`CertificateError`] if there is none, something else, or too much.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        if pem.len() > Self::MOST_OCTETS {
            return Err(CertificateError::TooLarge {
                octets: pem.len(),
                most: Self::MOST_OCTETS,
            });
        }
        let text = with_line_ends(pem);
        let mut all = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
            match section {
                Ok((SectionKind::Certificate, _)) if all.len() == Self::MOST => {
                    return Err(CertificateError::Pem(format!(
                        "there are more than {} certificates in it",
                        Self::MOST
                    )));
                }
                Ok((SectionKind::Certificate, der)) => all.push(CertificateDer::from(der)),
                Ok(_) => {
                    return Err(CertificateError::Pem(
                        "there is something other than certificates in it; send certificates \
                         alone, never a key"
                            .to_owned(),
                    ));
                }
                Err(error) => return Err(CertificateError::Pem(error.to_string())),
            }
        }
        let mut all = all.into_iter();
        match all.next() {
            Some(leaf) => Ok(Self {
                leaf,
                rest: all.collect(),
            }),
            None => Err(CertificateError::Pem(
                "it holds no certificate; it must begin with -----BEGIN CERTIFICATE-----"
                    .to_owned(),
            )),
        }
    }

    /// The device's certificate, and those after it.
    pub fn parts(&self) -> (&CertificateDer<'static>, &[CertificateDer<'static>]) {
        (&self.leaf, &self.rest)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.leaf).chain(&self.rest)
    }

    pub(super) fn sent(&self, traced: &[TracedPath]) -> Vec<Sent> {
        let on_a_path = |der: &CertificateDer<'_>| {
            let mut all = traced.iter().flat_map(|path| &path.intermediates);
            all.any(|(used, _)| used.as_slice() == der.as_ref())
        };
        self.all()
            .enumerate()
            .map(|(place, der)| Sent {
                facts: Facts::of_der(der),
                used: place == 0 || on_a_path(der),
            })
            .collect()
    }
}

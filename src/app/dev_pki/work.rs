//! Going over the directory: what is missing is made, what has expired is renewed.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use time::{Duration, OffsetDateTime};

use super::inspect::{self, Existing, Found};
use super::plan::{PIECES, Piece, Role, WhenExpired};
use super::{ADMIN_KEY_FILE, AdminKey, DevPkiError, Note, issue};
use crate::app::private_file;
use crate::ca::id::InstanceId;

/// One pass over the directory.
pub(super) struct Work<'a> {
    directory: &'a Path,
    now: OffsetDateTime,
    notes: Vec<Note>,
    created: usize,
    authorities: HashMap<&'static str, Existing>,
}

impl<'a> Work<'a> {
    pub(super) fn new(directory: &'a Path, now: OffsetDateTime) -> Self {
        Self {
            directory,
            now,
            notes: Vec::new(),
            created: 0,
            authorities: HashMap::new(),
        }
    }

    /// What was done, and what the owner should know.
    pub(super) fn into_notes(self) -> Vec<Note> {
        let created = Some(Note::Created(self.created)).filter(|_| self.created > 0);
        created.into_iter().chain(self.notes).collect()
    }

    /// See to one certificate and its key.
    pub(super) fn piece(&mut self, piece: &Piece) -> Result<(), DevPkiError> {
        let certificate = self.directory.join(format!("{}.pem", piece.name));
        let key = self.directory.join(format!("{}.key", piece.name));
        for path in [&certificate, &key] {
            if path.exists() {
                self.tighten(path)?;
            }
        }
        let found = inspect::read(&certificate, &key)?;
        if let Role::Authority { when_expired, .. } = piece.role {
            let authority = self.authority(piece, when_expired, found, &certificate, &key)?;
            self.authorities.insert(piece.name, authority);
            return Ok(());
        }
        let why = match found {
            Found::Nothing => {
                self.created += 1;
                None
            }
            Found::KeyOnly(_) => Some("its certificate was missing".to_owned()),
            Found::CertificateOnly => Some("its key was missing".to_owned()),
            Found::Broken(what) => Some(what),
            Found::Sound(existing) => match self.fault(piece, &existing) {
                None => return Ok(()),
                fault => fault,
            },
        };
        if let Some(why) = why {
            let name = piece.name;
            self.notes.push(Note::Renewed { name, why });
        }
        self.issue(piece, issue::new_key()?, KeyFile::Write)?;
        Ok(())
    }

    fn authority(
        &mut self,
        piece: &Piece,
        when_expired: WhenExpired,
        found: Found,
        certificate: &Path,
        key: &Path,
    ) -> Result<Existing, DevPkiError> {
        let name = piece.name;
        match found {
            Found::Nothing => {
                self.created += 1;
                self.issue(piece, issue::new_key()?, KeyFile::Write)
            }
            Found::KeyOnly(key) => {
                let why = "its certificate was missing".to_owned();
                self.notes.push(Note::Renewed { name, why });
                self.issue(piece, key, KeyFile::Keep)
            }
            Found::CertificateOnly => Err(DevPkiError::KeyMissing {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            }),
            Found::Broken(what) => Err(DevPkiError::BrokenCa {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                what,
            }),
            Found::Sound(existing) => {
                let issuer = piece.issuer();
                if let Some(issuer) = issuer
                    && !self
                        .authorities
                        .get(issuer)
                        .is_some_and(|above| existing.is_issued_by(above))
                {
                    self.notes.push(Note::RegisteredCaOrphaned { name, issuer });
                }
                if !self.has_expired(&existing) {
                    return Ok(existing);
                }
                match when_expired {
                    WhenExpired::Keep => {
                        self.notes.push(Note::RegisteredCaExpired(name));
                        Ok(existing)
                    }
                    WhenExpired::Renew => {
                        let why = EXPIRED.to_owned();
                        self.notes.push(Note::Renewed { name, why });
                        self.issue(piece, existing.key, KeyFile::Keep)
                    }
                }
            }
        }
    }

    /// What is wrong with an end entity's certificate.
    fn fault(&self, piece: &Piece, existing: &Existing) -> Option<String> {
        let issuer = piece.issuer()?;
        let Some(above) = self.authorities.get(issuer) else {
            return Some(format!("{issuer} was not there"));
        };
        if self.has_expired(existing) {
            return Some(EXPIRED.to_owned());
        }
        let chain_is_current = match is_intermediate(issuer) {
            true => existing.chain.as_slice() == std::slice::from_ref(&above.der),
            false => existing.chain.is_empty(),
        };
        if !existing.is_issued_by(above) || !chain_is_current {
            return Some(format!(
                "it was not signed by the {issuer} that is there now"
            ));
        }
        None
    }

    /// Make the certificate and write it, the key first.
    fn issue(
        &self,
        piece: &Piece,
        key: rcgen::KeyPair,
        key_file: KeyFile,
    ) -> Result<Existing, DevPkiError> {
        let issuer = piece.issuer().and_then(|name| self.authorities.get(name));
        let signer = issuer.map(|above| (above.der.as_ref(), &above.key));
        let mut pem = issue::certificate(piece, &key, signer, self.now)?;
        if !matches!(piece.role, Role::Authority { .. })
            && let Some(name) = piece.issuer()
            && is_intermediate(name)
        {
            let path = self.directory.join(format!("{name}.pem"));
            pem.push_str(
                &fs::read_to_string(&path)
                    .map_err(|source| DevPkiError::io("read", &path, source))?,
            );
        }
        let key_path = self.directory.join(format!("{}.key", piece.name));
        let certificate_path = self.directory.join(format!("{}.pem", piece.name));
        if let KeyFile::Write = key_file {
            write(&key_path, &key.serialize_pem())?;
        }
        write(&certificate_path, &pem)?;
        Existing::parse(&pem, key).map_err(|what| DevPkiError::BrokenCa {
            certificate: certificate_path,
            key: key_path,
            what,
        })
    }

    pub(super) fn admin_key(
        &mut self,
        endpoint: &str,
        instance: &InstanceId,
    ) -> Result<AdminKey, DevPkiError> {
        let path = self.directory.join(ADMIN_KEY_FILE);
        let Some(mut admin_key) = AdminKey::read(&path)? else {
            let admin_key = AdminKey::generate(endpoint, instance)?;
            admin_key.write(&path)?;
            return Ok(admin_key);
        };
        self.tighten(&path)?;
        if admin_key.instance != *instance {
            admin_key.instance = instance.clone();
            admin_key.write(&path)?;
        }
        Ok(admin_key)
    }

    pub(super) fn tighten(&mut self, path: &Path) -> Result<(), DevPkiError> {
        match private_file::tighten(path) {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.notes.push(Note::Tightened(path.to_owned()));
                Ok(())
            }
            Err(source) => Err(DevPkiError::io("made private", path, source)),
        }
    }

    fn has_expired(&self, existing: &Existing) -> bool {
        existing.not_after <= (self.now + RENEWED_BEFORE_END).unix_timestamp()
    }
}

/// Whether a new key has to be written.
enum KeyFile {
    Keep,
    Write,
}

fn write(path: &Path, text: &str) -> Result<(), DevPkiError> {
    private_file::write(path, text.as_bytes())
        .map_err(|source| DevPkiError::io("written", path, source))
}

fn is_intermediate(name: &str) -> bool {
    PIECES
        .iter()
        .any(|piece| piece.name == name && piece.issuer().is_some())
}

const EXPIRED: &str = "it has expired, or is about to";

/// A certificate is renewed at a start that finds less than this left of it.
const RENEWED_BEFORE_END: Duration = Duration::days(1);

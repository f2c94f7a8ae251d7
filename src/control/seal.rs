//! Secrets of access keys at rest, encrypted with a key from a file.
//!
//! A request is signed with the secret itself (HMAC), so that the broker has to have it: it cannot
//! be kept as a hash. Encrypted, it is of no use to whoever gets hold of the database or a backup
//! of it without the key file.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::ca::id::AccessKeyId;
use crate::secret::Secret;
use crate::store::KeptSecret;

/// The key that encrypts secrets: 32 octets, written as 64 hexadecimal digits.
#[derive(Clone)]
pub struct EncryptionKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why a secret cannot be read or kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no key to decrypt it with.
    #[error("its secret is encrypted, and the configuration names no admin.secret_encryption_file")]
    NoKey,
    /// It was encrypted with another key, for another access key, or was changed.
    #[error(
        "its secret cannot be decrypted with the key in admin.secret_encryption_file; if that key \
         is lost, delete the access key and create a new one"
    )]
    Unreadable,
    /// The system's cryptography failed.
    #[error("the secret cannot be encrypted")]
    Failed,
}

impl EncryptionKey {
    /// Read the digits.
    pub fn from_hex(text: &Secret) -> Option<Self> {
        let mut octets = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.reveal().trim(), octets.as_mut_slice()).ok()?;
        Some(Self(octets))
    }

    fn cipher(&self) -> Result<RandomizedNonceKey, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, self.0.as_slice()).map_err(|_| SealError::Failed)
    }
}

/// The secret as it is kept: encrypted if there is a key.
///
/// # Errors
/// [`SealError::Failed`].
pub fn seal(
    key: Option<&EncryptionKey>,
    id: &AccessKeyId,
    secret: &Secret,
) -> Result<KeptSecret, SealError> {
    let Some(key) = key else {
        return Ok(KeptSecret::Plain(secret.clone()));
    };
    let mut text = secret.reveal().as_bytes().to_vec();
    let nonce = key
        .cipher()?
        .seal_in_place_append_tag(bound_to(id), &mut text)
        .map_err(|_| SealError::Failed)?;
    let mut sealed = vec![FORMAT];
    sealed.extend_from_slice(nonce.as_ref());
    sealed.extend_from_slice(&text);
    Ok(KeptSecret::Sealed(sealed))
}

/// The secret itself.
///
/// # Errors
/// If it is encrypted and cannot be decrypted.
pub fn open(
    key: Option<&EncryptionKey>,
    id: &AccessKeyId,
    kept: &KeptSecret,
) -> Result<Secret, SealError> {
    let sealed = match kept {
        KeptSecret::Plain(secret) => return Ok(secret.clone()),
        KeptSecret::Sealed(sealed) => sealed,
    };
    let key = key.ok_or(SealError::NoKey)?;
    let (nonce, text) = sealed
        .split_first()
        .filter(|(format, _)| **format == FORMAT)
        .and_then(|(_, rest)| rest.split_first_chunk::<NONCE_LEN>())
        .ok_or(SealError::Unreadable)?;
    let mut text = Zeroizing::new(text.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain = key
        .cipher()?
        .open_in_place(nonce, bound_to(id), text.as_mut_slice())
        .map_err(|_| SealError::Unreadable)?;
    let plain = std::str::from_utf8(plain).map_err(|_| SealError::Unreadable)?;
    Ok(Secret::new(plain.to_owned()))
}

/// A sealed secret is good for its own access key only.
fn bound_to(id: &AccessKeyId) -> Aad<String> {
    Aad::from(format!("portcullis access key {id}"))
}

/// AES-256-GCM: this octet, the nonce, the ciphertext with its tag.
const FORMAT: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digit: &str) -> EncryptionKey {
        EncryptionKey::from_hex(&Secret::new(format!("{}\n", digit.repeat(64)))).unwrap()
    }

    #[test]
    fn sealed_secret_opens_with_its_key_for_its_access_key_only() {
        let id = "k1".parse().unwrap();
        let secret = Secret::new("hunter2".to_owned());
        let sealed = seal(Some(&key("a")), &id, &secret).unwrap();
        assert_eq!(open(Some(&key("a")), &id, &sealed), Ok(secret.clone()));
        assert_eq!(
            open(Some(&key("b")), &id, &sealed),
            Err(SealError::Unreadable)
        );
        assert_eq!(open(None, &id, &sealed), Err(SealError::NoKey));
        let other = "k2".parse().unwrap();
        assert_eq!(
            open(Some(&key("a")), &other, &sealed),
            Err(SealError::Unreadable)
        );
        let again = seal(Some(&key("a")), &id, &secret).unwrap();
        assert_ne!(again, sealed, "nonces are random");
        let plain = seal(None, &id, &secret).unwrap();
        assert_eq!(open(Some(&key("a")), &id, &plain), Ok(secret));
    }

    #[test]
    fn changed_or_cut_secret_is_not_read() {
        let id = "k1".parse().unwrap();
        let KeptSecret::Sealed(sealed) =
            seal(Some(&key("a")), &id, &Secret::new("hunter2".to_owned())).unwrap()
        else {
            panic!("it is not sealed");
        };
        assert!(!sealed.windows(7).any(|it| it == b"hunter2"));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            for kept in [changed, sealed[..at].to_vec()] {
                let opened = open(Some(&key("a")), &id, &KeptSecret::Sealed(kept));
                assert_eq!(opened, Err(SealError::Unreadable), "{at}");
            }
        }
    }

    #[test]
    fn encryption_key_is_64_digits() {
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(66)] {
            assert!(EncryptionKey::from_hex(&Secret::new(bad.to_owned())).is_none());
        }
        assert_eq!(format!("{:?}", key("a")), "[redacted]");
    }
}

//! A signature that has held once holds for ever: it need not be verified again when the same device
//! comes back. What is remembered is that alone. Dates, states, names and lists of revoked
//! certificates are looked at each time, and that the client has the key is proved each time.

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, UnitWeighter};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

use crate::ca::certificate::Algorithms;
use crate::ca::id::sha256;

/// The signatures that certificates may carry, and those of them that are known to hold.
#[derive(Debug)]
pub(crate) struct Signatures {
    algorithms: Algorithms,
    /// SHA-256 of everything that a verification depends on. `None`: nothing is remembered.
    known: Option<Cache<[u8; 32], ()>>,
}

impl Signatures {
    /// Remember so many.
    pub(crate) fn new(algorithms: Algorithms, remembered: usize) -> Self {
        Self {
            algorithms,
            known: (remembered > 0).then(|| cache(remembered)),
        }
    }

    /// Each verification is made, and nothing is remembered of it.
    pub(crate) fn algorithms(&self) -> Algorithms {
        self.algorithms
    }

    /// Call `verify` with algorithms that ask the memory first.
    pub(crate) fn remembering<T>(
        &self,
        verify: impl FnOnce(&[&dyn SignatureVerificationAlgorithm]) -> T,
    ) -> T {
        let Some(known) = &self.known else {
            return verify(self.algorithms);
        };
        let numbered = (0_u64..).zip(self.algorithms);
        let asking: Vec<_> = numbered
            .map(|(number, algorithm)| Asking {
                number,
                algorithm: *algorithm,
                known,
            })
            .collect();
        let asking: Vec<_> = asking.iter().map(|it| it as _).collect();
        verify(&asking)
    }
}

/// An algorithm that asks the memory before it verifies.
#[derive(Debug)]
struct Asking<'a> {
    /// Its place among the algorithms, which tells it from the others.
    number: u64,
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    known: &'a Cache<[u8; 32], ()>,
}

impl SignatureVerificationAlgorithm for Asking<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let question = question(self.number, [public_key, message, signature]);
        if self.known.get(&question).is_some() {
            return Ok(());
        }
        self.algorithm
            .verify_signature(public_key, message, signature)?;
        self.known.insert(question, ());
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.algorithm.fips()
    }
}

/// What was pushed out is not remembered either, as it would be to know that it came back.
fn cache(remembered: usize) -> Cache<[u8; 32], ()> {
    let shape = OptionsBuilder::new()
        .estimated_items_capacity(remembered)
        .weight_capacity(remembered as u64)
        .ghost_allocation(0.0)
        .build();
    match shape {
        Ok(shape) => Cache::with_options(
            shape,
            UnitWeighter,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        ),
        // Not possible: all that must be said is said.
        Err(_) => Cache::new(remembered),
    }
}

/// Each part goes in after its length, so that no two questions are the same octets.
fn question(number: u64, parts: [&[u8]; 3]) -> [u8; 32] {
    let [key, message, signature] = parts;
    let [a, b, c] = parts.map(|part| (part.len() as u64).to_be_bytes());
    sha256(&[&number.to_be_bytes(), &a, key, &b, message, &c, signature])
}

/// How many signatures a registry remembers unless it is told another number.
pub(crate) const REMEMBERED: usize = 100_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Says that everything holds but what is empty, and counts how often it is asked.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(
            &self,
            _: &[u8],
            _: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::Relaxed);
            match signature.is_empty() {
                true => Err(InvalidSignature),
                false => Ok(()),
            }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            rustls_pki_types::alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            rustls_pki_types::alg_id::ECDSA_SHA256
        }
    }

    /// Two algorithms that count, and the signatures that remember what they said.
    fn counting(remembered: usize) -> ([&'static Counting; 2], Signatures) {
        let both = [(); 2].map(|()| &*Box::leak(Box::<Counting>::default()));
        let all = both.map(|one| one as &dyn SignatureVerificationAlgorithm);
        let algorithms = Box::leak(Box::new(all));
        (both, Signatures::new(algorithms, remembered))
    }

    fn ask(signatures: &Signatures, number: usize, parts: [&[u8]; 3]) -> bool {
        let [key, message, signature] = parts;
        signatures.remembering(|algorithms| {
            algorithms[number]
                .verify_signature(key, message, signature)
                .is_ok()
        })
    }

    #[test]
    fn what_has_held_is_verified_once() {
        let ([first, second], signatures) = counting(10);
        for _ in 0..3 {
            assert!(ask(&signatures, 0, [b"key", b"message", b"signature"]));
        }
        assert_eq!(first.0.load(Ordering::Relaxed), 1);
        assert_eq!(second.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn whatever_differs_is_verified() {
        let ([first, second], signatures) = counting(10);
        let same: [&[u8]; 3] = [b"key", b"message", b"signature"];
        let others: [[&[u8]; 3]; 5] = [
            [b"kex", b"message", b"signature"],
            [b"key", b"massage", b"signature"],
            [b"key", b"message", b"signaturf"],
            // The same octets, cut elsewhere.
            [b"keym", b"essage", b"signature"],
            [b"key", b"messages", b"ignature"],
        ];
        assert!(ask(&signatures, 0, same));
        for (count, other) in others.into_iter().enumerate() {
            assert!(ask(&signatures, 0, other));
            assert_eq!(first.0.load(Ordering::Relaxed), count + 2, "{other:?}");
        }
        // Under another algorithm the same octets mean something else.
        assert!(ask(&signatures, 1, same));
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_does_not_hold_is_not_remembered() {
        let ([first, _], signatures) = counting(10);
        for _ in 0..3 {
            assert!(!ask(&signatures, 0, [b"key", b"message", b""]));
        }
        assert_eq!(first.0.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn memory_is_bounded_and_can_be_none() {
        let ([first, _], signatures) = counting(100);
        for number in 0..10_000_u32 {
            assert!(ask(&signatures, 0, [&number.to_be_bytes(), b"", b"s"]));
        }
        assert!(signatures.known.as_ref().unwrap().len() <= 100);
        assert_eq!(first.0.load(Ordering::Relaxed), 10_000);

        let ([first, _], signatures) = counting(0);
        for _ in 0..3 {
            assert!(ask(&signatures, 0, [b"key", b"message", b"signature"]));
        }
        assert_eq!(first.0.load(Ordering::Relaxed), 3);
    }
}

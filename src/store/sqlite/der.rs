//! As much of DER as it takes to see that a certificate is whole, and to show its serial.

use crate::ca::id::CertSerial;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;

/// Whether `der` is one SEQUENCE that ends where its length says.
pub(super) fn is_whole(der: &[u8]) -> bool {
    matches!(element(der, SEQUENCE), Some((_, [])))
}

/// The serial number of the certificate, if it is one.
pub(super) fn serial(der: &[u8]) -> Option<CertSerial> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (signed_part, _) = element(certificate, SEQUENCE)?;
    let rest = match element(signed_part, VERSION) {
        Some((_, rest)) => rest,
        None => signed_part,
    };
    let (octets, _) = element(rest, INTEGER)?;
    CertSerial::from_be_bytes(octets).ok()
}

/// The contents of the element with this tag at the start of `input`, and what follows it.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = input.split_first()?;
    let (&length, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let octets = usize::from(length & 0x7f);
        if !(1..=4).contains(&octets) {
            return None;
        }
        let (length, rest) = rest.split_at_checked(octets)?;
        let length = length
            .iter()
            .fold(0_usize, |sum, &octet| (sum << 8) | usize::from(octet));
        (length, rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_certificate_is_whole_and_shows_its_serial() {
        let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0xf2, 0x69, 0x00]));
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der: &[u8] = certificate.der();
        assert!(is_whole(der));
        assert_eq!(serial(der).unwrap().to_string(), "00f26900");
        for end in 0..der.len() {
            assert!(!is_whole(&der[..end]), "cut at {end}");
        }
        let mut longer = der.to_vec();
        longer.push(0);
        assert!(!is_whole(&longer));
    }

    #[test]
    fn what_is_no_certificate_has_no_serial() {
        for der in [
            &[] as &[u8],
            &[0x30],
            &[0x30, 0x00],
            &[0x30, 0x80, 0x00],
            &[0x30, 0x85, 0, 0, 0, 0, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x04, 0x30, 0x02, 0x02, 0x00],
        ] {
            assert_eq!(serial(der), None, "{der:02x?}");
        }
    }
}

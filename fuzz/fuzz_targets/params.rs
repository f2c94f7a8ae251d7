//! Query strings and forms: what is read has one canonical form, from which the same is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use portcullis::admin::params::Params;
use portcullis::admin::signature::v1;

fuzz_target!(|octets: &[u8]| {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    let Ok(params) = Params::decode(text) else {
        assert!(Params::decode(text).is_err());
        return;
    };
    let canonical = params.canonical();
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.~%=&".contains(&octet);
    assert!(canonical.bytes().all(plain), "{canonical}");
    let again = Params::decode(&canonical).expect("the canonical form can be read");
    assert_eq!(again, params);
    assert_eq!(again.canonical(), canonical);

    // Another reader finds the same names and values in it, in the order of their octets.
    let read: Vec<(String, String)> = canonical
        .split('&')
        .filter(|_| !canonical.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').expect("a name and a value");
            assert!(!value.contains('='));
            let decode = |text| percent_decode_str(text).decode_utf8().unwrap().into_owned();
            (decode(name), decode(value))
        })
        .collect();
    let own: Vec<_> = params
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(read, own);
    assert!(own.is_sorted_by(|a, b| a.0 < b.0));
    assert!(own.len() <= Params::MOST);

    // What is signed by the older method holds all of it.
    let signed = v1::string_to_sign("GET", &params);
    let rest = signed
        .strip_prefix("GET&%2F&")
        .expect("the method and the path");
    assert!(!rest.contains(['&', '=', '/', '+', ' ', '\n']), "{signed}");
    assert_eq!(percent_decode_str(rest).decode_utf8().unwrap(), canonical);

    // In which place a parameter stands does not matter, but it may stand in one only.
    for (at, _) in text.match_indices('&').take(4) {
        let (query, form) = (Params::decode(&text[..at]), Params::decode(&text[at..]));
        let whole = query.unwrap().merge(form.unwrap()).expect("no name twice");
        assert_eq!(whole, params);
    }
    if !own.is_empty() {
        assert!(params.clone().merge(params).is_err());
    }
});

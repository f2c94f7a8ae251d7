//! The parameters of a call: decoded once, each name at most once.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Names with their values, in the order of the names' octets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params(BTreeMap<String, String>);

/// Why parameters cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// Two values for one name: which of them counts would be a guess.
    #[error("the parameter {0} is given more than once")]
    Duplicate(String),
    /// A `%` without two hexadecimal digits.
    #[error("a parameter has a % that is not followed by two hexadecimal digits")]
    Escape,
    /// Not a text.
    #[error("a parameter is not UTF-8")]
    NotUtf8,
    /// More than [`Params::MOST`].
    #[error("there are more than {} parameters", Params::MOST)]
    TooMany,
}

impl Params {
    /// The most parameters a call may have.
    pub const MOST: usize = 64;

    /// Decode a query string or a form (`application/x-www-form-urlencoded`).
    ///
    /// # Errors
    /// If a name stands there twice, or the text is not well formed.
    pub fn decode(text: &str) -> Result<Self, ParamsError> {
        let mut params = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            params.insert(decode(name)?, decode(value)?)?;
        }
        Ok(params)
    }

    /// Add one parameter.
    ///
    /// # Errors
    /// If there is one of that name, or there are too many.
    pub fn insert(&mut self, name: String, value: String) -> Result<(), ParamsError> {
        if self.0.contains_key(&name) {
            return Err(ParamsError::Duplicate(name.chars().take(64).collect()));
        }
        if self.0.len() >= Self::MOST {
            return Err(ParamsError::TooMany);
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// Add all of `other`.
    ///
    /// # Errors
    /// If both have a parameter of one name, or there are too many.
    pub fn merge(mut self, other: Self) -> Result<Self, ParamsError> {
        for (name, value) in other.0 {
            self.insert(name, value)?;
        }
        Ok(self)
    }

    /// The value, if the parameter is there. It may be empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Take the parameter out.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// The canonical form that is signed: encoded by RFC 3986, sorted, joined by `&`.
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.0 {
            if !out.is_empty() {
                out.push('&');
            }
            out.extend(encode(name));
            out.push('=');
            out.extend(encode(value));
        }
        out
    }
}

/// Values can be long and foreign: only the names are shown.
impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Percent-encode everything but the unreserved characters of RFC 3986, 2.3.
pub(crate) fn encode(text: &str) -> impl Iterator<Item = &str> {
    utf8_percent_encode(text, RESERVED)
}

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

fn decode(text: &str) -> Result<String, ParamsError> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        let two = after.as_bytes().get(..2).ok_or(ParamsError::Escape)?;
        if !two.iter().all(u8::is_ascii_hexdigit) {
            return Err(ParamsError::Escape);
        }
        rest = after;
    }
    let spaced = if text.contains('+') {
        Cow::Owned(text.replace('+', " "))
    } else {
        Cow::Borrowed(text)
    };
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| ParamsError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clients_that_encode_differently_have_one_canonical_form() {
        let python = Params::decode("b=x+y%2A%7E&a=%C3%A4%0A").unwrap();
        let node = Params::decode("a=%C3%A4%0A&b=x%20y*~").unwrap();
        assert_eq!(python, node);
        assert_eq!(node.canonical(), "a=%C3%A4%0A&b=x%20y%2A~");
    }

    #[test]
    fn empty_values_and_stray_separators_are_read() {
        let params = Params::decode("&Sn=&&Flag&").unwrap();
        assert_eq!(params.get("Sn"), Some(""));
        assert_eq!(params.get("Flag"), Some(""));
        assert_eq!(params.get("Other"), None);
        assert_eq!(params.canonical(), "Flag=&Sn=");
        assert_eq!(Params::decode("").unwrap().canonical(), "");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let duplicate = Err(ParamsError::Duplicate("Sn".to_owned()));
        assert_eq!(Params::decode("Sn=1&%53n=2"), duplicate);
        let query = Params::decode("Sn=1").unwrap();
        assert_eq!(query.clone().merge(query), duplicate);
        for bad in ["a=%", "a=%4", "a=%zz", "%f=1", "a=%%34"] {
            assert_eq!(Params::decode(bad), Err(ParamsError::Escape), "{bad}");
        }
        assert_eq!(Params::decode("a=%ff"), Err(ParamsError::NotUtf8));
        let many: String = (0..=Params::MOST).map(|n| format!("p{n}&")).collect();
        assert_eq!(Params::decode(&many), Err(ParamsError::TooMany));
    }

    #[test]
    fn debug_output_has_no_values() {
        let params = Params::decode("CaContent=secretive").unwrap();
        assert_eq!(format!("{params:?}"), r#"{"CaContent"}"#);
    }

    proptest! {
        #[test]
        fn canonical_form_decodes_to_the_same(
            pairs in proptest::collection::btree_map(".{1,12}", ".{0,24}", 0..8)
        ) {
            let mut params = Params::default();
            for (name, value) in pairs {
                params.insert(name, value).unwrap();
            }
            let canonical = params.canonical();
            prop_assert!(canonical.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%=&".contains(&b)));
            let again = Params::decode(&canonical).unwrap();
            prop_assert_eq!(again.canonical(), canonical);
            prop_assert_eq!(again, params);
        }

        #[test]
        fn no_text_makes_decoding_fail_otherwise_than_with_an_error(text in ".{0,200}") {
            let _ = Params::decode(&text);
        }
    }
}

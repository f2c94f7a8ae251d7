use proptest::prelude::*;

use super::*;

fn names(texts: &[&str]) -> Vec<GateName> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Gates with these names, each known by its number.
fn gates(all: &[&[&str]]) -> Gates<usize> {
    let mut gates = Gates::new();
    for (number, texts) in all.iter().enumerate() {
        assert_eq!(gates.add(&names(texts), number), [], "{texts:?}");
    }
    gates
}

#[test]
fn names_are_read_without_case_and_written_in_lower_case() {
    for (text, written) in [
        ("IoT.Example.COM", "iot.example.com"),
        ("*.Plant7.example.com", "*.plant7.example.com"),
        ("localhost", "localhost"),
        ("*.localhost", "*.localhost"),
        ("_mqtt.xn--bcher-kva.example", "_mqtt.xn--bcher-kva.example"),
        ("4.example", "4.example"),
    ] {
        let name: GateName = text.parse().unwrap();
        assert_eq!(name.to_string(), written);
        assert_eq!(name.to_string().parse(), Ok(name));
    }
}

#[test]
fn texts_that_no_client_can_ask_for_are_no_names() {
    use GateNameError::{Address, NotADnsName, Wildcard};
    let long = format!("{}.example", "a".repeat(64));
    let longest = vec!["a".repeat(63); 4].join(".");
    let longest = longest.get(..252).unwrap();
    for (text, error) in [
        ("", NotADnsName),
        (".", NotADnsName),
        ("a b", NotADnsName),
        ("iot.example.com.", NotADnsName),
        ("iot..example.com", NotADnsName),
        ("-iot.example.com", NotADnsName),
        ("büro.example", NotADnsName),
        ("iot.example.com:8883", NotADnsName),
        ("*.", NotADnsName),
        ("*.7", NotADnsName),
        (long.as_str(), NotADnsName),
        (&format!("*.{longest}"), NotADnsName),
        ("*", Wildcard),
        ("*.*.example.com", Wildcard),
        ("plant*.example.com", Wildcard),
        ("iot.*.com", Wildcard),
        ("192.0.2.1", Address),
        ("2001:db8::1", Address),
    ] {
        assert_eq!(text.parse::<GateName>(), Err(error), "{text}");
    }
    assert!(longest.parse::<GateName>().is_ok());
}

#[test]
fn exact_name_goes_before_a_wildcard_which_covers_one_label() {
    let gates = gates(&[
        &["*.example.com", "iot.example.org"],
        &["iot.example.com"],
        &["*.iot.example.com"],
    ]);
    for (asked, gate) in [
        ("iot.example.com", Ok(1)),
        ("IOT.example.COM", Ok(1)),
        ("iot.example.com.", Ok(1)),
        ("iot2.example.com", Ok(0)),
        ("iot.example.org", Ok(0)),
        ("a.iot.example.com", Ok(2)),
        ("a.b.example.com", Err(NoGate::UnknownName)),
        ("a.b.iot.example.com", Err(NoGate::UnknownName)),
        ("example.com", Err(NoGate::UnknownName)),
        ("com", Err(NoGate::UnknownName)),
        ("x.iot.example.org", Err(NoGate::UnknownName)),
        ("example.com.evil", Err(NoGate::UnknownName)),
        ("evil-iot.example.org", Err(NoGate::UnknownName)),
        ("*.example.com", Ok(0)),
        ("", Err(NoGate::UnknownName)),
    ] {
        assert_eq!(gates.choose(Some(asked)).copied(), gate, "{asked}");
    }
    assert_eq!(gates.choose(None), Err(NoGate::MissingName));
}

#[test]
fn gate_without_names_takes_the_rest() {
    let gates = gates(&[&["iot.example.com"], &[]]);
    assert_eq!(gates.choose(Some("iot.example.com")), Ok(&0));
    assert_eq!(gates.choose(Some("other.example.com")), Ok(&1));
    assert_eq!(gates.choose(None), Ok(&1));
    assert_eq!(gates.for_all(), None);
}

#[test]
fn gate_that_is_alone_is_for_all_only_without_names() {
    assert_eq!(gates(&[&[]]).for_all(), Some(&0));
    let named = gates(&[&["iot.example.com"]]);
    assert_eq!(named.for_all(), None);
    assert_eq!(named.choose(Some("other")), Err(NoGate::UnknownName));
    assert_eq!(named.choose(None), Err(NoGate::MissingName));
    assert_eq!(
        Gates::<()>::new().choose(Some("a")),
        Err(NoGate::UnknownName)
    );
}

#[test]
fn what_an_earlier_gate_has_stays_there() {
    let mut gates = Gates::new();
    assert_eq!(gates.add(&names(&["a.example", "*.b.example"]), 0), []);
    assert_eq!(gates.add(&[], 1), []);
    let wanted = names(&["A.example", "c.example", "*.B.example", "c.example"]);
    assert_eq!(
        gates.add(&wanted, 2),
        [
            Conflict::Name { name: 0, by: 0 },
            Conflict::Name { name: 2, by: 0 },
            Conflict::Name { name: 3, by: 2 },
        ]
    );
    assert_eq!(gates.add(&[], 3), [Conflict::Rest { by: 1 }]);
    // A name and a wildcard that covers it are two.
    assert_eq!(gates.add(&names(&["x.b.example", "*.example"]), 4), []);
    assert_eq!(gates.choose(Some("a.example")), Ok(&0));
    assert_eq!(gates.choose(Some("c.example")), Ok(&2));
    assert_eq!(gates.choose(Some("x.b.example")), Ok(&4));
    assert_eq!(gates.choose(Some("y.b.example")), Ok(&0));
    assert_eq!(gates.choose(None), Ok(&1));
}

proptest! {
    /// Whoever asks for a name that a gate has is led there; what no gate has leads nowhere.
    #[test]
    fn clients_are_led_by_the_names_alone(
        labels in proptest::collection::vec("[a-z][a-z0-9-]{0,8}[a-z0-9]", 1..4),
        label in "[a-z]{1,9}",
    ) {
        prop_assume!(!labels.contains(&label));
        let base = labels.join(".");
        let gates = gates(&[&[&base], &[&format!("*.{base}")]]);
        let below = format!("{label}.{base}");
        prop_assert_eq!(gates.choose(Some(&base)), Ok(&0));
        prop_assert_eq!(gates.choose(Some(&base.to_uppercase())), Ok(&0));
        prop_assert_eq!(gates.choose(Some(&below)), Ok(&1));
        for stranger in [format!("{label}{base}"), format!("{label}.{below}"), format!("{base}.{label}")] {
            prop_assert_eq!(gates.choose(Some(&stranger)), Err(NoGate::UnknownName));
        }
    }
}

use super::*;

fn limits() -> TopicLimits {
    TopicLimits::default()
}

#[test]
fn names_refuse_what_the_standard_refuses() {
    for (text, error) in [
        ("", TopicError::Empty),
        ("a/+", TopicError::Wildcard('+')),
        ("#", TopicError::Wildcard('#')),
        ("a#b", TopicError::Wildcard('#')),
        ("a\0b", TopicError::Character('\0')),
        ("a\nb", TopicError::Character('\n')),
        ("a\u{9f}", TopicError::Character('\u{9f}')),
        ("a\u{ffff}", TopicError::Character('\u{ffff}')),
        ("\u{1fffe}", TopicError::Character('\u{1fffe}')),
        ("\u{fdd0}", TopicError::Character('\u{fdd0}')),
    ] {
        assert_eq!(TopicName::parse(text, &limits()), Err(error), "{text:?}");
    }
    for octets in [&[0xff_u8][..], &[0xed, 0xa0, 0x80], &[0xc0, 0x80]] {
        let octets = Bytes::copy_from_slice(octets);
        assert_eq!(
            TopicName::from_bytes(octets, &limits()),
            Err(TopicError::NotUtf8)
        );
    }
}

#[test]
fn names_accept_what_is_legal() {
    for text in [
        "/",
        "//",
        " ",
        "a b",
        "ä/ö",
        "\u{feff}a",
        "$SYS/x",
        "$share/g/x",
    ] {
        assert_eq!(TopicName::parse(text, &limits()).unwrap().as_str(), text);
    }
    let relaxed = TopicLimits {
        control_characters: ControlCharacters::Allow,
        ..limits()
    };
    assert!(TopicName::parse("a\u{1}\u{ffff}", &relaxed).is_ok());
    assert!(TopicName::parse("a\0", &relaxed).is_err());
}

#[test]
fn limits_hold_at_their_edges() {
    let small = TopicLimits {
        max_bytes: 8,
        max_levels: 3,
        ..limits()
    };
    assert!(TopicName::parse("a/b/cdef", &small).is_ok());
    assert_eq!(
        TopicName::parse("a/b/cdefg", &small),
        Err(TopicError::TooLong { max: 8, got: 9 })
    );
    assert_eq!(
        TopicFilter::parse("a/b/c/#", &small),
        Err(TopicError::TooDeep { max: 3, got: 4 })
    );
    let beyond = TopicLimits {
        max_bytes: usize::MAX,
        max_levels: usize::MAX,
        ..limits()
    };
    assert!(TopicName::parse("a".repeat(65_535), &beyond).is_ok());
    assert!(TopicName::parse("a".repeat(65_536), &beyond).is_err());
    assert!(TopicName::parse("/".repeat(256), &beyond).is_err());
}

#[test]
fn filters_take_wildcards_only_as_whole_levels() {
    for text in [
        "#", "+", "a/#", "+/+", "+/a/#", "/+", "a//#", "$SYS/#", "$share",
    ] {
        assert!(TopicFilter::parse(text, &limits()).is_ok(), "{text}");
    }
    for text in [
        "",
        "#/a",
        "a#",
        "a/b#",
        "a+",
        "+a/b",
        "##",
        "++",
        "a/#/",
        "$share/g/x",
    ] {
        assert!(TopicFilter::parse(text, &limits()).is_err(), "{text}");
    }
}

#[test]
fn shared_subscriptions_are_split_at_the_name() {
    let Ok(Subscription::Shared(shared)) = Subscription::parse("$share/g//a/+", &limits()) else {
        panic!("not shared");
    };
    assert_eq!((shared.group(), shared.filter().as_str()), ("g", "/a/+"));
    assert_eq!(shared.to_string(), "$share/g//a/+");
    for text in [
        "$share/",
        "$share//a",
        "$share/g",
        "$share/g/",
        "$share/+/a",
        "$share/g#/a",
        "$share/g/a#",
        "$share/g/$share/h/a",
    ] {
        assert!(Subscription::parse(text, &limits()).is_err(), "{text}");
    }
    assert!(matches!(
        Subscription::parse("$shared/g/a", &limits()),
        Ok(Subscription::Plain(_))
    ));
}

#[test]
fn matching_follows_the_examples_of_the_standard() {
    let matches = |filter: &str, topic: &str| {
        TopicFilter::parse(filter, &limits())
            .unwrap()
            .matches(&TopicName::parse(topic, &limits()).unwrap())
    };
    assert!(matches("sport/tennis/player1/#", "sport/tennis/player1"));
    assert!(matches(
        "sport/tennis/player1/#",
        "sport/tennis/player1/score/wimbledon"
    ));
    assert!(matches("sport/#", "sport"));
    assert!(matches("sport/+", "sport/"));
    assert!(!matches("sport/+", "sport"));
    assert!(matches("+/+", "/finance"));
    assert!(matches("/+", "/finance"));
    assert!(!matches("+", "/finance"));
    assert!(!matches("#", "$SYS/x"));
    assert!(!matches("+/monitor/Clients", "$SYS/monitor/Clients"));
    assert!(matches("$SYS/#", "$SYS/"));
    assert!(matches("$SYS/monitor/+", "$SYS/monitor/Clients"));
    assert!(matches("a/#", "a/$b"));
    assert!(!matches("A", "a"));
}

//! Instances that share an address.

use super::*;

/// A configuration with instances of these addresses and names.
fn text(instances: &[(&str, &[&str])]) -> String {
    let mut text = String::new();
    for (index, (listen, names)) in instances.iter().enumerate() {
        text += &format!(
            r#"
[[instance]]
id = "i{index}"
account = "owner"
mqtt_listen = "{listen}"
server_names = {names:?}
tls_certificate = "/etc/portcullis/server.pem"
tls_key = "/etc/portcullis/server.key"
"#
        );
    }
    text
}

fn groups(instances: &[(&str, &[&str])]) -> Vec<Vec<String>> {
    let config = Files::new().load(&text(instances)).unwrap();
    let ids = |it: Listener| it.instances.iter().map(|it| it.id.to_string()).collect();
    config.listeners().into_iter().map(ids).collect()
}

#[test]
fn instances_of_one_address_share_a_listener() {
    let all: [(&str, &[&str]); 5] = [
        (
            "127.0.0.1:8883",
            &["iot.example.com", "*.Plant7.example.com"],
        ),
        ("127.0.0.1:8884", &[]),
        ("127.0.0.1:8883", &["iot.example.org"]),
        ("[::1]:8883", &["iot.example.com"]),
        ("127.0.0.1:8883", &[]),
    ];
    assert_eq!(
        groups(&all),
        [vec!["i0", "i2", "i4"], vec!["i1"], vec!["i3"]]
    );
    let config = Files::new().load(&text(&all)).unwrap();
    let names = &config.instances[0].server_names;
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["iot.example.com", "*.plant7.example.com"]);
}

#[test]
fn port_0_is_one_port_for_names_and_one_for_each_instance_without() {
    let any = "127.0.0.1:0";
    let all: [(&str, &[&str]); 4] = [
        (any, &["a.example"]),
        (any, &[]),
        (any, &["b.example"]),
        (any, &[]),
    ];
    assert_eq!(groups(&all), [vec!["i0", "i2"], vec!["i1"], vec!["i3"]]);
}

#[test]
fn instances_that_names_do_not_tell_apart_are_reported_all_at_once() {
    let (here, there) = ("127.0.0.1:8883", "127.0.0.1:8884");
    let faults = Files::new().faults(&text(&[
        (here, &["a.example", "bad name", "*.b.example", "A.example"]),
        (here, &[]),
        (here, &["10.0.0.1", "*.B.example", "c.example", "a.example"]),
        (here, &[]),
        (there, &["a.example"]),
        // Not without names, though none can be read.
        (there, &["*.*.example"]),
        (there, &[]),
    ]));
    assert_eq!(
        keys(&faults),
        [
            "instance[0].server_names[1]",
            "instance[2].server_names[0]",
            "instance[5].server_names[0]",
            "instance[0].server_names[3]",
            "instance[2].server_names[1]",
            "instance[2].server_names[3]",
            "instance[3].server_names",
        ]
    );
    let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        told[3],
        r#"instance[0].server_names[3] = "a.example": this name is given twice"#
    );
    assert_eq!(
        told[4],
        r#"instance[2].server_names[1] = "*.b.example": instance[0] has this name at the same address"#
    );
    assert!(
        told[6].contains("instance[1] listens on 127.0.0.1:8883"),
        "{}",
        told[6]
    );
}

#[test]
fn names_are_looked_at_although_something_else_is_wrong() {
    let mut text = text(&[
        ("127.0.0.1:1", &["a.example"]),
        ("127.0.0.1:1", &["a.example"]),
    ]);
    text = text.replace("id = \"i0\"", "id = \"i 0\"");
    let faults = Files::new().faults(&text);
    assert_eq!(
        keys(&faults),
        ["instance[0].id", "instance[1].server_names[0]"]
    );
}

/// The text above, with lines added to each instance.
fn with(instances: &[(&str, &[&str])], lines: &[&str]) -> String {
    let mut text = text(instances);
    for (index, lines) in lines.iter().enumerate() {
        let id = format!("id = \"i{index}\"\n");
        text = text.replace(&id, &format!("{id}{lines}\n"));
    }
    text
}

#[test]
fn websocket_addresses_are_shared_as_those_of_mqtt() {
    let websocket = "websocket_listen = \"127.0.0.1:443\"";
    let text = with(
        &[
            ("127.0.0.1:1", &["a.example"]),
            ("127.0.0.1:2", &["b.example"]),
            ("127.0.0.1:2", &["c.example"]),
        ],
        &[websocket, websocket, ""],
    );
    let config = Files::new().load(&text).unwrap();
    let listeners: Vec<_> = config
        .listeners()
        .iter()
        .map(|it| (it.wire, it.address.port(), it.instances.len()))
        .collect();
    assert_eq!(
        listeners,
        [
            (Wire::Mqtt, 1, 1),
            (Wire::Mqtt, 2, 2),
            (Wire::WebSocket, 443, 2)
        ]
    );
}

#[test]
fn websocket_addresses_that_cannot_be_are_reported() {
    let (one, two) = ("127.0.0.1:1", "127.0.0.1:2");
    let at = |address: &str| format!("websocket_listen = \"{address}\"");
    let (at_one, at_two, at_three) = (at(one), at(two), at("127.0.0.1:3"));
    let text = with(
        &[(one, &["a.example"]), (one, &["a.example"]), (two, &[])],
        &[
            &at_three,
            &format!("{at_three}\nwebsocket_path = \"mqtt\""),
            &at_one,
        ],
    );
    let faults = Files::new().faults(&text);
    // The name that both have at both addresses is told once.
    assert_eq!(
        keys(&faults),
        [
            "instance[1].websocket_path",
            "instance[1].server_names[0]",
            "instance[2].websocket_listen"
        ]
    );
    let text = with(&[(one, &[]), (two, &[])], &[&at_two, &at_two]);
    let faults = Files::new().faults(&text);
    assert_eq!(
        keys(&faults),
        [
            "instance[1].server_names",
            "instance[0].websocket_listen",
            "instance[1].websocket_listen"
        ]
    );
    assert!(faults[0].what.contains("127.0.0.1:2"), "{}", faults[0]);
}

#[test]
fn paths_and_origins_are_read_or_reported() {
    let one = |lines: &str| with(&[("127.0.0.1:1", &[])], &[lines]);
    let text =
        one("websocket_listen = \"127.0.0.1:2\"\nwebsocket_origins = [\"https://A.example:443\"]");
    let config = Files::new().load(&text).unwrap();
    let door = &config.instances[0].websocket.as_ref().unwrap().door;
    assert_eq!(door.path, "/mqtt");
    assert_eq!(door.origins[0].to_string(), "https://a.example");
    for path in ["", "mqtt", "/a?b", "/a#b", "/a b", "*"] {
        let faults = Files::new().faults(&one(&format!("websocket_path = \"{path}\"")));
        assert_eq!(keys(&faults), ["instance[0].websocket_path"], "{path}");
    }
    let text = one("websocket_origins = [\"https://a.example\", \"*\", \"https://a.example/x\"]");
    assert_eq!(
        keys(&Files::new().faults(&text)),
        [
            "instance[0].websocket_origins[1]",
            "instance[0].websocket_origins[2]"
        ]
    );
}

#[test]
fn proxies_are_read_or_reported() {
    let one = |lines: &str| with(&[("127.0.0.1:1", &[])], &[lines]);
    let off = Files::new().load(&one("")).unwrap();
    assert_eq!(off.instances[0].proxies, Proxies::None);
    let text = one("proxy_protocol = \"v2\"\nproxy_trusted = [\"10.0.0.0/8\", \"::1\"]");
    let networks = ["10.0.0.0/8", "::1/128"].map(|it| it.parse().unwrap());
    assert_eq!(
        Files::new().load(&text).unwrap().instances[0].proxies,
        Proxies::Trusted(networks.to_vec())
    );
    for (lines, fault) in [
        ("proxy_protocol = \"v1\"", "instance[0].proxy_protocol"),
        ("proxy_protocol = \"v2\"", "instance[0].proxy_trusted"),
        (
            "proxy_trusted = [\"10.1.0.0/8\"]",
            "instance[0].proxy_trusted[0]",
        ),
        (
            "proxy_trusted = [\"proxy.example\"]",
            "instance[0].proxy_trusted[0]",
        ),
    ] {
        assert_eq!(keys(&Files::new().faults(&one(lines))), [fault], "{lines}");
    }
}

#[test]
fn instances_of_one_address_have_the_same_proxies() {
    let here = "127.0.0.1:1";
    let trusting = |network| format!("proxy_protocol = \"v2\"\nproxy_trusted = [\"{network}\"]");
    let (one, other) = (trusting("10.0.0.0/8"), trusting("10.0.0.0/9"));
    let instances: [(&str, &[&str]); 4] = [
        (here, &["a.example"]),
        (here, &["b.example"]),
        (here, &["c.example"]),
        (here, &[]),
    ];
    let faults = Files::new().faults(&with(&instances, &[&one, &one, &other, ""]));
    assert_eq!(
        keys(&faults),
        ["instance[2].proxy_protocol", "instance[3].proxy_protocol"]
    );
}

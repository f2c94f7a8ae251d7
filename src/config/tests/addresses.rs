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
    let ids = |group: Vec<&Instance>| group.iter().map(|it| it.id.to_string()).collect();
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

//! The door inside the broker answers as HTTP does.

use bytes::Bytes;

use super::operations::World;
use super::*;
use crate::admin::command::Commands;
use crate::ca::id::InstanceId;
use crate::mqtt::control_channel::CommandHandler;
use crate::testing::TestCa;

#[test]
fn command_answers_with_the_body_of_http() {
    let admin_ca = TestCa::root("admins", 0x77);
    let world = World::new(Some(&admin_ca));
    let admin = world.peer(&admin_ca.issue("admin", 1));
    let control = world.control.clone();
    let commands = Commands::new(
        Arc::new(Service::new(
            Arc::new(control.clone()),
            ServiceSettings::default(),
        )),
        Arc::new(move |instance: &InstanceId| control.owner(instance)),
    );
    let address = "127.0.0.1:1".parse().unwrap();
    let send = |command: &str| -> Value {
        let command = Bytes::copy_from_slice(command.as_bytes());
        let answer = commands.handle(&admin, address, command);
        serde_json::from_slice(&world.server.runtime.block_on(answer)).unwrap()
    };
    let answer = send(&format!(
        r#"{{"Action": "InactivateCaCertificate", "MqttInstanceId": "{INSTANCE}", "Sn": "0b"}}"#
    ));
    assert_eq!(answer["Code"], "FindCaBySnError");
    assert_eq!(answer["Message"], Code::FindCaBySnError.message());
    assert_eq!(answer["HttpStatus"], 500);
    assert_eq!(answer["Action"], "InactivateCaCertificate");
    assert!(
        answer["RequestId"]
            .as_str()
            .is_some_and(|it| it.len() == 36)
    );

    let page = format!(
        r#"{{"Action": "ListCaCertificate", "MqttInstanceId": "{INSTANCE}", "PageNo": "1", "PageSize": "5"}}"#
    );
    let mut answer = send(&page);
    let http = world.client();
    let http = http.call(
        Action::ListCaCertificate,
        &[("PageNo", "1"), ("PageSize", "5")],
    );
    let mut http = http.unwrap();
    assert_eq!(answer["HttpStatus"], 200);
    for own in ["HttpStatus", "Action", "RequestId"] {
        answer.as_object_mut().unwrap().remove(own);
        http.as_object_mut().unwrap().remove(own);
    }
    assert_eq!(answer, http);

    assert_eq!(send("{}")["Code"], "MissingAction");
    assert_eq!(send(r#"{"Action": "Nothing"}"#)["HttpStatus"], 404);
    assert_eq!(send("no json")["Code"], "ParameterCheckFailed");
}

#[test]
fn device_gives_no_commands() {
    let world = World::new(None);
    let instance: InstanceId = INSTANCE.parse().unwrap();
    let ca = TestCa::root("devices", 0x78);
    ca.register(&world.control.registry(&instance).unwrap());
    let device = world.peer(&ca.issue("device", 1));
    let control = world.control.clone();
    let commands = Commands::new(
        Arc::new(Service::new(Arc::new(Echo), ServiceSettings::default())),
        Arc::new(move |instance: &InstanceId| control.owner(instance)),
    );
    let command = Bytes::from_static(br#"{"Action": "GetRegisterCode"}"#);
    let answer = commands.handle(&device, "127.0.0.1:1".parse().unwrap(), command);
    let answer: Value = serde_json::from_slice(&world.server.runtime.block_on(answer)).unwrap();
    assert_eq!(answer["Code"], "PermissionCheckFailed");
    assert_eq!(answer["HttpStatus"], 403);
}

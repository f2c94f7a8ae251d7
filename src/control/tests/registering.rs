//! Register codes and dates by the clock, and how many CAs there may be.

use std::time::UNIX_EPOCH;

use super::*;
use crate::control::CaRefusal;
use crate::control::error::ControlError::{RegisterCodeUnknown, RegisterCodeUsed, TooManyCas};
use crate::store::RegisterCodeRecord;
use crate::testing::device_params;

fn now_ms(world: &World) -> i64 {
    let now = *world.time.lock().unwrap();
    i64::try_from(now.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn set(world: &World, ms: i64) {
    let since = Duration::from_millis(u64::try_from(ms).unwrap());
    *world.time.lock().unwrap() = UNIX_EPOCH + since;
}

/// A CA and proofs that are good for longer than any code.
fn lasting(name: &str, serial: u64) -> TestCa {
    let mut params = ca_params(name, serial);
    params.not_after += time::Duration::days(30);
    TestCa::self_signed(params)
}

fn proof(ca: &TestCa, code: &str) -> TestDevice {
    let mut params = device_params(code, 99);
    params.not_after += time::Duration::days(30);
    ca.issue_device(params)
}

/// Put a code into the store, as another process would have given it out.
async fn give_out(world: &World, code: RegisterCodeRecord) {
    let head = world.store.apply(vec![Change::PutRegisterCode(code)]);
    while world.control.0.turn.lock().await.seq < head {
        tokio::task::yield_now().await;
    }
}

fn code(code: &str, expires_at_ms: i64) -> RegisterCodeRecord {
    RegisterCodeRecord {
        instance: INSTANCE.parse().unwrap(),
        account: caller().account,
        code: code.to_owned(),
        expires_at_ms,
        used: false,
    }
}

#[tokio::test]
async fn register_code_is_good_for_its_lifetime_and_no_longer() {
    let world = World::new().await;
    let ask = async || world.control.register_code(&caller(), INSTANCE).await;
    let given_out = now_ms(&world);
    let (early, late) = (ask().await.unwrap(), ask().await.unwrap());
    let lifetime = 24 * 3600 * 1000;
    set(&world, given_out + lifetime - 1);
    let ca = lasting("early", 1);
    world.register_with(&ca, &proof(&ca, &early)).await.unwrap();
    set(&world, given_out + lifetime);
    let ca = lasting("late", 2);
    let result = world.register_with(&ca, &proof(&ca, &late)).await;
    assert!(matches!(result, Err(RegisterCodeUnknown)), "{result:?}");
    // One that was used is told apart as long as it would be good.
    let result = world.register_with(&ca, &proof(&ca, &early)).await;
    assert!(matches!(result, Err(RegisterCodeUnknown)), "{result:?}");
    set(&world, given_out + lifetime - 1);
    let result = world.register_with(&ca, &proof(&ca, &early)).await;
    assert!(matches!(result, Err(RegisterCodeUsed)), "{result:?}");
}

#[tokio::test]
async fn used_register_code_is_used_after_a_restart() {
    let mut world = World::new().await;
    let ask = world.control.register_code(&caller(), INSTANCE).await;
    let (code, ca) = (ask.unwrap(), lasting("one", 1));
    world.register_with(&ca, &proof(&ca, &code)).await.unwrap();
    world.restart().await;
    let other = lasting("two", 2);
    let result = world.register_with(&other, &proof(&other, &code)).await;
    assert!(matches!(result, Err(RegisterCodeUsed)), "{result:?}");
    // Also when the CA that it registered is gone.
    let deleted = world.control.delete_ca(&caller(), INSTANCE, "01").await;
    deleted.unwrap();
    let result = world.register_with(&ca, &proof(&ca, &code)).await;
    assert!(matches!(result, Err(RegisterCodeUsed)), "{result:?}");
}

#[tokio::test]
async fn code_of_another_instance_or_account_is_none() {
    let world = World::new().await;
    let later = now_ms(&world) + 60_000;
    let elsewhere = RegisterCodeRecord {
        instance: "post-cn-other".parse().unwrap(),
        ..code("of-another-instance", later)
    };
    let foreign = RegisterCodeRecord {
        account: "another".parse().unwrap(),
        ..code("of-another-account", later)
    };
    let ca = lasting("ca", 1);
    for wrong in [elsewhere, foreign] {
        give_out(&world, wrong.clone()).await;
        let result = world.register_with(&ca, &proof(&ca, &wrong.code)).await;
        assert!(matches!(result, Err(RegisterCodeUnknown)), "{result:?}");
    }
    give_out(&world, code("right", later)).await;
    world
        .register_with(&ca, &proof(&ca, "right"))
        .await
        .unwrap();
}

#[tokio::test]
async fn certificates_count_from_their_first_second_to_their_last() {
    let world = World::new().await;
    let ca = lasting("ca", 1);
    let certificate = ca.certificate();
    let proof = |code: &str| {
        let mut params = device_params(code, 99);
        params.not_before = ca.params.not_before;
        params.not_after = ca.params.not_after;
        ca.issue_device(params)
    };
    let (first, last) = (certificate.not_before(), certificate.not_after());
    let expires = (last + 100) * 1000;
    for (second, outside) in [
        (first - 1, true),
        (last + 1, true),
        (first, false),
        (last, false),
    ] {
        let name = format!("code-{second}");
        give_out(&world, code(&name, expires)).await;
        set(&world, second * 1000);
        let result = world.register_with(&ca, &proof(&name)).await;
        if outside {
            let refusal = ControlError::CaRefused(CaRefusal::OutsideValidity);
            assert_eq!(result.unwrap_err().to_string(), refusal.to_string());
            continue;
        }
        result.unwrap();
        world
            .control
            .delete_ca(&caller(), INSTANCE, "01")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn one_ca_too_many_is_refused_and_its_code_stays_good() {
    let world = World::new().await;
    for serial in 1..=4 {
        world.register(&lasting("ca", serial), "ca").await;
    }
    let ask = world.control.register_code(&caller(), INSTANCE).await;
    let (code, fifth) = (ask.unwrap(), lasting("fifth", 5));
    let result = world.register_with(&fifth, &proof(&fifth, &code)).await;
    assert!(matches!(result, Err(TooManyCas(4))), "{result:?}");
    let refused = world.audit_lines().pop().unwrap();
    assert_eq!(refused["code"], "too_many_cas");
    world
        .control
        .delete_ca(&caller(), INSTANCE, "03")
        .await
        .unwrap();
    let sn = world.register_with(&fifth, &proof(&fifth, &code)).await;
    assert_eq!(sn.unwrap(), "05");
}

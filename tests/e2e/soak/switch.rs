//! CAs are switched off and on; while one is off, nobody of it is there.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::client::Dice;
use super::{Authority, World};
use crate::harness::api::Api;
use crate::harness::wait_until;

/// Switch one off for a moment.
pub fn off_and_on(world: &World, api: &Api, which: usize, dice: &mut Dice) {
    let authority = &world.authorities[which];
    std::thread::sleep(dice.time(1_500));
    off(world, api, authority);
    std::thread::sleep(dice.time(1_000));
    on(api, authority);
}

/// Switch off all that are ever switched.
pub fn all_off(world: &World, api: &Api) {
    for authority in &world.authorities[1..] {
        off(world, api, authority);
    }
}

/// Switch them on again.
pub fn all_on(world: &World, api: &Api) {
    for authority in &world.authorities[1..] {
        on(api, authority);
    }
}

fn off(world: &World, api: &Api, authority: &Authority) {
    let begun = Instant::now();
    let answer = api.inactivate(&authority.sn);
    authority.off.fetch_add(1, Ordering::SeqCst);
    world.count("a CA switched off");
    let ended = answer["Data"]["ConnectionsEnded"].as_u64();
    // They were told to end; those who do not read have the time of a write.
    wait_until("no session lives over an inactive CA", || {
        (online(api, authority) == 0).then_some(())
    });
    let slow = begun.elapsed().as_secs() >= 1;
    if slow {
        world.count("a CA switched off whose last session ended a second later");
    }
    let _ = ended;
}

fn on(api: &Api, authority: &Authority) {
    authority.off.fetch_add(1, Ordering::SeqCst);
    api.activate(&authority.sn);
}

/// Sessions with a connection that this CA let in.
fn online(api: &Api, authority: &Authority) -> u64 {
    let params = [
        ("PageNo", "1"),
        ("PageSize", "1"),
        ("CaSn", &authority.sn),
        ("OnlineStatus", "true"),
    ];
    let body = api.call("ListSessions", &params).ok();
    body["Data"]["Total"].as_u64().unwrap()
}

//! Whole conversations over in-memory streams, with `rmqtt-codec` as the client's side.

mod access;
mod bounds;
mod control;
mod deaf;
mod faulty;
mod figures;
mod gate;
mod harness;
mod messages;
mod operations;
mod packets;
mod patience;
mod persistence;
mod rules;
mod sessions;
mod sys;
mod v3;

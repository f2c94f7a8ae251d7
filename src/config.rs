//! What the program runs on.

pub mod secret;

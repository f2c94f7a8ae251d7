//! The program put together: everything that is bound, opened, started and stopped.

pub mod dev_pki;
pub mod private_file;

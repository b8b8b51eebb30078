//! Policies: configuration, shared state and one call's passage through each.

pub mod class;
pub mod retry;

//! Retry: trying again after a failure that may pass.

pub mod backoff;

//! The system's monotonic clock as the engine's instants.

use crate::engine::Instant;
use std::sync::OnceLock;

/// Now, counted from the first reading in this process.
pub fn now() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let start = *START.get_or_init(std::time::Instant::now);
    // One is added so that zero stays free for "never happened".
    Instant(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX - 1) + 1)
}

/// A seed that differs from call to call and from process to process.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: OnceLock<AtomicU64> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU64::new(std::collections::hash_map::RandomState::new().build_hasher().finish()));
    next.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed) ^ u64::from(std::process::id())
}

//! The system's monotonic clock as the engine's instants.
//!
//! On Linux, where the kernel itself keeps time by the processor's cycle counter, so do we once its pace is known: a
//! reading costs a third of a system call's shortcut, and two of them are most of what a guarded call costs.

use crate::engine::Instant;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment on both clocks.
#[derive(Clone, Copy)]
struct Mark {
    nanos: u64,
    ticks: u64,
}

/// Nanoseconds per tick, times 2^32; 0 while that is not known.
static PACE: AtomicU64 = AtomicU64::new(0);
/// Where ticks are counted from.
static FROM_NANOS: AtomicU64 = AtomicU64::new(0);
static FROM_TICKS: AtomicU64 = AtomicU64::new(0);
/// So long a stretch gives the pace within a few millionths.
const STRETCH: u64 = 20_000_000;

/// What the first reading in a process is: far enough from zero that a time before it, as a test may want, is one too.
const FIRST: u64 = 1 << 61;

/// Now, counted from the first reading in this process.
#[inline]
pub fn now() -> Instant {
    let pace = PACE.load(Ordering::Acquire);
    if pace != 0 {
        let ticks = ticks().wrapping_sub(FROM_TICKS.load(Ordering::Relaxed));
        // A counter that went back was reset, as by a machine put to sleep.
        if ticks < 1 << 63 {
            let nanos = (u128::from(ticks) * u128::from(pace)) >> 32;
            return Instant(FROM_NANOS.load(Ordering::Relaxed) + nanos as u64);
        }
    }
    system()
}

#[cold]
fn system() -> Instant {
    static START: OnceLock<(std::time::Instant, Mark, bool)> = OnceLock::new();
    let (start, first, counted) = START.get_or_init(|| {
        let start = std::time::Instant::now();
        (start, mark(start), counter_keeps_time())
    });
    if !counted {
        return Instant(since(*start));
    }
    let mark = mark(*start);
    let (nanos, ticks) = (mark.nanos - first.nanos, mark.ticks.wrapping_sub(first.ticks));
    if nanos >= STRETCH && (1..1 << 63).contains(&ticks) && FROM_TICKS.load(Ordering::Acquire) == 0 {
        let pace = (u128::from(nanos) << 32) / u128::from(ticks);
        // One thread sets the origin; the pace is published last.
        if FROM_TICKS.compare_exchange(0, mark.ticks, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            FROM_NANOS.store(mark.nanos, Ordering::Relaxed);
            PACE.store(u64::try_from(pace).unwrap_or(0), Ordering::Release);
        }
    }
    Instant(mark.nanos)
}

fn since(start: std::time::Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(FIRST) + FIRST
}

/// Both clocks at once: of a few tries the one that was interrupted least.
fn mark(start: std::time::Instant) -> Mark {
    let tries = (0..4).map(|_| {
        let before = ticks();
        let nanos = since(start);
        let took = ticks().wrapping_sub(before);
        (took, Mark { nanos, ticks: before.wrapping_add(took / 2) })
    });
    tries.min_by_key(|(took, _)| *took).map_or(Mark { nanos: FIRST, ticks: 0 }, |(_, mark)| mark)
}

/// Whether the kernel trusts the cycle counter: constant, and the same on all cores.
fn counter_keeps_time() -> bool {
    cfg!(all(target_arch = "x86_64", target_os = "linux"))
        && std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource").is_ok_and(|s| s.trim() == "tsc")
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn ticks() -> u64 {
    // SAFETY: reads a register; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    0
}

/// The Unix time in nanoseconds at `now`, for labels: the system's time of day is asked about once a second.
pub fn unix(now: Instant) -> u64 {
    static AHEAD: AtomicU64 = AtomicU64::new(0);
    static UNTIL: AtomicU64 = AtomicU64::new(0);
    if now.0 >= UNTIL.load(Ordering::Acquire) {
        // A time of day before 1970 stamps 0; stamps are labels, nothing is computed from them.
        let day = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        AHEAD.store(day.wrapping_sub(now.0), Ordering::Release);
        UNTIL.store(now.0.saturating_add(1_000_000_000), Ordering::Release);
    }
    now.0.wrapping_add(AHEAD.load(Ordering::Acquire))
}

/// A seed that differs from call to call and, by the time of the first reading, from process to process.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    static NEXT: OnceLock<AtomicU64> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU64::new(std::collections::hash_map::RandomState::new().build_hasher().finish()));
    // The time sets a forked child apart from its parent, whose counter it begins with.
    next.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed) ^ now().0.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_systems_time_and_never_goes_back() {
        let (ours, theirs) = (now(), std::time::Instant::now());
        let mut last = ours;
        while theirs.elapsed().as_millis() < 60 {
            let next = now();
            // The change from one clock to the other may cost what one reading takes.
            assert!(next.0 + 100_000 >= last.0, "{last:?} {next:?}");
            last = next;
        }
        let (ours, theirs) = (now().since(ours).as_secs_f64(), theirs.elapsed().as_secs_f64());
        // A machine that stops between the two readings makes them differ, a wrong pace would by far more.
        assert!((ours / theirs - 1.0).abs() < 0.5, "{ours} {theirs}");
    }
}

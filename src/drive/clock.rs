//! The system's monotonic clock as the engine's instants.
//!
//! On Linux, where the kernel itself keeps time by the processor's cycle counter, so do we once its pace is known: a
//! reading costs a third of a system call's shortcut, and two of them are most of what a guarded call costs.

use crate::engine::{Instant, Random};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
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
/// The time in nanoseconds while tests move it by hand; 0 while it runs. `PACE` is 0 meanwhile, so that all who ask come
/// by here and nobody else pays for it.
static BY_HAND: AtomicU64 = AtomicU64::new(0);
/// The pace, while it is hidden.
static HIDDEN: AtomicU64 = AtomicU64::new(0);
/// So far ahead of the system's clock were we left by hand: the clock never goes back.
static AHEAD: AtomicU64 = AtomicU64::new(0);
/// So long a stretch gives the pace within a few millionths.
const STRETCH: u64 = 20_000_000;

/// What the first reading in a process is: far enough from zero that a time before it, as a test may want, is one too.
const FIRST: u64 = 1 << 61;

/// Now, counted from the first reading in this process.
#[inline]
pub fn now() -> Instant {
    counted(PACE.load(Ordering::Acquire)).unwrap_or_else(system)
}

/// Now by the cycle counter, at that pace.
#[inline]
fn counted(pace: u64) -> Option<Instant> {
    let ticks = ticks().wrapping_sub(FROM_TICKS.load(Ordering::Relaxed));
    // A counter that went back was reset, as by a machine put to sleep.
    if pace == 0 || ticks >= 1 << 63 {
        return None;
    }
    let nanos = (u128::from(ticks) * u128::from(pace)) >> 32;
    Some(Instant(FROM_NANOS.load(Ordering::Relaxed) + nanos as u64))
}

#[cold]
fn system() -> Instant {
    match BY_HAND.load(Ordering::Acquire) {
        0 => running(),
        by_hand => Instant(by_hand),
    }
}

fn running() -> Instant {
    static START: OnceLock<(std::time::Instant, Mark, bool)> = OnceLock::new();
    let (start, first, counted) = START.get_or_init(|| {
        let start = std::time::Instant::now();
        (start, mark(start), counter_keeps_time())
    });
    if !counted {
        return Instant(since(*start) + AHEAD.load(Ordering::Acquire));
    }
    let mark = mark(*start);
    let (nanos, ticks) = (mark.nanos - first.nanos, mark.ticks.wrapping_sub(first.ticks));
    if nanos >= STRETCH && (1..1 << 63).contains(&ticks) && FROM_TICKS.load(Ordering::Acquire) == 0 {
        let pace = (u128::from(nanos) << 32) / u128::from(ticks);
        // One thread sets the origin; the pace is published last.
        if FROM_TICKS.compare_exchange(0, mark.ticks, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let _change = change();
            FROM_NANOS.store(mark.nanos + AHEAD.load(Ordering::Acquire), Ordering::Relaxed);
            let seen = if is_by_hand() { &HIDDEN } else { &PACE };
            seen.store(u64::try_from(pace).unwrap_or(0), Ordering::Release);
        }
    }
    Instant(mark.nanos + AHEAD.load(Ordering::Acquire))
}

/// Held while the clock changes from running to being moved by hand, or back.
fn change() -> MutexGuard<'static, ()> {
    static CHANGING: Mutex<()> = Mutex::new(());
    CHANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether time is moved by hand.
pub fn is_by_hand() -> bool {
    BY_HAND.load(Ordering::Acquire) != 0
}

/// From now on time stands still but for [`advance_to`]. `false`: it does already.
pub fn take_by_hand() -> bool {
    let here = now();
    let _change = change();
    if is_by_hand() {
        return false;
    }
    BY_HAND.store(here.0, Ordering::Release);
    HIDDEN.store(PACE.swap(0, Ordering::AcqRel), Ordering::Release);
    true
}

/// Moves the time forward by hand; does nothing while it runs by itself. It never goes back.
pub fn advance_to(time: Instant) {
    let _ = BY_HAND.fetch_update(Ordering::AcqRel, Ordering::Acquire, |by_hand| (by_hand != 0).then_some(by_hand.max(time.0)));
}

/// Lets time run by itself again, from where it was left.
pub fn let_run() {
    // By the clock that will go on: the two differ by some millionths.
    let here = counted(HIDDEN.load(Ordering::Acquire)).unwrap_or_else(running);
    let _change = change();
    let left = BY_HAND.load(Ordering::Acquire);
    let gained = left.saturating_sub(here.0);
    AHEAD.fetch_add(gained, Ordering::AcqRel);
    FROM_NANOS.fetch_add(gained, Ordering::AcqRel);
    BY_HAND.store(0, Ordering::Release);
    let pace = HIDDEN.swap(0, Ordering::AcqRel);
    if pace != 0 {
        PACE.store(pace, Ordering::Release);
    }
}

/// So much of a sleep on the system's clock can be slept at once: time that is moved by hand may pass any moment.
#[cfg(feature = "net")]
pub fn slice(span: std::time::Duration) -> std::time::Duration {
    if is_by_hand() { span.min(std::time::Duration::from_millis(5)) } else { span }
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
    let until = UNTIL.load(Ordering::Acquire);
    // Time that is moved by hand takes the labels along.
    if now.0 >= until && (until == 0 || !is_by_hand()) {
        // A time of day before 1970 stamps 0; stamps are labels, nothing is computed from them.
        let day = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        AHEAD.store(day.wrapping_sub(now.0), Ordering::Release);
        UNTIL.store(now.0.saturating_add(1_000_000_000), Ordering::Release);
    }
    now.0.wrapping_add(AHEAD.load(Ordering::Acquire))
}

/// Whether seeds come in a sequence that can be had again, and where that is.
static SOWN: AtomicBool = AtomicBool::new(false);
static NEXT_SOWN: AtomicU64 = AtomicU64::new(0);

/// From now on seeds are those that follow from this one; `None`: any. Gives what it was.
pub fn sow(seed: Option<u64>) -> Option<u64> {
    let _change = change();
    let before = SOWN.load(Ordering::Acquire).then(|| NEXT_SOWN.load(Ordering::Acquire));
    NEXT_SOWN.store(seed.unwrap_or(0), Ordering::Release);
    SOWN.store(seed.is_some(), Ordering::Release);
    before
}

/// A seed that differs from call to call, from thread to thread and, by the time of the first reading, from process to process.
pub fn seed() -> u64 {
    seed_at(now())
}

/// The same where the time is known.
#[inline]
pub fn seed_at(now: Instant) -> u64 {
    thread_local! {
        static NEXT: Cell<u64> = const { Cell::new(0) };
    }
    // Drawn from, not used as they are: neighbours would give sequences that overlap.
    if SOWN.load(Ordering::Acquire) {
        return Random::seeded(NEXT_SOWN.fetch_add(1, Ordering::AcqRel)).next_u64();
    }
    // A thread counts for itself: what all count in takes an exchange between processors.
    let next = NEXT.get();
    let next = if next == 0 { begin_anywhere() } else { next };
    NEXT.set(next.wrapping_add(2));
    // The time sets a forked child apart from its parent, whose counter it begins with.
    Random::seeded(next ^ now.0.rotate_left(32)).next_u64()
}

/// Where a thread begins to count: odd, so that it never comes by 0.
#[cold]
fn begin_anywhere() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn it_keeps_the_systems_time_and_never_goes_back() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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

    #[test]
    fn what_is_moved_by_hand_stands_still_and_runs_on_from_there() {
        // Its own time: the clock is one for the process, and the other test here reads it too.
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..3 {
            let before = now();
            assert!(take_by_hand() && !take_by_hand());
            let stopped = now();
            assert!(stopped >= before);
            assert_eq!(now(), stopped);
            advance_to(Instant(stopped.0 + 7_000_000_000));
            advance_to(Instant(stopped.0 + 3_000_000_000));
            assert_eq!(now().0, stopped.0 + 7_000_000_000);
            let_run();
            assert!(now().0 >= stopped.0 + 7_000_000_000, "it never goes back");
            // By the system's clock too, whose pace ours has within some millionths.
            assert!(running().0 + 1_000_000 >= stopped.0 + 7_000_000_000);
            let here = now();
            advance_to(Instant(here.0 + 1_000_000_000_000));
            assert!(now().since(here).as_secs() < 1000, "a clock that runs is not moved");
        }
    }

    #[test]
    fn sown_seeds_come_again_and_an_outer_sequence_goes_on() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let outer = sow(Some(5));
        let first = [seed(), seed(), seed()];
        sow(Some(5));
        let mut again = vec![seed()];
        let left = sow(Some(9));
        assert_ne!(seed(), first[1]);
        sow(left);
        again.extend([seed(), seed()]);
        sow(outer);
        assert_eq!(again, first);
        assert_ne!(seed(), seed());
    }

    #[test]
    fn seeds_differ_from_call_to_call_and_from_thread_to_thread_at_one_time() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let of_a_thread = || (0..1000).map(|_| seed_at(Instant(FIRST))).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(of_a_thread)).collect();
        let mut seeds: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().expect("it only counts")).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 4000);
    }
}

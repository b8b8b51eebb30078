//! What a breaker says of itself: names, reasons in words, changes kept for listeners.

use super::policies::config;
use crate::virtual_time::{at, s};
use seawall::policies::circuit_breaker::{CircuitBreaker, Config, Evidence, Slow, State};

fn call(breaker: &CircuitBreaker, evidence: Evidence, took: f64) {
    let (permit, _) = breaker.admit(at(20.0 - took)).expect("let through");
    breaker.settle(permit, evidence, at(20.0), &mut || 0.0);
}

fn why(breaker: &CircuitBreaker) -> String {
    breaker.outlook(at(20.0)).cause.text()
}

#[test]
fn states_have_names_and_are_found_by_them() {
    let names: Vec<&str> = State::ALL.into_iter().map(State::name).collect();
    assert_eq!(names, ["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"]);
    for state in State::ALL {
        assert_eq!(State::named(state.name()), Some(state));
    }
    assert_eq!(State::named("ajar"), None);
}

#[test]
fn failures_in_a_row_and_probes_are_told_in_words() {
    for (threshold, told) in [(1, "a failure"), (3, "3 failures in a row")] {
        let breaker = CircuitBreaker::new(config(threshold, 0.0));
        assert_eq!(why(&breaker), "nothing has happened yet");
        (0..threshold).for_each(|_| call(&breaker, Evidence::Failure, 0.0));
        assert_eq!(why(&breaker), told);
        breaker.admit(at(20.0)).expect("a probe");
        assert_eq!(why(&breaker), "the recovery time was over");
    }
    for (threshold, told) in [(1, "a probe succeeded"), (2, "2 probes succeeded")] {
        let breaker = CircuitBreaker::new(Config { success_threshold: threshold, ..config(1, 0.0) });
        call(&breaker, Evidence::Failure, 0.0);
        call(&breaker, Evidence::Failure, 0.0);
        assert_eq!(why(&breaker), "a probe failed");
        (0..threshold).for_each(|_| call(&breaker, Evidence::Success, 0.0));
        assert_eq!(why(&breaker), told);
        breaker.force(State::Disabled, at(20.0));
        assert_eq!(why(&breaker), "by hand");
    }
}

#[test]
fn shares_are_told_with_what_they_are_shares_of() {
    let rate = Config { consecutive: None, rate: Some(0.5), minimum_calls: 3, ..config(1, 0.0) };
    let breaker = CircuitBreaker::new(rate.clone());
    for evidence in [Evidence::Success, Evidence::Failure, Evidence::Failure] {
        call(&breaker, evidence, 0.0);
    }
    assert_eq!(why(&breaker), "2 of 3 calls failed (67 %)");
    let slow = Some(Slow { duration: s(1.0), ratio: 0.6 });
    let breaker = CircuitBreaker::new(Config { rate: None, slow, ..rate });
    for took in [0.5, 1.0, 3.0] {
        call(&breaker, Evidence::Success, took);
    }
    assert_eq!(why(&breaker), "2 of 3 calls were slow (67 %)");
    // A probe has to begin once the circuit is open, so this one is timed by hand.
    let (probe, _) = breaker.admit(at(20.0)).expect("a probe");
    breaker.settle(probe, Evidence::Success, at(21.0), &mut || 0.0);
    assert_eq!(why(&breaker), "a probe was slow");
}

#[test]
fn of_changes_that_nobody_takes_the_newest_are_kept() {
    let breaker = CircuitBreaker::new(config(1, 10.0));
    for second in 0..5_000 {
        breaker.force(if second % 2 == 0 { State::Disabled } else { State::Closed }, at(f64::from(second)));
    }
    let kept = breaker.take_changes();
    assert_eq!((kept.len(), kept[0].at, kept[4_095].at), (4_096, at(904.0), at(4_999.0)));
}

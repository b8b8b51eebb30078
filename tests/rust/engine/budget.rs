//! The retry budget by its numbers, and the rules for waits that nobody else asks about.

use crate::virtual_time::at;
use seawall::engine::Instant;
use seawall::policies::budget::Budget;
use seawall::policies::retry::backoff::{Backoff, Growth, LONGEST};

/// Retries that there is room for at that time.
fn room(budget: &Budget, now: Instant) -> u32 {
    (0..1_000).take_while(|_| budget.withdraw(now)).count() as u32
}

#[test]
fn a_budget_begins_full_and_fills_with_time_and_calls() {
    let budget = Budget::new(0.25, 1.0, 3.0);
    assert_eq!(room(&budget, at(0.0)), 3);
    assert_eq!(room(&budget, at(2.5)), 2);
    // The half that was left over is not lost.
    assert_eq!(room(&budget, at(3.0)), 1);
    assert_eq!((0..4).map(|_| budget.deposit(at(3.0))).count(), 4);
    assert_eq!(room(&budget, at(3.0)), 1);
}

#[test]
fn no_more_is_saved_up_than_its_capacity() {
    let budget = Budget::new(0.5, 1.0, 3.0);
    assert_eq!(room(&budget, at(1e6)), 3);
    (0..100).for_each(|_| budget.deposit(at(1e6)));
    assert_eq!(room(&budget, at(1e6)), 3);
    let usual = Budget::share(0.5);
    assert_eq!((room(&usual, at(0.0)), room(&usual, at(1.0)), room(&usual, at(1e6))), (10, 1, 10));
    (0..2).for_each(|_| usual.deposit(at(1e6)));
    assert_eq!(room(&usual, at(1e6)), 1);
}

#[test]
fn a_clock_read_earlier_fills_nothing_twice() {
    let budget = Budget::new(0.0, 1.0, 9.0);
    room(&budget, at(10.0));
    budget.deposit(at(5.0));
    assert_eq!(room(&budget, at(11.0)), 1);
}

#[test]
fn the_longest_wait_is_tenacitys() {
    assert_eq!(LONGEST, 4_611_686_018_427_387_903.0);
}

#[test]
fn a_wait_of_zero_is_one_and_less_is_none() {
    let growth = Growth { multiplier: 0.0, base: 0.0, min: 0.0, max: 0.0 };
    for rule in [Backoff::Fixed { wait: 0.0 }, Backoff::Random { min: 0.0, max: 0.0 }, Backoff::Exponential(growth), Backoff::Sdk] {
        assert_eq!(rule.clone().checked(), Ok(rule));
    }
    assert!(Backoff::Random { min: -0.1, max: 1.0 }.checked().is_err());
    assert!(Backoff::Random { min: f64::INFINITY, max: f64::INFINITY }.checked().is_err());
    // Equal bounds are bounds.
    assert!(Backoff::Random { min: 2.0, max: 2.0 }.checked().is_ok());
    assert_eq!(Backoff::Sum(vec![]).checked(), Err("at least one wait is needed".to_owned()));
}

#[test]
fn every_rule_with_a_maximum_may_leave_it_open() {
    let endless = f64::INFINITY;
    let growth = |max| Growth { multiplier: 1.0, base: 2.0, min: 0.0, max };
    let rules = |max| {
        [
            Backoff::Random { min: 0.0, max },
            Backoff::Incrementing { start: 0.0, increment: 1.0, max },
            Backoff::Exponential(growth(max)),
            Backoff::RandomExponential(growth(max)),
            Backoff::EqualJitter(growth(max)),
            Backoff::ExponentialJitter { initial: 1.0, max, base: 2.0, jitter: 1.0 },
            Backoff::DecorrelatedJitter { initial: 1.0, max },
        ]
    };
    for (open, limited) in rules(endless).into_iter().zip(rules(LONGEST)) {
        assert_eq!(open.checked(), Ok(limited));
    }
}

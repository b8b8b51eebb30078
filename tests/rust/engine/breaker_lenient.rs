//! The lenient breaker against the rules of the `circuitbreaker` package: four numbers and no permits.

use super::policies::config;
use crate::virtual_time::s;
use proptest::prelude::*;
use seawall::engine::Instant;
use seawall::policies::circuit_breaker::{CircuitBreaker, Config, Evidence, State};
use std::time::Duration;

#[derive(Clone, Debug)]
enum Deed {
    Wait(u64),
    Admit,
    /// By its place among the permits given, however old; one may come back more than once.
    Settle(usize, bool),
    Record(bool),
    Nothing(usize),
    Reset,
    Limits(u32, u64),
}

struct Package {
    failures: u32,
    open: bool,
    opened: Option<u64>,
    threshold: u32,
    recovery: u64,
}

impl Package {
    fn state(&self, now: u64) -> State {
        match self.opened {
            Some(opened) if self.open && opened + self.recovery > now => State::Open,
            Some(_) if self.open => State::HalfOpen,
            _ => State::Closed,
        }
    }

    fn ended(&mut self, failed: bool, now: u64) {
        if !failed {
            return self.reset();
        }
        self.failures += 1;
        if self.failures >= self.threshold {
            self.open = true;
            self.opened = Some(now);
        }
    }

    fn reset(&mut self) {
        self.open = false;
        self.failures = 0;
    }
}

fn lenient(threshold: u32, recovery: u64) -> Config {
    Config { lenient: true, recovery: Duration::from_nanos(recovery), ..config(threshold, 1.0) }
}

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0u64..40).prop_map(Deed::Wait),
        6 => Just(Deed::Admit),
        8 => (0usize..20, any::<bool>()).prop_map(|(which, failed)| Deed::Settle(which, failed)),
        2 => any::<bool>().prop_map(Deed::Record),
        1 => (0usize..20).prop_map(Deed::Nothing),
        1 => Just(Deed::Reset),
        1 => (1u32..5, 0u64..60).prop_map(|(threshold, recovery)| Deed::Limits(threshold, recovery)),
    ]
}

fn evidence(failed: bool) -> Evidence {
    if failed { Evidence::Failure } else { Evidence::Success }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn it_counts_as_the_package_does(threshold in 1u32..5, recovery in 0u64..60, deeds in proptest::collection::vec(deeds(), 1..80)) {
        let breaker = CircuitBreaker::new(lenient(threshold, recovery));
        let mut package = Package { failures: 0, open: false, opened: None, threshold, recovery };
        let (mut now, mut given) = (1_000, Vec::new());
        for deed in deeds {
            match deed {
                Deed::Wait(more) => now += more,
                Deed::Admit => {
                    let admitted = breaker.admit(Instant(now));
                    prop_assert_eq!(admitted.is_ok(), package.state(now) != State::Open);
                    given.extend(admitted.map(|(permit, _)| permit));
                }
                Deed::Settle(which, failed) => {
                    if let Some(permit) = given.get(which) {
                        breaker.settle(*permit, evidence(failed), Instant(now), &mut || 0.5);
                        package.ended(failed, now);
                    }
                }
                Deed::Record(failed) => {
                    breaker.record(evidence(failed), Instant(now), &mut || 0.5);
                    package.ended(failed, now);
                }
                // What tells nothing counts for nothing, here too.
                Deed::Nothing(which) => {
                    if let Some(permit) = given.get(which) {
                        breaker.settle(*permit, Evidence::None, Instant(now), &mut || 0.5);
                    }
                }
                Deed::Reset => {
                    breaker.reset(Instant(now));
                    package.reset();
                }
                Deed::Limits(threshold, recovery) => {
                    breaker.reconfigure(lenient(threshold, recovery));
                    (package.threshold, package.recovery) = (threshold, recovery);
                }
            }
            let seen = breaker.outlook(Instant(now));
            prop_assert_eq!(seen.state, package.state(now));
            prop_assert_eq!(seen.consecutive_failures, package.failures);
            prop_assert_eq!(seen.opened.map(|opened| opened.0), package.opened);
            prop_assert!(breaker.gate_is_true());
        }
    }
}

#[test]
fn a_state_set_by_hand_outlasts_what_calls_tell() {
    for state in [State::ForcedOpen, State::Disabled] {
        let breaker = CircuitBreaker::new(lenient(1, 10));
        let now = Instant(0).after(s(1.0));
        breaker.force(state, now);
        breaker.record(Evidence::Failure, now, &mut || 0.5);
        breaker.record(Evidence::Success, now, &mut || 0.5);
        assert_eq!(breaker.state(now), state);
    }
}

#[test]
fn half_open_by_hand_lets_everybody_through_and_one_success_closes_it() {
    let breaker = CircuitBreaker::new(lenient(1, 1_000_000));
    let now = Instant(0).after(s(1.0));
    breaker.force(State::HalfOpen, now);
    let permits: Vec<_> = (0..3).filter_map(|_| breaker.admit(now).ok()).collect();
    assert_eq!((permits.len(), breaker.outlook(now).probes), (3, 0));
    breaker.settle(permits[2].0, Evidence::Success, now, &mut || 0.5);
    assert_eq!(breaker.state(now), State::Closed);
}

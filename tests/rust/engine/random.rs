//! The generator's numbers are SplitMix64's, so that a seed gives the same jitter in every version.

use super::policies::{FAIL, retry};
use crate::virtual_time::{World, plan, s};
use seawall::engine::{Execution, Instant, Random};
use seawall::policies::retry::{Retried, Retry, backoff::Backoff};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn the_numbers_are_splitmix64s() {
    let mut random = Random::seeded(1_234_567);
    let wanted = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423, 4_593_380_528_125_082_431];
    assert_eq!(wanted.map(|_| random.next_u64()), wanted);
    let mut random = Random::seeded(1_234_567);
    // The upper 53 bits, as many as a number has.
    assert_eq!(random.unit(), (wanted[0] / 2_048) as f64 / 9_007_199_254_740_992.0);
}

#[test]
fn a_calls_seed_decides_its_jitter() {
    let waits = |seed| -> Vec<Duration> {
        let jitter = Retry { wait: Arc::new(Backoff::Random { min: 1.0, max: 9.0 }), ..retry(5, 0.0) };
        let mut world = World::new(&[&[(0.0, FAIL)]]);
        let mut execution = Execution::new(plan(vec![Arc::new(Retried::new(jitter))]), seed, world.now);
        world.drive(&mut execution, &mut Vec::new(), Instant::NEVER).expect("it ends");
        world.events.iter().filter(|event| event.name == "retry.scheduled").map(|event| event.span).collect()
    };
    let told = waits(1);
    assert!(told.len() == 4 && told.iter().all(|wait| (s(1.0)..s(9.0)).contains(wait)));
    assert_eq!(told, waits(1));
    assert_ne!(told, waits(2));
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "each wait is drawn anew");
}

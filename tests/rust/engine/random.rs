//! The generator's numbers are SplitMix64's, so that a seed gives the same jitter in every version.

use seawall::engine::Random;

#[test]
fn the_numbers_are_splitmix64s() {
    let mut random = Random::seeded(1_234_567);
    let wanted = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423, 4_593_380_528_125_082_431];
    assert_eq!(wanted.map(|_| random.next_u64()), wanted);
    let mut random = Random::seeded(1_234_567);
    // The upper 53 bits, as many as a number has.
    assert_eq!(random.unit(), (wanted[0] / 2_048) as f64 / 9_007_199_254_740_992.0);
}

//! How long things take: fixed, or by chance with a known shape.

use crate::engine::Random;
use serde::Deserialize;

/// A distribution of seconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "distribution", rename_all = "snake_case")]
pub enum Spread {
    Fixed {
        seconds: f64,
    },
    Uniform {
        least: f64,
        most: f64,
    },
    /// What is below zero is zero.
    Normal {
        mean: f64,
        deviation: f64,
    },
    /// Half are below `median`; `sigma` is the deviation of the logarithm.
    Lognormal {
        median: f64,
        sigma: f64,
    },
    /// Shares from 0 to 1 with the seconds that so many stay below, both growing; straight between them.
    Percentiles {
        points: Vec<(f64, f64)>,
    },
}

impl Default for Spread {
    fn default() -> Spread {
        Spread::Fixed { seconds: 0.0 }
    }
}

/// A draw of the standard normal distribution (Box and Muller).
fn normal(random: &mut Random) -> f64 {
    let (radius, angle) = (1.0 - random.unit(), random.unit());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

impl Spread {
    /// Seconds by chance; none is drawn where nothing is left to it.
    pub fn draw(&self, random: &mut Random) -> f64 {
        match self {
            Spread::Fixed { seconds } => *seconds,
            Spread::Uniform { least, most } if most <= least => *least,
            Spread::Uniform { least, most } => least + (most - least) * random.unit(),
            Spread::Normal { mean, deviation } => (mean + deviation * normal(random)).max(0.0),
            Spread::Lognormal { median, sigma } => median * (sigma * normal(random)).exp(),
            Spread::Percentiles { points } => {
                let share = random.unit();
                let mut before = (0.0, 0.0);
                for (at, seconds) in points {
                    if share < *at {
                        let part = (share - before.0) / (at - before.0);
                        return before.1 + (seconds - before.1) * part;
                    }
                    before = (*at, *seconds);
                }
                before.1
            }
        }
    }

    /// Whether it never takes any time.
    pub fn is_nothing(&self) -> bool {
        *self == Spread::default()
    }
}

/// How fast a model is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pace {
    /// Before anything is answered.
    pub latency: Spread,
    /// From there to the first piece of content.
    pub first_token: Spread,
    /// For each token.
    pub per_token: Spread,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(spread: &Spread) -> Vec<f64> {
        let mut random = Random::seeded(3);
        let mut all: Vec<f64> = (0..20_000).map(|_| spread.draw(&mut random)).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() < 0.03 * wanted.max(1.0)
    }

    #[test]
    fn each_distribution_has_its_shape() {
        let share = |all: &[f64], share: f64| all[(share * 20_000.0) as usize];
        let uniform = drawn(&Spread::Uniform { least: 1.0, most: 3.0 });
        assert!(near(share(&uniform, 0.5), 2.0) && uniform[0] >= 1.0 && uniform[19_999] < 3.0);
        let normal = drawn(&Spread::Normal { mean: 5.0, deviation: 1.0 });
        assert!(near(share(&normal, 0.5), 5.0) && near(share(&normal, 0.8413), 6.0));
        assert_eq!(drawn(&Spread::Normal { mean: 0.0, deviation: 1.0 })[0], 0.0);
        let lognormal = drawn(&Spread::Lognormal { median: 2.0, sigma: 0.5 });
        assert!(near(share(&lognormal, 0.5), 2.0) && near(share(&lognormal, 0.8413), 2.0 * 0.5f64.exp()) && lognormal[0] > 0.0);
        let percentiles = drawn(&Spread::Percentiles { points: vec![(0.5, 1.0), (0.9, 3.0), (1.0, 13.0)] });
        for (at, seconds) in [(0.25, 0.5), (0.5, 1.0), (0.7, 2.0), (0.9, 3.0), (0.95, 8.0)] {
            assert!(near(share(&percentiles, at), seconds), "{at}");
        }
        assert_eq!(drawn(&Spread::Percentiles { points: vec![(0.0, 2.0), (0.5, 2.0)] }), vec![2.0; 20_000]);
        assert!(drawn(&Spread::default()).iter().all(|seconds| *seconds == 0.0) && Spread::default().is_nothing());
    }
}

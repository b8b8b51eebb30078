//! How long to wait before the next attempt. Randomness is an argument, so a seed gives the same waits again.

use std::time::Duration;

/// The longest wait there is, in seconds: the `MAX_WAIT` of tenacity, where it stands for "no limit".
pub const LONGEST: f64 = (i64::MAX / 2) as f64;

/// A rule for waits. All numbers are seconds, but for `base`, which is a factor.
#[derive(Clone, Debug, PartialEq)]
pub enum Backoff {
    /// Always the same.
    Fixed { wait: f64 },
    /// Anywhere between two bounds.
    Random { min: f64, max: f64 },
    /// `start`, then `increment` more each time; a negative increment goes down to zero.
    Incrementing { start: f64, increment: f64, max: f64 },
    /// `multiplier * base^(attempt - 1)`, kept between `min` and `max`.
    Exponential(Growth),
    /// Full jitter: anywhere between `min` and what [`Backoff::Exponential`] would wait.
    RandomExponential(Growth),
    /// Equal jitter: half of what [`Backoff::Exponential`] would wait, and anything up to that again.
    EqualJitter(Growth),
    /// `initial * base^(attempt - 1)` plus up to `jitter`, all together at most `max`.
    ExponentialJitter { initial: f64, max: f64, base: f64, jitter: f64 },
    /// Anywhere between `initial` and three times the wait before, at most `max`.
    DecorrelatedJitter { initial: f64, max: f64 },
    /// What the OpenAI SDK waits: 0.5 s doubling to 8 s, times 0.75 to 1.
    Sdk,
    /// One rule per attempt, in order; the last one from there on.
    Chain(Vec<Backoff>),
    /// All of them, one after the other.
    Sum(Vec<Backoff>),
}

/// The numbers of an exponential rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    pub multiplier: f64,
    pub base: f64,
    pub min: f64,
    pub max: f64,
}

impl Growth {
    fn after(self, attempt: u32) -> f64 {
        grown(self.multiplier, self.base, attempt).min(self.max).max(self.min)
    }
}

/// `first * base^(attempt - 1)`: infinite where it is too large for a number, never NaN.
fn grown(first: f64, base: f64, attempt: u32) -> f64 {
    // 0 * infinity is no number; zero times anything that it stands for here is zero.
    if first == 0.0 { 0.0 } else { first * base.powf(f64::from(attempt.saturating_sub(1))) }
}

fn between(low: f64, high: f64, random: &mut dyn FnMut() -> f64) -> f64 {
    low + random() * (high - low)
}

/// A number of seconds as a text; nobody reads three hundred digits.
pub fn as_text(seconds: f64) -> String {
    if seconds.abs() < 1e16 { seconds.to_string() } else { format!("{seconds:e}") }
}

impl Backoff {
    /// No wait at all.
    pub const NONE: Backoff = Backoff::Fixed { wait: 0.0 };

    /// The wait after a failed attempt.
    ///
    /// * `attempt`: the failed attempts so far, 1 after the first.
    /// * `previous`: the wait before this one, where there was one.
    /// * `random`: numbers in `0.0..1.0`.
    pub fn wait(&self, attempt: u32, previous: Option<Duration>, random: &mut dyn FnMut() -> f64) -> Duration {
        if let Backoff::Fixed { wait: 0.0 } = self {
            return Duration::ZERO;
        }
        match self.seconds(attempt, previous.map(|wait| wait.as_secs_f64()), random) {
            0.0 => Duration::ZERO,
            seconds => Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO),
        }
    }

    /// [`Backoff::wait`] in seconds: from zero to [`LONGEST`].
    pub fn seconds(&self, attempt: u32, previous: Option<f64>, random: &mut dyn FnMut() -> f64) -> f64 {
        let seconds = match self {
            Backoff::Fixed { wait } => *wait,
            Backoff::Random { min, max } => between(*min, *max, random),
            Backoff::Incrementing { start, increment, max } => (start + increment * f64::from(attempt.saturating_sub(1))).min(*max),
            Backoff::Exponential(growth) => growth.after(attempt),
            Backoff::RandomExponential(growth) => between(growth.min, growth.after(attempt), random),
            Backoff::EqualJitter(growth) => {
                let half = growth.after(attempt) / 2.0;
                between(half, 2.0 * half, random)
            }
            Backoff::ExponentialJitter { initial, max, base, jitter } => {
                (grown(*initial, *base, attempt) + between(0.0, *jitter, random)).min(*max)
            }
            Backoff::DecorrelatedJitter { initial, max } => {
                let before = previous.unwrap_or(*initial).max(*initial);
                between(*initial, 3.0 * before, random).min(*max)
            }
            Backoff::Sdk => grown(0.5, 2.0, attempt).min(8.0) * (1.0 - 0.25 * random()),
            Backoff::Chain(rules) => match rules.get(attempt.saturating_sub(1) as usize).or(rules.last()) {
                Some(rule) => rule.seconds(attempt, previous, random),
                None => 0.0,
            },
            Backoff::Sum(rules) => rules.iter().map(|rule| rule.seconds(attempt, previous, random)).sum(),
        };
        seconds.clamp(0.0, LONGEST)
    }

    /// Refuses numbers that make no wait; the text says which argument, what it was and what it may be.
    pub fn checked(self) -> Result<Backoff, String> {
        let amounts: Vec<(&str, f64)> = match &self {
            Backoff::Fixed { wait } => vec![("wait", *wait)],
            Backoff::Random { min, max } => vec![("min", *min), ("max", *max)],
            Backoff::Incrementing { start, increment, max } => {
                if !increment.is_finite() {
                    return Err(format!("increment must be a finite number of seconds, not {}", as_text(*increment)));
                }
                vec![("start", *start), ("max", *max)]
            }
            Backoff::Exponential(g) | Backoff::RandomExponential(g) | Backoff::EqualJitter(g) => {
                vec![("multiplier", g.multiplier), ("exp_base", g.base), ("min", g.min), ("max", g.max)]
            }
            Backoff::ExponentialJitter { initial, max, base, jitter } => {
                vec![("initial", *initial), ("max", *max), ("exp_base", *base), ("jitter", *jitter)]
            }
            Backoff::DecorrelatedJitter { initial, max } => vec![("initial", *initial), ("max", *max)],
            Backoff::Sdk => vec![],
            Backoff::Chain(rules) | Backoff::Sum(rules) if rules.is_empty() => return Err("at least one wait is needed".to_owned()),
            Backoff::Chain(_) | Backoff::Sum(_) => vec![],
        };
        for &(name, value) in &amounts {
            // An unlimited maximum is a maximum; any other endless number is not a wait.
            if value.is_nan() || value < 0.0 || (value.is_infinite() && name != "max") {
                return Err(format!("{name} must be a number of at least 0, not {}", as_text(value)));
            }
        }
        let named = |wanted| amounts.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        match (named("min"), named("max")) {
            (Some(min), Some(max)) if min > max => Err(format!("max must be at least min ({}), not {}", as_text(min), as_text(max))),
            _ => Ok(self.limited()),
        }
    }

    fn limited(mut self) -> Backoff {
        if let Backoff::Random { max, .. }
        | Backoff::Incrementing { max, .. }
        | Backoff::ExponentialJitter { max, .. }
        | Backoff::DecorrelatedJitter { max, .. }
        | Backoff::Exponential(Growth { max, .. })
        | Backoff::RandomExponential(Growth { max, .. })
        | Backoff::EqualJitter(Growth { max, .. }) = &mut self
        {
            *max = max.min(LONGEST);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn growth(multiplier: f64, min: f64, max: f64) -> Growth {
        Growth { multiplier, base: 2.0, min, max }
    }

    fn waits(rule: &Backoff, attempts: u32, random: f64) -> Vec<f64> {
        (1..=attempts).map(|attempt| rule.seconds(attempt, None, &mut || random)).collect()
    }

    #[test]
    fn fixed_random_and_incrementing() {
        assert_eq!(waits(&Backoff::Fixed { wait: 1.5 }, 3, 0.5), [1.5, 1.5, 1.5]);
        assert_eq!(waits(&Backoff::NONE, 2, 0.5), [0.0, 0.0]);
        assert_eq!(waits(&Backoff::Random { min: 1.0, max: 3.0 }, 2, 0.25), [1.5, 1.5]);
        assert_eq!(waits(&Backoff::Incrementing { start: 1.0, increment: 2.0, max: 4.0 }, 3, 0.0), [1.0, 3.0, 4.0]);
        assert_eq!(waits(&Backoff::Incrementing { start: 1.0, increment: -0.6, max: 4.0 }, 3, 0.0), [1.0, 0.4, 0.0]);
    }

    #[test]
    fn exponential_stays_between_its_bounds() {
        assert_eq!(waits(&Backoff::Exponential(growth(1.0, 3.0, 10.0)), 5, 0.5), [3.0, 3.0, 4.0, 8.0, 10.0]);
        let jittered = Backoff::ExponentialJitter { initial: 1.0, max: 6.0, base: 2.0, jitter: 1.0 };
        assert_eq!(waits(&jittered, 4, 0.5), [1.5, 2.5, 4.5, 6.0]);
    }

    #[test]
    fn full_and_equal_jitter() {
        assert_eq!(waits(&Backoff::RandomExponential(growth(1.0, 0.0, 8.0)), 5, 0.5), [0.5, 1.0, 2.0, 4.0, 4.0]);
        assert_eq!(waits(&Backoff::RandomExponential(growth(4.0, 2.0, 8.0)), 2, 0.5), [3.0, 5.0]);
        assert_eq!(waits(&Backoff::EqualJitter(growth(2.0, 0.0, 8.0)), 2, 0.5), [1.5, 3.0]);
    }

    #[test]
    fn decorrelated_jitter_grows_from_the_wait_before() {
        let rule = Backoff::DecorrelatedJitter { initial: 1.0, max: 20.0 };
        let mut previous = None;
        let mut got = vec![];
        for attempt in 1..=4 {
            let wait = rule.wait(attempt, previous, &mut || 0.75);
            got.push(wait.as_secs_f64());
            previous = Some(wait);
        }
        assert_eq!(got, [2.5, 5.875, 13.46875, 20.0]);
        // A shorter wait before (another rule's, in a chain) does not pull it below `initial`.
        assert!(rule.seconds(2, Some(0.1), &mut || 0.75) >= 1.0);
    }

    #[test]
    fn the_sdk_s_waits() {
        assert_eq!(waits(&Backoff::Sdk, 6, 0.0), [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]);
        assert_eq!(waits(&Backoff::Sdk, 2, 1.0), [0.375, 0.75]);
    }

    #[test]
    fn a_chain_repeats_its_last_and_a_sum_adds_up() {
        let fixed = |wait| Backoff::Fixed { wait };
        assert_eq!(waits(&Backoff::Chain(vec![fixed(1.0), fixed(2.0)]), 4, 0.0), [1.0, 2.0, 2.0, 2.0]);
        // A rule inside a chain counts the call's attempts, not its own.
        let chain = Backoff::Chain(vec![fixed(1.0), Backoff::Exponential(growth(1.0, 0.0, 100.0))]);
        assert_eq!(waits(&chain, 3, 0.0), [1.0, 2.0, 4.0]);
        assert_eq!(waits(&Backoff::Sum(vec![fixed(1.0), fixed(2.0)]), 1, 0.0), [3.0]);
    }

    #[test]
    fn numbers_too_large_become_the_maximum() {
        let rule = Backoff::Exponential(growth(1.0, 0.0, LONGEST));
        assert_eq!(rule.seconds(2001, None, &mut || 0.5), LONGEST);
        assert_eq!(rule.wait(u32::MAX, None, &mut || 0.5), Duration::from_secs_f64(LONGEST));
        assert_eq!(Backoff::Exponential(growth(0.0, 0.0, 5.0)).seconds(5000, None, &mut || 0.5), 0.0);
        assert_eq!(Backoff::Sum(vec![rule.clone(), rule]).seconds(u32::MAX, None, &mut || 0.5), LONGEST);
    }

    #[test]
    fn numbers_that_make_no_wait_are_refused() {
        let refused = |rule: Backoff| rule.checked().unwrap_err();
        assert_eq!(refused(Backoff::Fixed { wait: -1.0 }), "wait must be a number of at least 0, not -1");
        assert_eq!(refused(Backoff::Fixed { wait: f64::INFINITY }), "wait must be a number of at least 0, not inf");
        assert_eq!(refused(Backoff::Random { min: 2.0, max: 1.0 }), "max must be at least min (2), not 1");
        assert_eq!(refused(Backoff::Exponential(growth(f64::NAN, 0.0, 1.0))), "multiplier must be a number of at least 0, not NaN");
        assert_eq!(refused(Backoff::Chain(vec![])), "at least one wait is needed");
        let incrementing = Backoff::Incrementing { start: 0.0, increment: f64::INFINITY, max: 1.0 };
        assert_eq!(refused(incrementing), "increment must be a finite number of seconds, not inf");
        let endless = Backoff::Exponential(growth(1.0, 0.0, f64::INFINITY)).checked();
        assert_eq!(endless, Ok(Backoff::Exponential(growth(1.0, 0.0, LONGEST))));
    }

    fn amount() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), 0.0..100.0f64, 0.0..1e300f64]
    }

    fn leaf() -> impl Strategy<Value = Backoff> {
        let grows = || {
            (amount(), 0.0..20.0f64, amount(), amount()).prop_map(|(multiplier, base, a, b)| Growth {
                multiplier,
                base,
                min: a.min(b),
                max: a.max(b),
            })
        };
        prop_oneof![
            amount().prop_map(|wait| Backoff::Fixed { wait }),
            (amount(), amount()).prop_map(|(a, b)| Backoff::Random { min: a.min(b), max: a.max(b) }),
            (amount(), -1e3..1e3f64, amount()).prop_map(|(start, increment, max)| Backoff::Incrementing { start, increment, max }),
            grows().prop_map(Backoff::Exponential),
            grows().prop_map(Backoff::RandomExponential),
            grows().prop_map(Backoff::EqualJitter),
            (amount(), amount(), 0.0..20.0f64, amount()).prop_map(|(initial, max, base, jitter)| Backoff::ExponentialJitter {
                initial,
                max,
                base,
                jitter
            }),
            (amount(), amount()).prop_map(|(initial, max)| Backoff::DecorrelatedJitter { initial, max }),
            Just(Backoff::Sdk),
        ]
    }

    fn rule() -> impl Strategy<Value = Backoff> {
        leaf().prop_recursive(2, 12, 4, |inner| {
            let some = prop::collection::vec(inner, 1..4);
            prop_oneof![some.clone().prop_map(Backoff::Chain), some.prop_map(Backoff::Sum)]
        })
    }

    proptest! {
        #[test]
        fn every_wait_is_a_wait(rule in rule(), attempt in any::<u32>(), previous in any::<Option<Duration>>(), random in 0.0..1.0f64) {
            let rule = rule.checked().map_err(TestCaseError::fail)?;
            let seconds = rule.seconds(attempt, previous.map(|wait| wait.as_secs_f64()), &mut || random);
            prop_assert!((0.0..=LONGEST).contains(&seconds), "{seconds}");
            let wait = rule.wait(attempt, previous, &mut || random);
            prop_assert!((wait.as_secs_f64() - seconds).abs() <= seconds * 1e-9 + 1e-9, "{wait:?} is not {seconds}");
        }

        #[test]
        fn jitter_stays_within_what_it_jitters(growth in (0.0..100.0f64, 0.0..10.0f64, 10.0..1e6f64), attempt in 1u32..5000, random in 0.0..1.0f64) {
            let growth = Growth { multiplier: growth.0, base: 2.0, min: growth.1, max: growth.2 };
            let plain = Backoff::Exponential(growth).seconds(attempt, None, &mut || random);
            let full = Backoff::RandomExponential(growth).seconds(attempt, None, &mut || random);
            let equal = Backoff::EqualJitter(growth).seconds(attempt, None, &mut || random);
            prop_assert!((growth.min..=growth.max).contains(&plain));
            prop_assert!(growth.min <= full && full <= plain);
            prop_assert!(plain / 2.0 <= equal && equal <= plain);
        }

        #[test]
        fn exponential_never_shrinks(multiplier in 0.0..100.0f64, max in 0.0..1e9f64, attempt in 1u32..5000) {
            let rule = Backoff::Exponential(Growth { multiplier, base: 2.0, min: 0.0, max });
            prop_assert!(rule.seconds(attempt, None, &mut || 0.0) <= rule.seconds(attempt + 1, None, &mut || 0.0));
        }
    }
}

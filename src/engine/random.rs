//! Seeded chance: SplitMix64 (Steele, Lea, Flood 2014), enough for jitter, not for secrets.

/// A small seeded generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same sequence.
    pub fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Where a number in `[0, 1)` is drawn from, should one be needed.
pub trait Chance {
    /// The next one.
    fn draw(&mut self) -> f64;
}

impl Chance for Random {
    fn draw(&mut self) -> f64 {
        self.unit()
    }
}

impl<F: FnMut() -> f64> Chance for F {
    fn draw(&mut self) -> f64 {
        self()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_sequence_within_bounds() {
        let (mut a, mut b) = (Random::seeded(7), Random::seeded(7));
        let mut sum = 0.0;
        for _ in 0..10_000 {
            let x = a.unit();
            assert_eq!(x, b.unit());
            assert!((0.0..1.0).contains(&x));
            sum += x;
        }
        assert!((4_800.0..5_200.0).contains(&sum));
    }
}

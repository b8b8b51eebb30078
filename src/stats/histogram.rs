//! A log-linear histogram: 32 buckets for each doubling, so a bucket's middle is within 1.6 % of every value in it.

const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;

fn upper(bucket: usize) -> u64 {
    let shift = (bucket / SUB).saturating_sub(1);
    (((bucket - shift * SUB) as u64) << shift) + ((1_u64 << shift) - 1)
}

/// Counts of values by magnitude.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// As long as the highest bucket seen needs; 1,920 at the very most.
    counts: Vec<u32>,
    len: u64,
}

fn bucket(value: u64) -> usize {
    // Below 64 every value has its own bucket; above, the leading one and the five bits after it choose.
    let shift = (u64::BITS - 1 - (value | 1).leading_zeros()).saturating_sub(SUB_BITS);
    shift as usize * SUB + (value >> shift) as usize
}

fn middle(bucket: usize) -> u64 {
    let shift = (bucket / SUB).saturating_sub(1);
    let low = ((bucket - shift * SUB) as u64) << shift;
    low + (1_u64 << shift) / 2
}

impl Histogram {
    /// Counts a value in.
    pub fn add(&mut self, value: u64) {
        let bucket = bucket(value);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.len += 1;
    }

    /// Counts all of another's values in.
    pub fn merge(&mut self, other: &Histogram) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.len += other.len;
    }

    /// How many of the values are at most `limit`, within 1.6 % of it.
    pub fn at_most(&self, limit: u64) -> u64 {
        self.counts.iter().enumerate().take_while(|(bucket, _)| middle(*bucket) <= limit).map(|(_, count)| u64::from(*count)).sum()
    }

    /// How many values are counted.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no value is counted.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value that `per_mille` thousandths of the values do not exceed (nearest rank), within 1.6 %; 500 is the median.
    pub fn quantile(&self, per_mille: u32) -> Option<u64> {
        let rank = (self.len * u64::from(per_mille.min(1000))).div_ceil(1000).max(1);
        let mut seen = 0;
        self.counts
            .iter()
            .position(|count| {
                seen += u64::from(*count);
                seen >= rank
            })
            .map(middle)
    }
}

impl Histogram {
    /// What that share of the values (0 to 1, nearest rank) does not exceed: above the quantile itself by 3.2 % at the most,
    /// and never below.
    pub fn bound(&self, share: f64) -> Option<u64> {
        let rank = ((self.len as f64 * share).ceil() as u64).clamp(1, self.len.max(1));
        let mut seen = 0;
        self.counts
            .iter()
            .position(|count| {
                seen += u64::from(*count);
                seen >= rank
            })
            .map(upper)
    }
}

impl FromIterator<u64> for Histogram {
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Self {
        let mut histogram = Histogram::default();
        values.into_iter().for_each(|value| histogram.add(value));
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_their_middles_are_near() {
        let mut previous = 0;
        for value in
            (0..4096).chain((12..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + (1 << (bit - 1))])).chain([u64::MAX])
        {
            let here = bucket(value);
            assert!(here >= previous || value >= 4096 && here + 1 >= previous, "{value} fell back to bucket {here}");
            assert!(value >= 4096 || here <= previous + 1, "{value} left a gap");
            previous = here;
            assert!(bucket(upper(here)) == here && upper(here) >= value, "{value} is above its bucket's upper end");
            assert_eq!(bucket(middle(here)), here, "the middle of {value}'s bucket lies outside of it");
            assert!(middle(here).abs_diff(value) as f64 <= value as f64 / 62.0, "{value} became {}", middle(here));
        }
        assert_eq!(bucket(u64::MAX), 1919);
    }
}

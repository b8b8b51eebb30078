//! Calls by time: equal slots, each with its sums, its latencies, and whose calls they were.

use super::{Histogram, Record, Source, Sums, Tally, Word};

/// One source's share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Whose.
    pub source: Source,
    /// Its calls.
    pub tally: Tally,
}

/// What is known of some calls.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// The sums.
    pub tally: Tally,
    /// Nanoseconds.
    pub latencies: Histogram,
    /// Nanoseconds to the first content, of streams.
    pub first_tokens: Histogram,
    /// By source.
    pub groups: Vec<Group>,
    /// Failed calls by the class of the error.
    pub errors: Vec<(Word, u64)>,
}

impl Slot {
    /// Counts a call in.
    pub fn add(&mut self, record: &Record) {
        self.tally.add(record);
        self.latencies.add(record.latency_ns);
        if record.first_token_ns > 0 {
            self.first_tokens.add(record.first_token_ns);
        }
        self.group(record.source).add(record);
        if !record.ok {
            *self.count(record.error) += 1;
        }
    }

    /// Counts all of another's calls in.
    pub fn merge(&mut self, other: &Slot) {
        self.tally.merge(&other.tally);
        self.latencies.merge(&other.latencies);
        self.first_tokens.merge(&other.first_tokens);
        other.groups.iter().for_each(|group| self.group(group.source).merge(&group.tally));
        other.errors.iter().for_each(|(error, count)| *self.count(*error) += count);
    }

    fn group(&mut self, source: Source) -> &mut Tally {
        // The last ones are the likely ones, and there are few.
        let at = self.groups.iter().rposition(|group| group.source == source).unwrap_or_else(|| {
            self.groups.push(Group { source, tally: Tally::default() });
            self.groups.len() - 1
        });
        &mut self.groups[at].tally
    }

    fn count(&mut self, error: Word) -> &mut u64 {
        let at = self.errors.iter().position(|(word, _)| *word == error).unwrap_or_else(|| {
            self.errors.push((error, 0));
            self.errors.len() - 1
        });
        &mut self.errors[at].1
    }
}

impl<'a> FromIterator<&'a Record> for Slot {
    fn from_iter<I: IntoIterator<Item = &'a Record>>(records: I) -> Self {
        let mut slot = Slot::default();
        records.into_iter().for_each(|record| slot.add(record));
        slot
    }
}

/// The last so many slots. What is older leaves with its slot.
#[derive(Clone, Debug)]
pub struct Timeline {
    slots: Vec<Slot>,
    width_ns: u64,
    /// Number of the newest slot, counted from time 0.
    newest: u64,
    sum: Tally,
}

impl Timeline {
    /// Empty: `count` slots of so many nanoseconds each; a 0 in either is taken as 1.
    pub fn new(width_ns: u64, count: usize) -> Self {
        Timeline { slots: vec![Slot::default(); count.max(1)], width_ns: width_ns.max(1), newest: 0, sum: Tally::default() }
    }

    /// Counts a call in. A time before the newest slot (threads that read the clock and then waited, a clock set back) counts
    /// as the newest: nothing recorded is lost.
    pub fn add(&mut self, now_ns: u64, record: &Record) {
        self.advance(now_ns);
        let at = self.place(self.newest);
        self.slots[at].add(record);
        self.sum.add(record);
    }

    /// Lets go what is too old at that time.
    pub fn advance(&mut self, now_ns: u64) {
        let number = now_ns / self.width_ns;
        let stale = number.saturating_sub(self.newest).min(self.slots.len() as u64);
        for step in 0..stale {
            let at = self.place(number - step);
            self.sum.remove(&std::mem::take(&mut self.slots[at]).tally);
        }
        self.newest = self.newest.max(number);
    }

    /// The sums over all slots.
    pub fn sum(&self) -> &Tally {
        &self.sum
    }

    /// How long a slot is.
    pub fn width_ns(&self) -> u64 {
        self.width_ns
    }

    /// The span of all slots.
    pub fn span_ns(&self) -> u64 {
        self.width_ns.saturating_mul(self.slots.len() as u64)
    }

    /// The slots with the time at which each begins, oldest first.
    pub fn slots(&self) -> impl Iterator<Item = (u64, &Slot)> {
        let count = self.slots.len() as u64;
        (0..count).filter_map(move |step| {
            let number = (self.newest + 1 + step).checked_sub(count)?;
            Some((number * self.width_ns, &self.slots[self.place(number)]))
        })
    }

    /// All slots as one.
    pub fn whole(&self) -> Slot {
        let mut whole = Slot::default();
        self.slots.iter().for_each(|slot| whole.merge(slot));
        whole
    }

    fn place(&self, number: u64) -> usize {
        (number % self.slots.len() as u64) as usize
    }
}

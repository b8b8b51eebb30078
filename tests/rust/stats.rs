//! Windows and quantiles against the naive way: keep everything, compute from scratch after every step.

use proptest::collection::vec;
use proptest::prelude::*;
use seawall::stats::{CountWindow, Entry, Histogram, Record, Ring, Slot, Source, Tally, TimeWindow, Timeline, Word};

pub fn record() -> impl Strategy<Value = Record> {
    let latency = prop_oneof![0..100_u64, 1_000_000..9_000_000_000_u64, any::<u64>()];
    let tokens = prop_oneof![Just(0), any::<u32>()];
    let calls = (any::<bool>(), any::<bool>(), prop_oneof![Just(1), 0..5_u32, any::<u32>()], prop_oneof![Just(0), 0..5_u32, any::<u32>()]);
    let bill = (tokens.clone(), tokens, prop_oneof![Just(0), any::<u64>()]);
    let names = (prop_oneof![Just("a"), Just("b"), Just("c")], prop_oneof![Just("E"), Just("F")]);
    // What most calls are: two of them after each other are what a window takes the short way for.
    let plain = latency.clone().prop_map(|latency_ns| Record::passed(latency_ns, Source::of("a", "m", "")));
    let any = (calls, bill, prop_oneof![Just(0), 1..9_u64, any::<u64>()], latency, names).prop_map(
        |((ok, fallback, attempts, retries), (tokens, prompt_tokens, cost_nano), first_token_ns, latency_ns, (name, error))| Record {
            latency_ns,
            first_token_ns,
            cost_nano,
            tokens,
            prompt_tokens,
            attempts,
            retries,
            source: Source::of(name, "m", ""),
            error: if ok { Word::NONE } else { Word::of(error) },
            ok,
            fallback,
        },
    );
    prop_oneof![plain, any]
}

fn tally_of(records: &[Record]) -> Tally {
    let count = |what: fn(&Record) -> bool| records.iter().filter(|record| what(record)).count() as u64;
    Tally {
        total: records.len() as u64,
        errors: count(|record| !record.ok),
        retried: count(|record| record.retries != 0),
        retries: records.iter().map(|record| u64::from(record.retries)).sum(),
        fallbacks: count(|record| record.fallback),
        attempts: records.iter().map(|record| u64::from(record.attempts)).sum(),
        streams: count(|record| record.first_token_ns > 0),
        tokens: records.iter().map(|record| u64::from(record.tokens)).sum(),
        prompt_tokens: records.iter().map(|record| u64::from(record.prompt_tokens)).sum(),
        cost_nano: records.iter().map(|record| u128::from(record.cost_nano)).sum(),
        first_token_ns: records.iter().map(|record| u128::from(record.first_token_ns)).sum(),
        latency_ns: records.iter().map(|record| u128::from(record.latency_ns)).sum(),
    }
}

fn nearest_rank(values: &[u64], per_mille: usize) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (1..=sorted.len()).find(|rank| rank * 1000 >= per_mille * sorted.len())?;
    sorted.get(rank - 1).copied()
}

fn assert_quantiles(histogram: &Histogram, values: &[u64]) -> Result<(), TestCaseError> {
    prop_assert_eq!(histogram.len(), values.len() as u64);
    for per_mille in [0, 1, 500, 950, 990, 999, 1000] {
        match (histogram.quantile(per_mille), nearest_rank(values, per_mille as usize)) {
            (Some(got), Some(want)) => {
                prop_assert!(got.abs_diff(want) as f64 <= 0.0162 * want as f64, "{per_mille}: got {got}, want {want}")
            }
            (got, want) => prop_assert_eq!(got, want),
        }
    }
    Ok(())
}

fn assert_slot(slot: &Slot, records: &[Record]) -> Result<(), TestCaseError> {
    prop_assert_eq!(slot.tally, tally_of(records));
    assert_quantiles(&slot.latencies, &records.iter().map(|record| record.latency_ns).collect::<Vec<_>>())?;
    let first: Vec<u64> = records.iter().map(|record| record.first_token_ns).filter(|ns| *ns > 0).collect();
    assert_quantiles(&slot.first_tokens, &first)?;
    for name in ["a", "b", "c"] {
        let source = Source::of(name, "m", "");
        let own: Vec<Record> = records.iter().filter(|record| record.source == source).copied().collect();
        let found = slot.groups.iter().find(|group| group.source == source).map(|group| group.tally);
        prop_assert_eq!(found, (!own.is_empty()).then(|| tally_of(&own)));
    }
    for error in ["E", "F"].map(Word::of) {
        let failed = records.iter().filter(|record| !record.ok && record.error == error).count() as u64;
        prop_assert_eq!(slot.errors.iter().find(|(known, _)| *known == error).map_or(0, |(_, count)| *count), failed);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_timeline_is_its_calls_slot_by_slot(
        width in 1..20_u64, count in 0..8_usize, calls in vec((0..25_u64, record()), 0..60), ahead in 0..300_u64,
    ) {
        let mut timeline = Timeline::new(width, count);
        let (mut now, mut kept) = (1_000_u64, Vec::new());
        for (step, record) in calls {
            now += step;
            timeline.add(now, &record);
            kept.push((now, record));
        }
        now += ahead;
        timeline.advance(now);
        let newest = now / width;
        let of_slot = |number: u64| kept.iter().filter(|(at, _)| at / width == number).map(|(_, record)| *record).collect::<Vec<Record>>();
        let slots: Vec<(u64, &Slot)> = timeline.slots().collect();
        prop_assert_eq!(slots.len() as u64, (newest + 1).min(count.max(1) as u64));
        prop_assert_eq!(timeline.span_ns(), width * count.max(1) as u64);
        let mut all = Vec::new();
        for (at, slot) in slots {
            prop_assert_eq!(at % width, 0);
            assert_slot(slot, &of_slot(at / width))?;
            all.extend(of_slot(at / width));
        }
        prop_assert_eq!(*timeline.sum(), tally_of(&all));
        assert_slot(&timeline.whole(), &all)?;
        // A clock set back loses nothing.
        let late = Record { ok: true, ..Record::default() };
        timeline.add(now.saturating_sub(500), &late);
        prop_assert_eq!(timeline.sum().total, all.len() as u64 + 1);
    }

    #[test]
    fn merged_histograms_are_one_of_all_values(one in vec(any::<u64>(), 0..50), other in vec(0..5_000_u64, 0..50), limit in 0..6_000_u64) {
        let mut merged: Histogram = one.iter().copied().collect();
        merged.merge(&other.iter().copied().collect());
        let all = [one, other].concat();
        assert_quantiles(&merged, &all)?;
        let near = limit as f64 * 0.017 + 1.0;
        let counted = |limit: f64| all.iter().filter(|value| **value as f64 <= limit).count() as u64;
        prop_assert!((counted(limit as f64 - near)..=counted(limit as f64 + near)).contains(&merged.at_most(limit)));
    }

    #[test]
    fn a_ring_keeps_the_newest(capacity in 0..40_usize, values in vec(any::<u16>(), 0..150)) {
        let mut ring = Ring::new(capacity);
        let kept = capacity.max(1);
        for (at, value) in values.iter().enumerate() {
            let mut left = None;
            ring.push(|| *value, |leaves| left = leaves.copied());
            prop_assert_eq!(left, at.checked_sub(kept).map(|left| values[left]));
            let want = &values[(at + 1).saturating_sub(kept)..=at];
            prop_assert_eq!(ring.iter().copied().collect::<Vec<_>>(), want.to_vec());
            prop_assert_eq!(ring.len(), want.len());
        }
    }

    #[test]
    fn a_histogram_gives_the_nearest_ranks(values in vec(prop_oneof![0..100_u64, 1_000_000..9_000_000_000_u64, any::<u64>()], 0..200)) {
        assert_quantiles(&Histogram::from_iter(values.iter().copied()), &values)?;
    }

    #[test]
    fn a_count_window_equals_a_list_that_is_summed_up_anew(size in 1..30_usize, records in vec(record(), 1..120)) {
        let mut window = CountWindow::new(size);
        for (at, record) in records.iter().enumerate() {
            window.push(|| Entry { at_ns: at as u64, record: *record, given_seconds: f64::NAN });
            let kept = &records[(at + 1).saturating_sub(size)..=at];
            prop_assert_eq!(window.tally(), &tally_of(kept));
            prop_assert_eq!(window.entries().map(|entry| entry.record).collect::<Vec<_>>(), kept.to_vec());
        }
    }

    #[test]
    fn a_time_window_equals_a_list_that_is_summed_up_anew(
        span in 1..500_u64,
        buckets in 1..12_usize,
        steps in vec((prop_oneof![0..40_u64, 0..2_000_u64], record()), 1..80),
        start in prop_oneof![Just(0), 0..10_000_u64],
    ) {
        let mut window = TimeWindow::<Tally>::new(span, buckets);
        let width = span.div_ceil(buckets as u64);
        let mut now = start;
        let mut seen: Vec<(u64, Record)> = Vec::new();
        for (pause, record) in steps {
            now += pause;
            window.add(now, &Tally::from(record));
            seen.push((now, record));
            let first_bucket = (now / width).saturating_sub(buckets as u64 - 1);
            let kept: Vec<Record> = seen.iter().filter(|(at, _)| at / width >= first_bucket).map(|(_, record)| *record).collect();
            prop_assert_eq!(window.sum(now), &tally_of(&kept));
        }
        prop_assert_eq!(window.sum(now + width * buckets as u64), &Tally::default());
    }
}

#[test]
fn a_time_window_sees_its_span_and_forgets_what_is_older() {
    let mut window = TimeWindow::<Tally>::new(1_000, 10);
    let one = Tally::from(Record::default());
    window.add(50, &one);
    assert_eq!(window.sum(999).total, 1);
    assert_eq!(window.sum(1_000).total, 0);
    window.add(u64::MAX, &one);
    assert_eq!(window.sum(u64::MAX).total, 1);
}

#[test]
fn a_record_with_an_older_time_counts_as_the_newest() {
    let mut window = TimeWindow::<Tally>::new(1_000, 10);
    let one = Tally::from(Record::default());
    window.add(5_000, &one);
    window.add(10, &one);
    assert_eq!(window.sum(4_000).total, 2);
    assert_eq!(window.sum(5_999).total, 2);
    assert_eq!(window.sum(6_000).total, 0);
}

#[test]
fn rates_of_nothing_are_unknown() {
    let nothing = Tally::default();
    assert_eq!((nothing.error_rate(), nothing.success_rate(), nothing.retry_rate()), (None, None, None));
    assert_eq!((nothing.fallback_rate(), nothing.mean_seconds()), (None, None));
}

#[test]
fn rates_are_shares_of_all_calls() {
    let call = |seconds: u64, ok, retries, fallback| Record {
        latency_ns: seconds * 1_000_000_000,
        tokens: 9,
        retries,
        ok,
        fallback,
        ..Record::default()
    };
    let mut tally = tally_of(&[call(1, false, 3, true), call(2, true, 1, false), call(3, true, 2, true), call(8, true, 0, true)]);
    assert_eq!((tally.error_rate(), tally.success_rate()), (Some(0.25), Some(0.75)));
    assert_eq!((tally.retry_rate(), tally.fallback_rate()), (Some(0.75), Some(0.75)));
    assert_eq!(tally.mean_seconds(), Some(3.5));
    tally.exchange(|| call(6, true, 0, false), &call(8, true, 0, true));
    assert_eq!((tally.fallback_rate(), tally.mean_seconds()), (Some(0.5), Some(3.0)));
}

#[test]
fn windows_say_how_much_they_keep() {
    for (asked, kept) in [(0, 1), (1, 1), (70, 70)] {
        let mut ring = Ring::new(asked);
        assert_eq!((ring.capacity(), ring.len(), ring.is_empty()), (kept, 0, true));
        ring.push(|| 1, |_| {});
        assert_eq!((ring.capacity(), ring.len(), ring.is_empty()), (kept, 1, false));
        assert_eq!(CountWindow::new(asked).size(), kept);
    }
}

#[test]
fn the_largest_latencies_overflow_nothing() {
    let mut window = CountWindow::new(3);
    let slow = Record { latency_ns: u64::MAX, tokens: u32::MAX, retries: u32::MAX, ..Record::default() };
    for at_ns in 0..10 {
        window.push(|| Entry { at_ns, record: slow, given_seconds: f64::NAN });
    }
    assert_eq!(window.tally().latency_ns, u128::from(u64::MAX) * 3);
    assert_eq!(window.tally().tokens, u64::from(u32::MAX) * 3);
}

#[test]
fn a_latency_given_in_seconds_comes_back_unchanged() {
    let record = Record { latency_ns: 300_000_000, ..Record::default() };
    let given = 0.1 + 0.2;
    assert_eq!(Entry { at_ns: 0, record, given_seconds: given }.seconds(), given);
    assert_eq!(Entry { at_ns: 0, record, given_seconds: f64::NAN }.seconds(), 0.3);
}

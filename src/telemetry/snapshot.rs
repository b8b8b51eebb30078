//! The numbers of this process under the names of the table, and how those of several processes are put together.

use super::known::{BREAKERS, Living, MONITORS};
use super::ledger::{self, Series};
use super::names::{self, BUCKETS, METRICS, Metric, Together};
use crate::drive::clock;
use crate::policies::circuit_breaker::State;
use crate::stats::{Histogram, OTHER, Word};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// So many pipelines, models and endpoints have series of their own, and so many names of breakers; the rest share one. Whoever makes
/// up names must not flood whoever stores the series.
const MOST: usize = 1000;

/// A sample's value.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "net", derive(serde::Serialize, serde::Deserialize))]
pub enum Value {
    /// Of a counter or gauge.
    Number(f64),
    /// Of a histogram: how many values each bucket holds, one more for what is beyond the last, and their sum.
    Spread(Vec<u64>, f64),
}

impl Value {
    fn and(&mut self, other: &Value, together: Together) {
        match (self, other) {
            (Value::Number(one), Value::Number(other)) if together == Together::Sum => *one += other,
            (Value::Number(one), Value::Number(other)) => *one = one.max(*other),
            (Value::Spread(counts, sum), Value::Spread(more, added)) => {
                counts.iter_mut().zip(more).for_each(|(count, more)| *count = count.saturating_add(*more));
                *sum += added;
            }
            // Of another version, whose table differed.
            _ => {}
        }
    }

    fn spread(values: &Histogram, sum_ns: u128) -> Value {
        let mut below = 0;
        let mut counts: Vec<u64> = BUCKETS
            .iter()
            .map(|limit| {
                let at_most = values.at_most((limit * 1e9) as u64);
                at_most - std::mem::replace(&mut below, at_most)
            })
            .collect();
        counts.push(values.len() - below);
        Value::Spread(counts, sum_ns as f64 / 1e9)
    }
}

/// The samples of one metric, by the values of its labels.
pub type Samples = BTreeMap<Vec<String>, Value>;

/// All samples, in the order of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot(Vec<Samples>);

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot(vec![Samples::new(); METRICS.len()])
    }
}

impl Snapshot {
    /// The metrics with their samples.
    pub fn families(&self) -> impl Iterator<Item = (&'static Metric, &Samples)> {
        METRICS.iter().copied().zip(&self.0)
    }

    /// Puts a value to what is there under the same labels.
    pub fn add(&mut self, metric: &Metric, labels: Vec<String>, value: &Value) {
        let place = self.0[metric.place()].entry(labels);
        place.and_modify(|there| there.and(value, metric.together)).or_insert_with(|| value.clone());
    }

    /// Puts all of another's samples to these.
    pub fn merge(&mut self, other: &Snapshot, wanted: impl Fn(&Metric) -> bool) {
        for (metric, samples) in other.families().filter(|(metric, _)| wanted(metric)) {
            samples.iter().for_each(|(labels, value)| self.add(metric, labels.clone(), value));
        }
    }

    fn number(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        self.add(metric, labels.iter().map(|label| clean(label).into_owned()).collect(), &Value::Number(value));
    }
}

/// A label's value without characters that control a terminal or a reader of lines.
fn clean(text: &str) -> Cow<'_, str> {
    let hurts = |c: char| c.is_control() && c != '\n';
    if text.contains(hurts) { Cow::Owned(text.replace(hurts, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// How often one breaker opened, and turned calls away.
type Counts = (u64, u64);

/// What breakers have counted that are no more, or before their process was forked off.
struct Gone {
    /// By number: the name, and what was counted last.
    last: Option<HashMap<u64, (String, Counts)>>,
    /// By number: what does not count.
    before: Option<HashMap<u64, Counts>>,
    /// By name.
    gone: BTreeMap<String, Counts>,
}

static GONE: Mutex<Gone> = Mutex::new(Gone { last: None, before: None, gone: BTreeMap::new() });

/// The numbers of this process now. It takes locks of the process's.
pub fn numbers() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut seen = 0;
    ledger::each(|series| {
        seen += 1;
        let source = [series.source.pipeline(), series.source.model(), series.source.endpoint()].map(Word::as_str);
        told(&mut snapshot, series, if seen <= MOST { source } else { [OTHER; 3] });
    });
    circuits(&mut snapshot);
    monitors(&mut snapshot);
    snapshot.number(&names::PROCESSES, &[], 1.0);
    snapshot.number(&names::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    snapshot
}

fn told(snapshot: &mut Snapshot, series: &Series, source: [&str; 3]) {
    let [pipeline, model, endpoint] = source;
    let with = |label| [pipeline, model, endpoint, label];
    let tally = &series.calls.tally;
    // Those that went well are told even where there are none: a rate of errors is one of all.
    let outcomes = series.calls.errors.iter().map(|(error, count)| (error.as_str(), *count));
    for (outcome, count) in [("ok", tally.total - tally.errors)].into_iter().chain(outcomes).filter(|_| tally.total > 0) {
        snapshot.number(&names::CALLS, &with(outcome), count as f64);
    }
    for (error, count) in &series.requests {
        let outcome = if error.is_some() { error.as_str() } else { "ok" };
        snapshot.number(&names::REQUESTS, &with(outcome), *count as f64);
    }
    let counts = [(&names::CALLS_ABANDONED, series.abandoned), (&names::RETRIES, tally.retries), (&names::FALLBACKS, tally.fallbacks)];
    for (metric, count) in counts.into_iter().filter(|(metric, count)| *count > 0 || metric.name == names::RETRIES.name) {
        snapshot.number(metric, &source, count as f64);
    }
    if tally.tokens > 0 {
        snapshot.number(&names::TOKENS, &with("input"), tally.prompt_tokens as f64);
        snapshot.number(&names::TOKENS, &with("output"), tally.tokens.saturating_sub(tally.prompt_tokens) as f64);
    }
    if tally.cost_nano > 0 {
        snapshot.number(&names::COST, &source, tally.cost());
    }
    let spreads = [
        (&names::CALL_DURATION, &series.calls.latencies, tally.latency_ns),
        (&names::REQUEST_DURATION, &series.request_latencies, series.request_ns),
        (&names::FIRST_TOKEN, &series.calls.first_tokens, tally.first_token_ns),
    ];
    for (metric, values, sum_ns) in spreads.into_iter().filter(|(_, values, _)| !values.is_empty()) {
        let labels = source.iter().map(|label| clean(label).into_owned()).collect();
        snapshot.add(metric, labels, &Value::spread(values, sum_ns));
    }
}

fn circuits(snapshot: &mut Snapshot) {
    let now = clock::now();
    let mut guard = GONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Gone { last, before, gone } = &mut *guard;
    let (mut seen, mut names): (HashMap<u64, (String, Counts)>, HashSet<String>) = Default::default();
    for Living { number, it: breaker, name } in BREAKERS.living() {
        let Some(name) = name.get().map(|name| clean(Word::of(name).as_str()).into_owned()) else { continue };
        let name = if names.len() < MOST || names.contains(&name) { name } else { OTHER.to_owned() };
        let outlook = breaker.outlook(now);
        for state in State::ALL {
            snapshot.number(&names::CIRCUIT_STATE, &[&name, state.name()], f64::from(u8::from(state == outlook.state)));
        }
        let (openings, rejected) = before.as_ref().and_then(|before| before.get(&number)).copied().unwrap_or_default();
        // One that was reset may have fewer.
        seen.insert(number, (name.clone(), (outlook.openings.saturating_sub(openings), outlook.rejected.saturating_sub(rejected))));
        names.insert(name);
    }
    for (number, (name, (openings, rejected))) in last.take().unwrap_or_default() {
        if !seen.contains_key(&number) {
            let counts = gone.entry(name).or_default();
            *counts = (counts.0 + openings, counts.1 + rejected);
        }
    }
    for (name, (openings, rejected)) in gone.iter().chain(seen.values().map(|(name, counts)| (name, counts))) {
        snapshot.number(&names::CIRCUIT_OPENINGS, &[name], *openings as f64);
        snapshot.number(&names::CIRCUIT_REJECTIONS, &[name], *rejected as f64);
    }
    *last = Some(seen);
}

fn monitors(snapshot: &mut Snapshot) {
    for (at, monitor) in MONITORS.living().into_iter().enumerate() {
        if let Some(name) = monitor.name.get() {
            let name = if at < MOST { Word::of(name).as_str() } else { OTHER };
            snapshot.number(&names::MONITOR_LEVEL, &[name], f64::from(monitor.it.level() as u8));
        }
    }
}

/// Begins at zero: what a process has counted before it was forked off is the other's.
pub fn forget() {
    ledger::forget();
    let before = BREAKERS.living().into_iter().map(|breaker| {
        let outlook = breaker.it.outlook(clock::now());
        (breaker.number, (outlook.openings, outlook.rejected))
    });
    let mut gone = GONE.lock().unwrap_or_else(PoisonError::into_inner);
    *gone = Gone { last: None, before: Some(before.collect()), gone: BTreeMap::new() };
}

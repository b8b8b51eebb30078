//! The monitor: one latch around a window, its sums and the state of the incident.

use std::collections::VecDeque;

use super::alert::Alert;
use super::incident::{Incident, Moment};
use super::level::{Level, Metric};
use super::rules::Rules;
use crate::stats::{CountWindow, Entry, Held, Histogram, Latch, Record, Tally};

/// How many past alerts are kept.
const KEPT_ALERTS: usize = 100;

/// Counts calls and tells when something is wrong. Recording takes the same time at every window size.
#[derive(Debug)]
pub struct Monitor {
    state: Latch<State>,
}

#[derive(Debug)]
struct State {
    window: CountWindow,
    lifetime: Tally,
    failures_in_a_row: u64,
    rules: Rules,
    incident: Incident,
    alerts: VecDeque<Alert>,
}

/// The numbers at one moment. Rates are shares from 0 to 1, times are seconds; `None` while the window is empty.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Sums over the window.
    pub window: Tally,
    /// Sums over all calls ever recorded.
    pub lifetime: Tally,
    /// Calls the window holds at most.
    pub window_size: usize,
    /// How bad it is.
    pub level: Level,
    /// Calls failed since the last success.
    pub failures_in_a_row: u64,
}

impl State {
    fn new(window: usize, rules: Rules) -> Self {
        State {
            window: CountWindow::new(window),
            lifetime: Tally::default(),
            failures_in_a_row: 0,
            rules,
            incident: Incident::default(),
            alerts: VecDeque::new(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            window: *self.window.tally(),
            lifetime: self.lifetime,
            window_size: self.window.size(),
            level: self.incident.level(),
            failures_in_a_row: self.failures_in_a_row,
        }
    }

    fn keep(&mut self, alert: &Alert) {
        if self.alerts.len() == KEPT_ALERTS {
            self.alerts.pop_front();
        }
        self.alerts.push_back(alert.clone());
    }
}

impl Monitor {
    /// A monitor over the last `window` calls, with the usual rules.
    pub fn new(window: usize) -> Self {
        Monitor::with_rules(window, Rules::default())
    }

    /// A monitor with rules of one's own.
    pub fn with_rules(window: usize, rules: Rules) -> Self {
        Monitor { state: Latch::new(State::new(window, rules)) }
    }

    #[inline]
    fn state(&self) -> Held<'_, State> {
        self.state.hold()
    }

    /// Counts one finished call; `now_ns` is the Unix time in nanoseconds and only labels what it stamps. An alert is
    /// returned, not published: that is for the caller to do, and no lock is held any more.
    pub fn record(&self, now_ns: u64, record: Record) -> Option<Alert> {
        self.record_entry(Entry { at_ns: now_ns, record, given_seconds: f64::NAN })
    }

    /// As [`Monitor::record`], for a call whose latency was measured as a float that is to be shown again unchanged.
    // Always inlined: where most of an entry is known, most of this is nothing.
    #[inline(always)]
    pub fn record_entry(&self, entry: Entry) -> Option<Alert> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.window.push(entry);
        state.lifetime.add(&entry.record);
        state.failures_in_a_row = if entry.record.ok { 0 } else { state.failures_in_a_row + 1 };
        let alert = state.incident.observe(&Moment {
            rules: &state.rules,
            window: state.window.tally(),
            window_size: state.window.size(),
            failures_in_a_row: state.failures_in_a_row,
            now_ns: entry.at_ns,
        })?;
        state.keep(&alert);
        Some(alert)
    }

    /// As [`Monitor::record`], for a success at once with nothing else to tell.
    pub fn passed(&self, now_ns: u64, latency_ns: u64) -> Option<Alert> {
        let record = Record { latency_ns, tokens: 0, retries: 0, ok: true, fallback: false };
        self.record_entry(Entry { at_ns: now_ns, record, given_seconds: f64::NAN })
    }

    /// The numbers now, all of one moment.
    pub fn snapshot(&self) -> Snapshot {
        self.state().snapshot()
    }

    /// The same, and the distribution of the latencies in the window: nanoseconds, within 1.6 %. It is made for whoever asks,
    /// since those who look are fewer than those who record; they wait while it is copied, not while it is sorted.
    pub fn snapshot_with_latencies(&self) -> (Snapshot, Histogram) {
        let state = self.state();
        let (seen, latencies) = (state.snapshot(), state.window.entries().map(|entry| entry.record.latency_ns).collect::<Vec<u64>>());
        drop(state);
        (seen, Histogram::from_iter(latencies))
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        self.state().incident.level()
    }

    /// The calls in the window, oldest first: a copy.
    pub fn entries(&self) -> Vec<Entry> {
        self.state().window.entries().copied().collect()
    }

    /// The last `most` calls of those, oldest first.
    pub fn recent(&self, most: usize) -> Vec<Entry> {
        let state = self.state();
        let held = state.window.tally().total as usize;
        state.window.entries().skip(held.saturating_sub(most)).copied().collect()
    }

    /// The last alerts (at most 100), oldest first: a copy.
    pub fn alerts(&self) -> Vec<Alert> {
        self.state().alerts.iter().cloned().collect()
    }

    /// The rules in force: a copy.
    pub fn rules(&self) -> Rules {
        self.state().rules.clone()
    }

    /// Moves a limit, as [`Rules::set_limit`] says; the next record is judged by it.
    pub fn set_limit(&self, metric: Metric, critical: f64) {
        self.state().rules.set_limit(metric, critical);
    }

    /// Forgets everything but the rules and begins again with a window of that size.
    pub fn restart(&self, window: usize) {
        let mut state = self.state();
        *state = State::new(window, state.rules.clone());
    }
}

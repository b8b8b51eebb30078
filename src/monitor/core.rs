//! The monitor: one latch around a window, its sums and the state of the incident.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use super::alert::Alert;
use super::incident::{Incident, Moment};
use super::level::{Level, Metric, Seen};
use super::rules::Rules;
use super::silence::{Silence, Silences};
use super::tail::Tail;
use super::window::{Span, Window};
use crate::engine::Instant;
use crate::stats::{Entry, Held, Latch, Record, Slot, Source, Tally};

/// How many past alerts are kept.
const KEPT_ALERTS: usize = 100;

/// Counts calls and tells when something is wrong. Recording takes the same time at every window size.
#[derive(Debug)]
pub struct Monitor {
    state: Latch<State>,
    /// When something is to be told without a call, in nanoseconds of the engine's clock.
    due: AtomicU64,
}

#[derive(Debug)]
struct State {
    window: Window,
    lifetime: Tally,
    failures_in_a_row: u64,
    /// What the last judgement counted with.
    judged: Option<Counted>,
    rules: Rules,
    tail: Tail,
    incident: Incident,
    silences: Silences,
    alerts: VecDeque<Alert>,
}

/// All that rules about rates and outages are worked out from.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counted {
    total: u64,
    errors: u64,
    retried: u64,
    fallbacks: u64,
    failures_in_a_row: u64,
}

/// The numbers at one moment. Rates are shares from 0 to 1, times are seconds; `None` while the window is empty.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Sums over the window.
    pub window: Tally,
    /// Sums over all calls ever recorded.
    pub lifetime: Tally,
    /// What the window holds at most.
    pub span: Span,
    /// How bad it is.
    pub level: Level,
    /// Calls failed since the last success.
    pub failures_in_a_row: u64,
}

impl State {
    fn new(span: Span, rules: Rules) -> Self {
        State {
            window: Window::new(span),
            lifetime: Tally::default(),
            failures_in_a_row: 0,
            judged: None,
            rules,
            tail: Tail::default(),
            incident: Incident::default(),
            silences: Silences::default(),
            alerts: VecDeque::new(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            window: *self.window.tally(),
            lifetime: self.lifetime,
            span: self.window.span(),
            level: self.incident.level(),
            failures_in_a_row: self.failures_in_a_row,
        }
    }

    /// What one look at things is made with, and the incident that it is for.
    #[inline]
    fn look(&mut self, now: Instant, at_ns: u64) -> (&mut Incident, Moment<'_>) {
        let seen = Seen { window: self.window.tally(), failures_in_a_row: self.failures_in_a_row, tail: self.tail.seconds() };
        let (window_size, moves) = (self.window.most(), self.window.moves());
        let moment = Moment { rules: &self.rules, seen, window_size, moves, now, at_ns };
        (&mut self.incident, moment)
    }

    fn counted(&self) -> Counted {
        let Tally { total, errors, retried, fallbacks, .. } = *self.window.tally();
        Counted { total, errors, retried, fallbacks, failures_in_a_row: self.failures_in_a_row }
    }

    /// Whether the last judgement still holds: what it counted with has not changed, and the rest is as it should be. So it is where
    /// one trouble lasts, and every call is like the one that leaves the window for it.
    #[inline]
    fn is_as_judged(&self, counted: Counted) -> bool {
        self.judged == Some(counted)
            && self.incident.is_settled(&self.rules)
            && self.window.moves().is_none()
            && !self.rules.needs_tail()
            && self.rules.is_fast(self.window.tally())
    }

    fn due(&self, now: Instant) -> Instant {
        // What a window over a time lets go may change things, too.
        let moves = self.window.moves().filter(|_| self.incident.is_busy()).map_or(Instant::NEVER, |every| now.after(every));
        moves.min(self.told_next())
    }

    fn told_next(&self) -> Instant {
        match self.silences.is_on() {
            true => self.silences.due().min(self.incident.turns_at(&self.rules)),
            false => self.incident.due(&self.rules),
        }
    }

    /// What time alone has brought until now.
    fn pass(&mut self, now: Instant, at_ns: u64) -> Vec<Alert> {
        let mut told = Vec::new();
        self.window.advance(at_ns);
        if self.window.moves().is_some() && self.rules.needs_tail() {
            self.tail.renew(&self.window);
        }
        let (incident, moment) = self.look(now, at_ns);
        let changed = incident.pass(&moment);
        self.add(&mut told, changed);
        let number = self.incident.number();
        if let Some((ended, known)) = self.silences.over(now, number) {
            self.add(&mut told, ended.map(|alert| Alert { at_ns, ..alert }));
            let (incident, moment) = self.look(now, at_ns);
            let missed = incident.retell(known, &moment);
            self.add(&mut told, missed);
        }
        // Nobody is reminded of what is silenced.
        if !self.silences.is_on() {
            let (incident, moment) = self.look(now, at_ns);
            let again = incident.remind(&moment);
            self.add(&mut told, again);
        }
        told
    }

    fn add(&mut self, told: &mut Vec<Alert>, alert: Option<Alert>) {
        if let Some(mut alert) = alert {
            self.keep(&mut alert);
            told.push(alert);
        }
    }

    fn keep(&mut self, alert: &mut Alert) {
        self.silences.mark(alert);
        if self.alerts.len() == KEPT_ALERTS {
            self.alerts.pop_front();
        }
        self.alerts.push_back(alert.clone());
    }
}

impl Monitor {
    /// A monitor over a window, with the usual rules.
    pub fn new(window: impl Into<Span>) -> Self {
        Monitor::with_rules(window, Rules::default())
    }

    /// A monitor with rules of one's own.
    pub fn with_rules(window: impl Into<Span>, rules: Rules) -> Self {
        Monitor { state: Latch::new(State::new(window.into(), rules)), due: AtomicU64::new(Instant::NEVER.0) }
    }

    #[inline]
    fn state(&self) -> Held<'_, State> {
        self.state.hold()
    }

    /// Counts one finished call; `now_ns` is the time in nanoseconds and stamps it too. An alert is returned, not published:
    /// that is for the caller to do, and no lock is held any more. So is what [`Monitor::due`] says.
    pub fn record(&self, now_ns: u64, record: Record) -> Option<Alert> {
        self.record_entry(Instant(now_ns), Entry { at_ns: now_ns, record, given_seconds: f64::NAN })
    }

    /// As [`Monitor::record`], for a call whose latency was measured as a float that is to be shown again unchanged, stamped with
    /// the Unix time.
    pub fn record_entry(&self, now: Instant, entry: Entry) -> Option<Alert> {
        self.record_made(now, entry.at_ns, || entry)
    }

    // Always inlined: where most of an entry is known, most of this is nothing.
    #[inline(always)]
    fn record_made(&self, now: Instant, at_ns: u64, made: impl Fn() -> Entry) -> Option<Alert> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.window.push(&made);
        state.lifetime.add(&made().record);
        state.failures_in_a_row = if made().record.ok { 0 } else { state.failures_in_a_row + 1 };
        let is_new = state.rules.needs_tail() && state.tail.look(&state.window);
        if state.failures_in_a_row == 0 && !is_new && !state.incident.is_busy() && state.rules.is_calm(state.window.tally()) {
            return None;
        }
        self.judge(state, now, at_ns)
    }

    /// Judges the newest record.
    #[inline(never)]
    fn judge(&self, state: &mut State, now: Instant, at_ns: u64) -> Option<Alert> {
        let counted = state.counted();
        if state.is_as_judged(counted) {
            return None;
        }
        state.judged = Some(counted);
        let was_busy = state.incident.is_busy();
        let (incident, moment) = state.look(now, at_ns);
        let mut alert = incident.observe(&moment);
        if was_busy || state.incident.is_busy() {
            if let Some(alert) = &mut alert {
                state.keep(alert);
            }
            self.due.store(state.due(now).0, Ordering::Relaxed);
        }
        alert
    }

    /// As [`Monitor::record`], for a success at once with nothing else to tell.
    pub fn passed(&self, now: Instant, at_ns: u64, latency_ns: u64, source: Source) -> Option<Alert> {
        self.record_made(now, at_ns, || Entry { at_ns, record: Record::passed(latency_ns, source), given_seconds: f64::NAN })
    }

    /// When [`Monitor::tick`] has something to tell although no call is recorded; [`Instant::NEVER`] is never.
    #[inline]
    pub fn due(&self) -> Instant {
        Instant(self.due.load(Ordering::Relaxed))
    }

    /// What time alone has brought: a level that has lasted long enough, a reminder, the end of a silence. To be published as
    /// those of [`Monitor::record`] are.
    pub fn tick(&self, now: Instant, at_ns: u64) -> Vec<Alert> {
        let mut state = self.state();
        let told = state.pass(now, at_ns);
        self.due.store(state.due(now).0, Ordering::Relaxed);
        told
    }

    /// Alerts are kept and told to nobody until then. Gives the silence's number.
    pub fn silence(&self, until: Instant, reason: Option<String>) -> u64 {
        let mut state = self.state();
        let id = state.silences.begin(until, reason);
        self.due.store(state.told_next().min(self.due()).0, Ordering::Relaxed);
        id
    }

    /// Ends a silence before its time; what it held back is for [`Monitor::tick`] to tell. `false`: it was over before.
    pub fn end_silence(&self, id: u64) -> bool {
        let mut state = self.state();
        let was_on = state.silences.end(id);
        self.due.store(state.told_next().min(self.due()).0, Ordering::Relaxed);
        was_on
    }

    /// The silences that last.
    pub fn silences(&self, now: Instant) -> Vec<Silence> {
        self.state().silences.active(now)
    }

    /// The numbers at that time, all of one moment.
    pub fn snapshot(&self, now_ns: u64) -> Snapshot {
        let mut state = self.state();
        state.window.advance(now_ns);
        state.snapshot()
    }

    /// The same, and all that is known of the window's calls: distributions (nanoseconds, within 1.6 %), and whose they were. It
    /// is made for whoever asks, since those who look are fewer than those who record; they wait while it is copied, not while
    /// it is sorted.
    pub fn whole(&self, now_ns: u64) -> (Snapshot, Slot) {
        let mut state = self.state();
        state.window.advance(now_ns);
        let (seen, copied) = (state.snapshot(), state.window.copied());
        drop(state);
        (seen, copied.into_slot())
    }

    /// The window's calls by time, oldest first: at most `most` equal slots, each with the Unix time at which it begins.
    pub fn timeline(&self, now_ns: u64, most: usize) -> Vec<(u64, Slot)> {
        let mut state = self.state();
        state.window.advance(now_ns);
        let copied = state.window.copied();
        drop(state);
        copied.into_slots(now_ns, most)
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        self.state().incident.level()
    }

    /// The calls in the window, oldest first: a copy. A window over a time has none: it keeps sums.
    pub fn entries(&self) -> Vec<Entry> {
        self.state().window.entries()
    }

    /// What the window holds at most.
    pub fn span(&self) -> Span {
        self.state().window.span()
    }

    /// The last `most` calls of those, oldest first.
    pub fn recent(&self, most: usize) -> Vec<Entry> {
        self.state().window.recent(most)
    }

    /// The last alerts (at most 100), oldest first: a copy.
    pub fn alerts(&self) -> Vec<Alert> {
        self.state().alerts.iter().cloned().collect()
    }

    /// The rules in force: a copy.
    pub fn rules(&self) -> Rules {
        self.state().rules.clone()
    }

    /// Puts other rules in place of all; the next record is judged by them.
    pub fn set_rules(&self, rules: Rules) {
        let mut state = self.state();
        (state.rules, state.judged) = (rules, None);
    }

    /// Moves a limit, as [`Rules::set_limit`] says; the next record is judged by it.
    pub fn set_limit(&self, metric: Metric, critical: f64) {
        let mut state = self.state();
        state.rules.set_limit(metric, critical);
        state.judged = None;
    }

    /// Forgets everything but rules and silences and begins again with such a window.
    pub fn restart(&self, window: impl Into<Span>) {
        let mut state = self.state();
        let silences = state.silences.fresh();
        let fresh = State { silences, ..State::new(window.into(), state.rules.clone()) };
        let dropped = std::mem::replace(&mut *state, fresh);
        self.due.store(state.told_next().0, Ordering::Relaxed);
        drop(state);
        drop(dropped);
    }
}

//! What a monitor looks at: the last calls, or the calls of the last seconds.

use crate::stats::{CountWindow, Entry, Histogram, Slot, Tally, Timeline};
use std::time::Duration;

/// How many parts a window over a time has: what is seen is the span, less at most a sixtieth of it.
const PARTS: usize = 60;

/// What a window holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// So many calls.
    Calls(usize),
    /// The calls of so many nanoseconds.
    Time(u64),
}

impl From<usize> for Span {
    fn from(calls: usize) -> Self {
        Span::Calls(calls)
    }
}

/// The calls looked at, and their sums.
#[derive(Clone, Debug)]
pub(super) enum Window {
    Calls(CountWindow),
    Time(Timeline),
}

impl Window {
    pub fn new(span: Span) -> Self {
        match span {
            Span::Calls(size) => Window::Calls(CountWindow::new(size)),
            Span::Time(ns) => Window::Time(Timeline::new(ns.div_ceil(PARTS as u64), PARTS)),
        }
    }

    pub fn span(&self) -> Span {
        match self {
            Window::Calls(window) => Span::Calls(window.size()),
            Window::Time(window) => Span::Time(window.span_ns()),
        }
    }

    #[inline(always)] // where most of an entry is known, most of this is nothing
    pub fn push(&mut self, made: impl Fn() -> Entry) {
        match self {
            Window::Calls(window) => window.push(made),
            Window::Time(window) => {
                let entry = made();
                window.add(entry.at_ns, &entry.record);
            }
        }
    }

    /// Lets go what is too old at that time.
    pub fn advance(&mut self, now_ns: u64) {
        if let Window::Time(window) = self {
            window.advance(now_ns);
        }
    }

    #[inline]
    pub fn tally(&self) -> &Tally {
        match self {
            Window::Calls(window) => window.tally(),
            Window::Time(window) => window.sum(),
        }
    }

    /// How many calls it can hold; `None`: as many as come in its time.
    #[inline]
    pub fn most(&self) -> Option<usize> {
        match self {
            Window::Calls(window) => Some(window.size()),
            Window::Time(_) => None,
        }
    }

    /// How often time alone changes what it holds; `None`: never.
    #[inline]
    pub fn moves(&self) -> Option<Duration> {
        match self {
            Window::Calls(_) => None,
            Window::Time(window) => Some(Duration::from_nanos(window.width_ns())),
        }
    }

    /// The distribution of the latencies, in nanoseconds.
    pub fn latencies(&self) -> Histogram {
        match self {
            Window::Calls(window) => window.entries().map(|entry| entry.record.latency_ns).collect(),
            Window::Time(window) => window.slots().fold(Histogram::default(), |mut all, (_, slot)| {
                all.merge(&slot.latencies);
                all
            }),
        }
    }

    /// The calls, oldest first; none where only sums are kept.
    pub fn entries(&self) -> Vec<Entry> {
        match self {
            Window::Calls(window) => window.entries().copied().collect(),
            Window::Time(_) => Vec::new(),
        }
    }

    /// The last `most` of those.
    pub fn recent(&self, most: usize) -> Vec<Entry> {
        match self {
            Window::Calls(window) => window.entries().skip((window.tally().total as usize).saturating_sub(most)).copied().collect(),
            Window::Time(_) => Vec::new(),
        }
    }

    pub fn copied(&self) -> Copied {
        match self {
            Window::Calls(_) => Copied::Calls(self.entries()),
            Window::Time(window) => Copied::Time(window.clone()),
        }
    }
}

/// A window's calls, to be summed up where nobody waits for it.
pub(super) enum Copied {
    Calls(Vec<Entry>),
    Time(Timeline),
}

impl Copied {
    pub fn into_slot(self) -> Slot {
        match self {
            Copied::Calls(entries) => entries.iter().map(|entry| &entry.record).collect(),
            Copied::Time(timeline) => timeline.whole(),
        }
    }

    /// At most `most` equal slots up to now, each with the time at which it begins.
    pub fn into_slots(self, now_ns: u64, most: usize) -> Vec<(u64, Slot)> {
        let most = most.max(1);
        let (from, width, parts): (u64, u64, Vec<(u64, Slot)>) = match self {
            Copied::Calls(entries) => {
                let Some(first) = entries.iter().map(|entry| entry.at_ns).min() else { return Vec::new() };
                let last = entries.iter().map(|entry| entry.at_ns).max().unwrap_or(first).max(now_ns);
                let width = ((last - first) / most as u64 + 1).max(1);
                let part = |entry: &Entry| (entry.at_ns, std::iter::once(&entry.record).collect());
                (first, width, entries.iter().map(part).collect())
            }
            Copied::Time(timeline) => {
                let parts: Vec<(u64, Slot)> = timeline.slots().map(|(at, slot)| (at, slot.clone())).collect();
                let Some((first, _)) = parts.first() else { return Vec::new() };
                (*first, timeline.width_ns() * (parts.len() as u64).div_ceil(most as u64), parts)
            }
        };
        let mut slots: Vec<(u64, Slot)> = Vec::new();
        for (at, part) in parts {
            let number = at.saturating_sub(from) / width;
            while slots.len() as u64 <= number {
                slots.push((from + slots.len() as u64 * width, Slot::default()));
            }
            slots[number as usize].1.merge(&part);
        }
        slots
    }
}

//! The one state that all users of a limit share: what is left, and who waits.

use super::levels::{Bucket, Levels, USED};
use crate::engine::{Instant, Signal};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Servers tell of limits by the minute.
const MINUTE: Duration = Duration::from_secs(60);
/// So long a pause at most is taken from a server at once: then one call asks again.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// The share of a limit that may go at once, where nothing is said. With [`USED`] of it coming back in each span, no span sees
/// more than the limit, wherever a server lets its spans begin.
const BURST: f64 = 1.0 - USED;

/// How much, in which span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Requests.
    pub requests: Option<f64>,
    /// Tokens.
    pub tokens: Option<f64>,
    /// In each of these.
    pub per: Duration,
    /// What may go at once: requests or, where only tokens are limited, tokens. `None`: a fiftieth of the limit.
    pub burst: Option<f64>,
    /// Calls that wait; more are turned away at once.
    pub max_queue: usize,
    /// The longest wait; `None`: as long as the call's deadline allows.
    pub max_wait: Option<Duration>,
}

impl Config {
    /// The share of the limits that may go at once.
    fn share(&self) -> f64 {
        match (self.burst, self.requests.or(self.tokens)) {
            (Some(burst), Some(limit)) => (burst / limit).min(1.0),
            _ => BURST,
        }
    }

    fn full(&self, now: Instant) -> Levels {
        let share = self.share();
        // Whole requests: a part of one lets nobody go. What sums of fractions lack is none.
        let bucket = |limit: f64| Bucket::full(limit, self.per, (limit * share + 1e-9).floor().max(1.0));
        Levels { at: now, requests: self.requests.map(bucket), tokens: self.tokens.map(bucket) }
    }
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

/// What is said to a call that wants to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Turn {
    /// It goes.
    Now,
    /// It waits, until then if nothing is given back before; its signal is given when its time has come closer.
    At(Place, Instant),
    /// It would have to wait so long, which is too long.
    Never(Duration),
}

/// What is known of a limit at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Requests that may go at once.
    pub requests: Option<f64>,
    /// Tokens that may be taken at once; less than nothing is owed.
    pub tokens: Option<f64>,
    /// Calls that wait.
    pub queued: usize,
    /// A server has asked for a pause, which lasts so long yet.
    pub paused: Option<Duration>,
}

/// What a server says is left.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said {
    /// The limit itself, in a minute.
    pub limit: Option<f64>,
    /// What is left of it.
    pub remaining: Option<f64>,
}

#[derive(Debug)]
struct Waiter {
    place: Place,
    tokens: f64,
    /// When it looks by itself.
    due: Instant,
    signal: Arc<Signal>,
}

#[derive(Debug)]
struct State {
    levels: Levels,
    /// Those that wait, first come first.
    queue: VecDeque<Waiter>,
    /// What will be left when they all have gone; `None` while nobody has worked it out.
    tail: Option<Levels>,
    /// Those that had their turn and have not gone yet, with what they took.
    called: Vec<(Place, f64)>,
    next: u64,
}

/// A limit. It has a clock of its own, which follows the queue: a call takes what it takes at its turn, however late it hears of
/// it, so nothing is lost where drivers are slow.
#[derive(Debug)]
pub struct RateLimit {
    config: Config,
    state: Mutex<State>,
}

impl State {
    /// Lets those go whose turn has come, and tells the first of the others if its own has come closer.
    fn pump(&mut self, now: Instant, told: &mut Vec<Arc<Signal>>) {
        while let Some(first) = self.queue.front() {
            let turn = self.levels.turn(first.tokens);
            if turn > now {
                break;
            }
            self.levels.take(first.tokens, turn);
            if let Some(Waiter { place, tokens, signal, .. }) = self.queue.pop_front() {
                self.called.push((place, tokens));
                told.push(signal);
            }
        }
        match self.queue.front_mut() {
            Some(first) => {
                let turn = self.levels.turn(first.tokens);
                if turn < first.due {
                    first.due = turn;
                    told.push(first.signal.clone());
                }
            }
            None => {
                self.levels.spill();
                self.tail = None;
            }
        }
    }

    /// The levels or the line change other than by calls that go in order; those whose turn had come have gone.
    fn change(&mut self, now: Instant, told: &mut Vec<Arc<Signal>>, change: impl FnOnce(&mut Levels)) {
        self.levels.fill(now);
        change(&mut self.levels);
        self.tail = None;
        self.pump(now, told);
    }

    /// What is left when all of the queue have gone.
    fn tail(&mut self) -> Levels {
        *self.tail.get_or_insert_with(|| {
            let mut levels = self.levels;
            for waiter in &self.queue {
                levels.take(waiter.tokens, levels.turn(waiter.tokens));
            }
            levels
        })
    }

    fn take_called(&mut self, place: Place) -> Option<f64> {
        let at = self.called.iter().position(|(called, _)| *called == place)?;
        Some(self.called.swap_remove(at).1)
    }
}

impl RateLimit {
    /// One of which nothing was used.
    pub fn new(config: Config) -> RateLimit {
        let levels = config.full(Instant(0));
        RateLimit { config, state: Mutex::new(State { levels, queue: VecDeque::new(), tail: None, called: Vec::new(), next: 0 }) }
    }

    /// How much, in which span.
    pub fn config(&self) -> Config {
        self.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `step` under the lock and gives the signals that come of it once it is released.
    fn run<T>(&self, step: impl FnOnce(&mut State, &mut Vec<Arc<Signal>>) -> T) -> T {
        let mut told = Vec::new();
        let given = step(&mut self.state(), &mut told);
        told.iter().for_each(|signal| signal.give());
        given
    }

    /// No call weighs more than the whole limit: one that may turn out so large waits for all of it, and no longer.
    fn needed(&self, tokens: u64) -> f64 {
        self.config.tokens.map_or(0.0, |limit| (tokens as f64).min(limit))
    }

    /// Whether a call goes right now, without waiting.
    pub fn try_go(&self, tokens: u64, now: Instant) -> bool {
        let needed = self.needed(tokens);
        let mut state = self.state();
        // Those that wait go first.
        if !state.queue.is_empty() {
            return false;
        }
        state.levels.fill(now);
        let goes = state.levels.turn(needed) <= now;
        if goes {
            state.levels.take(needed, now);
        }
        goes
    }

    /// The turn of a call that has to have gone by `until`, and can be told by `signal`.
    pub fn ask(&self, tokens: u64, now: Instant, until: Instant, signal: Arc<Signal>) -> Turn {
        let tokens = self.needed(tokens);
        self.run(|state, told| {
            state.pump(now, told);
            if state.queue.is_empty() {
                state.levels.fill(now);
            }
            let mut tail = state.tail();
            let turn = tail.turn(tokens);
            if state.queue.is_empty() && turn <= now {
                state.levels.take(tokens, now);
                state.tail = None;
                return Turn::Now;
            }
            if turn > until || state.queue.len() >= self.config.max_queue {
                return Turn::Never(turn.since(now));
            }
            tail.take(tokens, turn);
            state.tail = Some(tail);
            let place = Place(state.next);
            state.next += 1;
            state.queue.push_back(Waiter { place, tokens, due: turn, signal });
            Turn::At(place, turn)
        })
    }

    /// The turn of one that waits and has to have gone by `until`.
    pub fn look(&self, place: Place, now: Instant, until: Instant) -> Turn {
        self.run(|state, told| {
            state.pump(now, told);
            if state.take_called(place).is_some() {
                return Turn::Now;
            }
            let mut levels = state.levels;
            let mut turn = now;
            for waiter in &mut state.queue {
                turn = levels.turn(waiter.tokens);
                if waiter.place == place {
                    waiter.due = turn;
                    break;
                }
                levels.take(waiter.tokens, turn);
            }
            if turn > until { Turn::Never(turn.since(now)) } else { Turn::At(place, turn) }
        })
    }

    /// One that waited goes away. If it had its turn meanwhile, what it took is given back.
    pub fn withdraw(&self, place: Place, now: Instant) {
        self.run(|state, told| {
            state.pump(now, told);
            // Places are in order.
            if let Ok(at) = state.queue.binary_search_by_key(&place.0, |waiter| waiter.place.0) {
                state.queue.remove(at);
                state.change(now, told, |_| ());
            } else if let Some(tokens) = state.take_called(place) {
                state.change(now, told, |levels| levels.give(1.0, tokens));
            }
        });
    }

    /// A call that had its turn was not made after all.
    pub fn give_back(&self, tokens: u64, now: Instant) {
        let tokens = self.needed(tokens);
        self.run(|state, told| {
            state.pump(now, told);
            state.change(now, told, |levels| levels.give(1.0, tokens));
        });
    }

    /// A call that took so many tokens has used so many.
    pub fn settle(&self, taken: u64, used: u64, now: Instant) {
        let (taken, used) = (self.needed(taken), used as f64);
        if self.config.tokens.is_some() && (taken - used).abs() > 0.0 {
            self.run(|state, told| {
                state.pump(now, told);
                state.change(now, told, |levels| levels.give(0.0, taken - used));
            });
        }
    }

    /// The server has had enough, and asks everybody to wait so long. What was left until now is void: one call goes when the time
    /// has come, the others at the limit's pace after it.
    pub fn pause(&self, span: Duration, now: Instant) {
        let span = span.min(LONGEST_PAUSE.max(self.config.per));
        self.run(|state, told| {
            state.pump(now, told);
            state.change(now, told, |levels| {
                levels.at = levels.at.max(now.after(span));
                levels.requests.iter_mut().for_each(|bucket| bucket.level = 1.0);
                levels.tokens.iter_mut().for_each(|bucket| bucket.level = bucket.level.min(0.0));
            });
        });
    }

    /// What a server says is left, of requests and of tokens. It may be less than we know of, where others use the same limit; that
    /// it is more is no news: the limits given hold.
    pub fn learn(&self, requests: Said, tokens: Said, now: Instant) {
        let tightens = |bucket: &Option<Bucket>, own: Option<f64>, said: Said| {
            bucket.is_some_and(|bucket| said.remaining.is_some_and(|left| left < bucket.level) || self.rate(own, said) != Some(bucket.rate))
        };
        let adapted = |bucket: &mut Option<Bucket>, own: Option<f64>, said: Said| {
            let Some(bucket) = bucket else { return };
            bucket.level = said.remaining.map_or(bucket.level, |left| bucket.level.min(left));
            bucket.rate = self.rate(own, said).unwrap_or(bucket.rate);
        };
        self.run(|state, told| {
            state.pump(now, told);
            let mut levels = state.levels;
            levels.fill(now);
            if tightens(&levels.requests, self.config.requests, requests) || tightens(&levels.tokens, self.config.tokens, tokens) {
                state.change(now, told, |levels| {
                    adapted(&mut levels.requests, self.config.requests, requests);
                    adapted(&mut levels.tokens, self.config.tokens, tokens);
                });
            }
        });
    }

    /// The rate of a limit of which a server says so: never above our own.
    fn rate(&self, own: Option<f64>, said: Said) -> Option<f64> {
        let own = USED * own? / self.config.per.as_nanos() as f64;
        let limit = said.limit.filter(|limit| *limit >= 1.0);
        Some(limit.map_or(own, |limit| own.min(USED * limit / MINUTE.as_nanos() as f64)))
    }

    /// What is known at `now`.
    pub fn outlook(&self, now: Instant) -> Outlook {
        let state = self.state();
        let mut levels = state.levels;
        let paused = Some(levels.at.since(now)).filter(|span| !span.is_zero());
        levels.fill(now);
        let level = |bucket: &Option<Bucket>| bucket.map(|bucket| bucket.level);
        Outlook { requests: level(&levels.requests), tokens: level(&levels.tokens), queued: state.queue.len(), paused }
    }

    /// Forgets who waits. For a forked process, where they are not.
    pub fn clear(&self) {
        let mut state = self.state();
        state.queue.clear();
        state.called.clear();
        state.tail = None;
    }
}

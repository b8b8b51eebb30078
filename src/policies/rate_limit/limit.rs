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
    /// Whether what a call has used replaces what it took; else that holds, as where the server goes by it.
    pub settles: bool,
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
        Levels { at: now, requests: self.requests.map(bucket), tokens: self.tokens.map(bucket), told: [None; 2] }
    }
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

/// What had been taken of requests and of tokens, all told, when a call went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mark([f64; 2]);

/// What is said to a call that wants to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Turn {
    /// It goes.
    Now(Mark),
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
    called: Vec<(Place, f64, Mark)>,
    taken: Mark,
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
            let mark = self.take(first.tokens, turn);
            if let Some(Waiter { place, tokens, signal, .. }) = self.queue.pop_front() {
                self.called.push((place, tokens, mark));
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

    fn take(&mut self, tokens: f64, turn: Instant) -> Mark {
        self.levels.take(tokens, turn);
        let [requests, all] = self.taken.0;
        self.taken = Mark([requests + 1.0, all + tokens]);
        self.taken
    }

    fn take_called(&mut self, place: Place) -> Option<(f64, Mark)> {
        let at = self.called.iter().position(|(called, ..)| *called == place)?;
        let (_, tokens, mark) = self.called.swap_remove(at);
        Some((tokens, mark))
    }
}

impl RateLimit {
    /// One of which nothing was used.
    pub fn new(config: Config) -> RateLimit {
        let levels = config.full(Instant(0));
        let state = State { levels, queue: VecDeque::new(), tail: None, called: Vec::new(), taken: Mark::default(), next: 0 };
        RateLimit { config, state: Mutex::new(state) }
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

    /// Lets a call go that need not wait.
    pub fn try_go(&self, tokens: u64, now: Instant) -> Option<Mark> {
        let needed = self.needed(tokens);
        let mut state = self.state();
        // Those that wait go first.
        if !state.queue.is_empty() {
            return None;
        }
        state.levels.fill(now);
        (state.levels.turn(needed) <= now).then(|| state.take(needed, now))
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
                state.tail = None;
                return Turn::Now(state.take(tokens, now));
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
            if let Some((_, mark)) = state.take_called(place) {
                return Turn::Now(mark);
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
            } else if let Some((tokens, _)) = state.take_called(place) {
                state.change(now, told, |levels| levels.give_back(1.0, tokens));
            }
        });
    }

    /// A call that had its turn was not made after all.
    pub fn give_back(&self, tokens: u64, now: Instant) {
        let tokens = self.needed(tokens);
        self.run(|state, told| {
            state.pump(now, told);
            state.change(now, told, |levels| levels.give_back(1.0, tokens));
        });
    }

    /// A call that took so many tokens has used so many.
    pub fn settle(&self, taken: u64, used: u64, now: Instant) {
        let (taken, used) = (self.needed(taken), used as f64);
        if self.config.settles && self.config.tokens.is_some() && (taken - used).abs() > 0.0 {
            self.run(|state, told| {
                state.pump(now, told);
                state.change(now, told, |levels| levels.tokens.iter_mut().for_each(|bucket| bucket.level += taken - used));
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
                // It has told something newer.
                levels.told = [None; 2];
            });
        });
    }

    /// What a failure says of the limits of requests and of tokens, and of what is left. It may be less than we know of, where
    /// others use the same limits; that it is more is no news: the limits given hold.
    pub fn learn(&self, requests: Said, tokens: Said, now: Instant) {
        let left = [requests.remaining, tokens.remaining];
        self.hear([requests.limit, tokens.limit], now, |place, known| left[place].map(|left| known.map_or(left, |known| known.min(left))));
    }

    /// What the answer to a call that went at `mark` says. It tells of what went before that call, and perhaps of what went after
    /// it: those are counted as not told of.
    pub fn left(&self, mark: Mark, left: [Option<u32>; 2], now: Instant) {
        let taken = self.state().taken;
        let since = |place: usize| taken.0[place] - mark.0[place];
        self.hear([None; 2], now, |place, _| left[place].map(|left| f64::from(left) - since(place)));
    }

    /// Takes down limits that a server has told, and what `level` makes of what was known of what is left.
    fn hear(&self, limits: [Option<f64>; 2], now: Instant, level: impl Fn(usize, Option<f64>) -> Option<f64>) {
        let own = [self.config.requests, self.config.tokens];
        self.run(|state, signals| {
            state.pump(now, signals);
            state.change(now, signals, |levels| {
                let Levels { requests, tokens, told, .. } = levels;
                for (place, bucket) in [requests, tokens].into_iter().enumerate() {
                    let (Some(bucket), Some(own)) = (bucket, own[place]) else { continue };
                    if let Some(limit) = limits[place].filter(|limit| *limit >= 1.0) {
                        bucket.rate = self.rate(own).min(USED * limit / MINUTE.as_nanos() as f64);
                    }
                    told[place].iter_mut().for_each(|told| told.rate = bucket.rate);
                    if let Some(level) = level(place, told[place].map(|told| told.level)) {
                        told[place] = Some(Bucket { depth: own, rate: bucket.rate, level: level.min(own) });
                    }
                }
            });
        });
    }

    /// What comes in each nanosecond of a limit of ours.
    fn rate(&self, limit: f64) -> f64 {
        USED * limit / self.config.per.as_nanos() as f64
    }

    /// What is known at `now`.
    pub fn outlook(&self, now: Instant) -> Outlook {
        let state = self.state();
        let mut levels = state.levels;
        let paused = Some(levels.at.since(now)).filter(|span| !span.is_zero());
        levels.fill(now);
        let level = |bucket: &Option<Bucket>, told: &Option<Bucket>| {
            bucket.map(|bucket| bucket.level.min(told.map_or(f64::INFINITY, |told| told.level)))
        };
        let [requests, tokens] = [level(&levels.requests, &levels.told[0]), level(&levels.tokens, &levels.told[1])];
        Outlook { requests, tokens, queued: state.queue.len(), paused }
    }

    /// Whether a new limit would be the same to whoever comes: nobody waits, and all that may be taken is there.
    pub fn is_unused(&self, now: Instant) -> bool {
        let state = self.state();
        let mut levels = state.levels;
        levels.fill(now);
        state.queue.is_empty() && state.called.is_empty() && levels.at <= now && levels.is_full()
    }

    /// Forgets who waits. For a forked process, where they are not.
    pub fn clear(&self) {
        let mut state = self.state();
        state.queue.clear();
        state.called.clear();
        state.tail = None;
    }
}

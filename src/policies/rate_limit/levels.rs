//! What is left of two rates at a time: buckets that fill evenly, and the arithmetic of who may go when.

use crate::engine::Instant;
use std::time::Duration;

/// What is used of a limit in the long run. The rest is for what travels unevenly: two requests that leave a minute apart may
/// arrive in one minute of the server's.
pub const USED: f64 = 0.98;
/// What sums of fractions may lack.
const NEARLY: f64 = 1e-6;

/// One rate.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// What it holds when nothing was taken for a while.
    pub depth: f64,
    /// What comes in each nanosecond.
    pub rate: f64,
    /// What is in it; less than nothing is owed.
    pub level: f64,
}

impl Bucket {
    /// A full one of `limit` in `per`, of which `depth` may go at once.
    pub fn full(limit: f64, per: Duration, depth: f64) -> Bucket {
        Bucket { depth, rate: USED * limit / per.as_nanos() as f64, level: depth }
    }

    fn fill(&mut self, nanos: u64) {
        // What was given back may have filled it beyond its depth: that is not thrown away.
        let most = self.depth.max(self.level);
        self.level = (self.level + self.rate * nanos as f64).min(most);
    }

    /// Nanoseconds until `need` may be taken. What is more than it holds is taken from a full one, and the rest owed.
    fn wait(&self, need: f64) -> u64 {
        let lacking = need.min(self.depth) - self.level;
        if lacking <= NEARLY * self.depth.max(1.0) { 0 } else { (lacking / self.rate).ceil() as u64 }
    }
}

/// Both rates at one time.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    /// When they were so. In the future: nobody goes before.
    pub at: Instant,
    /// Requests.
    pub requests: Option<Bucket>,
    /// Tokens.
    pub tokens: Option<Bucket>,
    /// What the server has of both, as far as it has told: it may count in other ways than we do, and for others too. A call
    /// goes only if this holds all that it may need.
    pub told: [Option<Bucket>; 2],
}

impl Levels {
    /// What they are at `now`, if nobody takes anything; never an earlier time than theirs.
    pub fn fill(&mut self, now: Instant) {
        let passed = now.0.saturating_sub(self.at.0);
        self.at = self.at.max(now);
        self.all().for_each(|bucket| bucket.fill(passed));
    }

    /// The earliest time at which a call of so many tokens may go.
    pub fn turn(&self, tokens: f64) -> Instant {
        let wait = |bucket: &Option<Bucket>, need| bucket.as_ref().map_or(0, |bucket| bucket.wait(need));
        let told = wait(&self.told[0], 1.0).max(wait(&self.told[1], tokens));
        let wait = wait(&self.requests, 1.0).max(wait(&self.tokens, tokens)).max(told);
        Instant(self.at.0.saturating_add(wait))
    }

    /// A call of so many tokens goes at `turn`.
    pub fn take(&mut self, tokens: f64, turn: Instant) {
        self.fill(turn);
        self.give_back(-1.0, -tokens);
    }

    /// So much was not taken after all.
    pub fn give_back(&mut self, requests: f64, tokens: f64) {
        let [told_requests, told_tokens] = &mut self.told;
        self.requests.iter_mut().chain(told_requests).for_each(|bucket| bucket.level += requests);
        self.tokens.iter_mut().chain(told_tokens).for_each(|bucket| bucket.level += tokens);
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.requests.iter_mut().chain(&mut self.tokens).chain(self.told.iter_mut().flatten())
    }

    /// Whether nothing is lacking.
    pub fn is_full(mut self) -> bool {
        self.all().all(|bucket| bucket.level >= bucket.depth * (1.0 - NEARLY))
    }

    /// Throws away what is beyond the depth: there is nobody to take it.
    pub fn spill(&mut self) {
        self.all().for_each(|bucket| bucket.level = bucket.level.min(bucket.depth));
    }
}

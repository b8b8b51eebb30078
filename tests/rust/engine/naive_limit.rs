//! What a rate limit is held against.

use std::collections::VecDeque;

/// Buckets that are filled drop by drop, and a line of people.
pub struct Naive {
    depths: (i64, i64),
    pub levels: (i64, i64),
    pub line: VecDeque<(usize, i64)>,
    pub went: Vec<usize>,
}

impl Naive {
    pub fn full(burst: i64) -> Naive {
        let levels = (burst, burst * 10);
        Naive { depths: levels, levels, line: VecDeque::new(), went: Vec::new() }
    }

    pub fn lets_go(&mut self) {
        while let Some((who, tokens)) = self.line.front().copied() {
            if self.levels.0 < 1 || self.levels.1 < tokens.min(self.depths.1) {
                return;
            }
            self.levels = (self.levels.0 - 1, self.levels.1 - tokens);
            self.went.push(who);
            self.line.pop_front();
        }
        self.levels = (self.levels.0.min(self.depths.0), self.levels.1.min(self.depths.1));
    }

    pub fn second(&mut self) {
        self.levels.0 = (self.levels.0 + 1).min(self.depths.0.max(self.levels.0));
        self.levels.1 = (self.levels.1 + 10).min(self.depths.1.max(self.levels.1));
        self.lets_go();
    }
}

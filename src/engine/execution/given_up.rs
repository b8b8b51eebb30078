//! What is given up: by a caller who went away, or for something that came first.

use super::{Execution, Input, Kind, Life, NOBODY, NodeId, Pending};
use crate::engine::{Instant, Step};

impl Execution {
    /// The caller went away: every layer gives back what it holds and nothing counts.
    pub fn abandon(&mut self, now: Instant) {
        self.judging = None;
        self.pending.clear();
        self.out.clear();
        for node in (0..self.nodes.len()).rev() {
            self.end_quietly(node, now);
        }
    }

    /// Ends everything inside a node; running calls are cancelled.
    pub(super) fn cancel_inside(&mut self, node: NodeId, beaten: bool, now: Instant) {
        for inside in (0..self.nodes.len()).rev() {
            if inside != node && self.is_inside(inside, node) {
                self.cancel(inside, beaten, now);
            }
        }
    }

    /// Ends what runs beside a node, and all that is inside of that.
    pub(super) fn cancel_beside(&mut self, node: NodeId, now: Instant) {
        let parent = self.nodes[node].parent;
        if parent == NOBODY {
            return;
        }
        for other in (0..self.nodes.len()).rev() {
            if other != node && self.nodes[other].parent == parent && self.nodes[other].life != Life::Ended {
                self.cancel_inside(other, true, now);
                self.cancel(other, true, now);
            }
        }
    }

    fn cancel(&mut self, node: NodeId, beaten: bool, now: Instant) {
        if let (Kind::Call(call), true) = (&self.nodes[node].kind, self.nodes[node].life != Life::Ended) {
            let call = *call;
            // A call that was asked for but not yet handed out is simply not begun.
            let before = self.out.len();
            self.out.retain(|s| !matches!(s, Step::Start { call: c, .. } if *c == call));
            if self.out.len() == before {
                self.out.push(Step::Cancel { call, beaten });
            }
        }
        self.end_quietly(node, now);
    }

    fn is_inside(&self, mut node: NodeId, outer: NodeId) -> bool {
        if self.nodes[node].life == Life::Ended {
            return false;
        }
        while node != NOBODY {
            node = self.nodes[node].parent;
            if node == outer {
                return true;
            }
        }
        false
    }

    fn end_quietly(&mut self, node: NodeId, now: Instant) {
        if self.nodes[node].life != Life::Ended {
            self.nodes[node].place.wake = None;
            // What has not begun yet never does; whoever has its place next would hear of it otherwise.
            self.pending.retain(|p| match p {
                Pending::Begin(n) | Pending::Outward(n, _) => *n != node,
            });
            self.on(node, Input::Abandoned, None, now);
            self.ends(node);
        }
    }
}

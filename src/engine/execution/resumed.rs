//! A call that began on the fast lane, and one machine for call after call.

use super::{Execution, Flow, Input, Life, NOBODY};
use crate::engine::lane::Pass;
use crate::engine::plan::{Plan, Stage};
use crate::engine::random::Random;
use crate::engine::time::Instant;
use std::sync::Arc;

impl Execution {
    /// A call that began on the fast lane and has met trouble there. Where every policy let it in, its call of the
    /// primary is [`CallId::FIRST`] and has been started already.
    pub fn resumed(plan: Arc<Plan>, seed: u64, pass: &Pass, deadline: Instant) -> Execution {
        let mut execution = Execution::empty(plan, seed);
        execution.resume(pass, deadline);
        execution
    }

    /// As [`Execution::resumed`], by one that is over and was of the same plan: layers that can be renewed are.
    pub fn resumes(&mut self, seed: u64, pass: &Pass, deadline: Instant) {
        self.common.random = Random::seeded(seed);
        self.resume(pass, deadline);
    }

    /// Makes one that is over ready for another call, and lets go what its own had brought; `false` if it is not over.
    pub fn clear(&mut self) -> bool {
        if self.nodes.iter().any(|n| n.life != Life::Ended) {
            return false;
        }
        self.pending.clear();
        self.out.clear();
        (self.judging, self.started, self.latest) = (None, 0, NOBODY);
        self.common.clear();
        true
    }

    fn resume(&mut self, pass: &Pass, mut deadline: Instant) {
        self.common.inherited = deadline;
        let mut permits = pass.permits().iter();
        let (mut parent, mut stage) = (NOBODY, self.plan.root);
        loop {
            let (permit, inside) = match &self.plan.stages[stage.0 as usize] {
                Stage::Layer { inner, .. } if self.plan.watches(stage) => match permits.next() {
                    Some(permit) => (Some(*permit), inner[0]),
                    None => break,
                },
                Stage::Layer { inner, .. } => (None, inner[0]),
                Stage::Leaf(..) => break,
            };
            let (node, _) = self.enters(parent, stage, pass.begun, deadline, permit);
            let flow = self.on(node, Input::Begin, None, pass.begun);
            debug_assert_eq!(flow, Flow::Inward(0), "an admitted call goes inward");
            (parent, stage, deadline) = (node, inside, self.nodes[node].place.deadline);
        }
        let begins = self.spawn(parent, stage, pass.begun, deadline);
        self.later(begins);
        // Let in by all: the driver has called the primary already.
        self.out.clear();
    }
}

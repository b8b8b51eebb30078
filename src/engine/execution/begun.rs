//! How a machine begins: anew, with what a call has done on the fast lane, or once more after a call that is over.

use super::{Common, Event, Execution, Flow, Input, Kind, Life, NOBODY, Node, NodeId, Stage};
use crate::engine::queue::Queue;
use crate::engine::{Instant, Pass, Plan, Random};
use std::sync::Arc;
use std::time::Duration;

impl Execution {
    /// A call that has not begun; `seed` decides its jitter.
    pub fn new(plan: Arc<Plan>, seed: u64, now: Instant) -> Execution {
        Execution::within(plan, seed, now, Instant::NEVER)
    }

    /// A call that has to be over by `deadline`, as its caller has to.
    pub fn within(plan: Arc<Plan>, seed: u64, now: Instant, deadline: Instant) -> Execution {
        let mut execution = Execution::idle(plan, seed);
        execution.begin(now, deadline);
        execution
    }

    /// A call that [`Execution::begin`] or [`Execution::resume`] tells how it began: apart, so that what is large is made where it stays.
    pub fn idle(plan: Arc<Plan>, seed: u64) -> Execution {
        Idle::by(plan).wakes_up(seed)
    }

    /// It begins now, and has to be over by `deadline`, as its caller has to.
    pub fn begin(&mut self, now: Instant, deadline: Instant) {
        self.common.inherited = deadline;
        let begins = self.spawn(NOBODY, 0, self.plan.root, now, deadline);
        self.later(begins);
    }

    /// It began on the fast lane and has met trouble there. Where every policy let it in, its call of the primary is
    /// [`CallId::FIRST`] and has been started already.
    pub fn resume(&mut self, pass: &Pass, deadline: Instant) {
        self.common.inherited = deadline;
        let mut permits = pass.permits().iter();
        let (mut parent, mut stage, mut deadline) = (NOBODY, self.plan.root, deadline);
        loop {
            let let_in = match &self.plan.stages[stage.0 as usize] {
                Stage::Layer { .. } if self.plan.watches(stage) => match permits.next() {
                    Some(permit) => Some(*permit),
                    None => break,
                },
                Stage::Layer { .. } => None,
                Stage::Leaf(..) => break,
            };
            let (node, was_here) = self.takes_place(parent, 0, stage, pass.begun, deadline);
            let Stage::Layer { policy, inner, .. } = &self.plan.stages[stage.0 as usize] else { break };
            let inner = *inner;
            let kind = &mut self.nodes[node].kind;
            kind.enters(policy.as_ref(), was_here);
            if let (Kind::Layer(layer), Some(permit)) = (kind, let_in) {
                layer.let_in(permit, pass.begun);
            }
            let flow = self.on(node, Input::Begin, None, pass.begun);
            debug_assert_eq!(flow, Flow::Inward(0), "an admitted call goes inward");
            let place = &mut self.nodes[node].place;
            (place.children, place.live) = (1, 1);
            (parent, stage, deadline) = (node, inner, place.deadline);
        }
        let begins = self.spawn(parent, 0, stage, pass.begun, deadline);
        self.later(begins);
        // Let in by all: the driver has called the primary already.
        self.out.clear();
    }

    /// What the next call uses again of one that is over; nothing, if something in it has not ended.
    #[inline(always)] // none of the rest is moved then
    pub fn rests(self) -> Option<Idle> {
        let Execution { plan, mut nodes, free, common, .. } = self;
        let mut events = common.events;
        events.clear();
        for node in &mut nodes {
            if node.life != Life::Ended {
                return None;
            }
            // A layer that cannot be made new is not to hold what it holds until then.
            if let Kind::Layer(layer) = &mut node.kind
                && !layer.renew()
            {
                node.kind = Kind::default();
            }
        }
        Some(Idle { plan, nodes, free, events })
    }
}

/// A machine between two calls by the same plan, with its memory and its layers: to ask for those anew, and to count who shares a policy,
/// would be most of what a call costs that is tried again once.
pub struct Idle {
    plan: Arc<Plan>,
    nodes: Vec<Node>,
    free: NodeId,
    events: Vec<Event>,
}

impl Idle {
    /// The first one.
    pub fn by(plan: Arc<Plan>) -> Idle {
        // Room for all that most plans have under way at once.
        let nodes = Vec::with_capacity(plan.stages.len().min(8));
        Idle { plan, nodes, free: NOBODY, events: Vec::with_capacity(4) }
    }

    /// Is there for another call, whose jitter `seed` decides: as [`Execution::idle`].
    #[inline(always)] // made where it stays
    pub fn wakes_up(self, seed: u64) -> Execution {
        let Idle { plan, nodes, free, events } = self;
        Execution {
            plan,
            nodes,
            free,
            latest: NOBODY,
            pending: Queue::new(),
            out: Queue::new(),
            judging: None,
            started: 0,
            common: Common {
                signal: None,
                queued: Duration::ZERO,
                random: Random::seeded(seed),
                events,
                attached: Vec::new(),
                calls: 0,
                announces: false,
                hurries: false,
                is_in_turn: false,
                cap: u32::MAX,
                inherited: Instant::NEVER,
                weights: Vec::new(),
                baggage: Vec::new(),
            },
        }
    }
}

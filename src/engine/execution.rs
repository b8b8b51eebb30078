//! One guarded call: a small tree of passages, driven from outside.

use super::lane::Pass;
use super::layer::{Child, Common, Cx, Event, Flow, Hears, Input, Layer};
use super::outcome::{Outcome, Refusal, Ticket};
use super::plan::{Plan, Stage, StageId};
use super::queue::Queue;
use super::random::Random;
use super::signal::Signal;
use super::spare::Spare;
use super::step::{Ask, CallId, Step, Verdict};
use super::time::Instant;
use std::any::Any;
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Drain;

type NodeId = usize;

/// No node.
const NOBODY: NodeId = usize::MAX;

enum Kind {
    Layer(Box<dyn Layer>),
    Call(CallId),
}

impl Default for Kind {
    fn default() -> Kind {
        Kind::Call(CallId::FIRST)
    }
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Life {
    #[default]
    Running,
    /// An open stream was handed outward.
    Delivered,
    Ended,
}

#[derive(Default)]
struct Node {
    /// [`NOBODY`] of the outermost one.
    parent: NodeId,
    stage: StageId,
    kind: Kind,
    life: Life,
    begun: Instant,
    deadline: Instant,
    wake: Option<Instant>,
    hears: Hears,
    /// Which of its parent's children it is, and how many it has had itself.
    number: u32,
    children: u32,
}

/// What waits to be handed to a layer.
enum Pending {
    Begin(NodeId),
    /// The child, and how it came out.
    Outward(NodeId, Outcome),
}

thread_local! {
    static SPARE: (Spare<Node>, Spare<Event>) = const { (Spare::none(), Spare::none()) };
}

/// One guarded call.
pub struct Execution {
    plan: Arc<Plan>,
    nodes: Vec<Node>,
    pending: Queue<Pending>,
    out: Queue<Step>,
    /// The child whose outcome is being judged, and the question.
    judging: Option<(NodeId, Ask)>,
    /// How many calls were started, ready answers included.
    started: u64,
    common: Common,
    /// What the call weighs at some stages.
    weights: Vec<(StageId, u64)>,
    /// What its driver has brought along for some stages.
    baggage: Vec<(StageId, Arc<dyn Any + Send + Sync>)>,
}

impl Execution {
    /// A call that has not begun; `seed` decides its jitter.
    pub fn new(plan: Arc<Plan>, seed: u64, now: Instant) -> Execution {
        Execution::within(plan, seed, now, Instant::NEVER)
    }

    /// A call that has to be over by `deadline`, as its caller has to.
    pub fn within(plan: Arc<Plan>, seed: u64, now: Instant, deadline: Instant) -> Execution {
        let mut execution = Execution::empty(plan, seed);
        execution.common.inherited = deadline;
        execution.spawn(NOBODY, execution.plan.root, now, deadline);
        execution
    }

    /// A call that began on the fast lane and has met trouble there. Where every policy let it in, its call of the
    /// primary is [`CallId::FIRST`] and has been started already.
    pub fn resumed(plan: Arc<Plan>, seed: u64, pass: &Pass, deadline: Instant) -> Execution {
        let mut execution = Execution::empty(plan, seed);
        execution.common.inherited = deadline;
        let mut permits = pass.permits().iter();
        let (mut parent, mut stage, mut deadline) = (NOBODY, execution.plan.root, deadline);
        loop {
            let (layer, inner) = match &execution.plan.stages[stage.0 as usize] {
                Stage::Layer { policy, inner } if execution.plan.watches(stage) => match permits.next() {
                    Some(permit) => (policy.enter_with(*permit, pass.begun), inner[0]),
                    None => break,
                },
                Stage::Layer { policy, inner } => (policy.enter(), inner[0]),
                Stage::Leaf(..) => break,
            };
            let (kind, begun) = (Kind::Layer(layer), pass.begun);
            execution.nodes.push(Node { parent, stage, kind, life: Life::Running, begun, deadline, children: 1, ..Node::default() });
            let node = execution.nodes.len() - 1;
            let flow = execution.on(node, Input::Begin, None, pass.begun);
            debug_assert_eq!(flow, Flow::Inward(0), "an admitted call goes inward");
            (parent, stage, deadline) = (node, inner, execution.nodes[node].deadline);
        }
        execution.spawn(parent, stage, pass.begun, deadline);
        // Let in by all: the driver has called the primary already.
        execution.out.clear();
        execution
    }

    /// Tells of each attempt as well.
    pub fn announce(&mut self) {
        self.common.announces = true;
    }

    /// Retries without waiting in between.
    pub fn hurry(&mut self) {
        self.common.hurries = true;
    }

    /// Makes at most so many attempts in each retry.
    pub fn cap(&mut self, attempts: u32) {
        self.common.cap = attempts;
    }

    /// Weighs so much at that stage: what a limit there counts beside the call itself.
    pub fn weighs(&mut self, stage: StageId, amount: u64) {
        self.weights.push((stage, amount));
    }

    /// Brings something along for that stage, which its policy understands.
    pub fn brings(&mut self, stage: StageId, what: Arc<dyn Any + Send + Sync>) {
        self.baggage.push((stage, what));
    }

    fn empty(plan: Arc<Plan>, seed: u64) -> Execution {
        let (nodes, events) = SPARE.try_with(|spare| (spare.0.take(8), spare.1.take(4))).unwrap_or_default();
        Execution {
            plan,
            nodes,
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
                cap: u32::MAX,
                inherited: Instant::NEVER,
            },
            weights: Vec::new(),
            baggage: Vec::new(),
        }
    }

    /// What to do next. Repeats an unanswered [`Step::Judge`].
    pub fn step(&mut self, now: Instant) -> Step {
        loop {
            if let Some(step) = self.out.pop() {
                return step;
            }
            if let Some((_, ask)) = self.judging {
                return Step::Judge(ask);
            }
            if let Some(next) = self.pending.pop() {
                match next {
                    Pending::Begin(node) => self.input(node, Input::Begin, now),
                    Pending::Outward(child, outcome) => self.outward(child, outcome, None, now),
                }
                continue;
            }
            match self.due(now) {
                Some(node) => {
                    self.nodes[node].wake = None;
                    self.input(node, Input::Wake, now);
                }
                None if self.common.signal.as_ref().is_some_and(|signal| signal.take()) => self.signalled(now),
                None => return Step::Wait { until: self.next_wake() },
            }
        }
    }

    /// The earliest time at which a layer wants to be woken.
    pub fn next_wake(&self) -> Instant {
        self.nodes.iter().filter(|n| n.life != Life::Ended).filter_map(|n| n.wake).min().unwrap_or(Instant::NEVER)
    }

    /// What else than time and the end of a call may end a wait, if anything in here listens.
    pub fn signal(&self) -> Option<&Arc<Signal>> {
        self.common.signal.as_ref().filter(|_| self.nodes.iter().any(|n| n.hears.signal && n.life == Life::Running))
    }

    /// Whether it waits for time to pass, and not only for something that a limit would cut short.
    pub fn passes_time(&self) -> bool {
        self.nodes.iter().any(|n| n.life != Life::Ended && n.wake.is_some() && !n.hears.limit)
    }

    fn signalled(&mut self, now: Instant) {
        for node in 0..self.nodes.len() {
            // Asked at each: what one does may end others.
            if self.nodes[node].hears.signal && self.nodes[node].life == Life::Running {
                self.input(node, Input::Wake, now);
            }
        }
    }

    /// Wakes the layers whose time has come, without asking for the next step.
    pub fn wake(&mut self, now: Instant) {
        while let Some(node) = self.due(now) {
            self.nodes[node].wake = None;
            self.input(node, Input::Wake, now);
        }
    }

    /// Whether a started call is over: ended or cancelled.
    pub fn is_over(&self, call: CallId) -> bool {
        self.running(call).is_none()
    }

    /// By when a running call has to be over.
    pub fn deadline_of(&self, call: CallId) -> Instant {
        self.running(call).map_or(Instant::NEVER, |node| self.nodes[node].deadline)
    }

    fn due(&self, now: Instant) -> Option<NodeId> {
        let live = self.nodes.iter().enumerate().filter(|(_, n)| n.life != Life::Ended);
        live.filter_map(|(i, n)| Some((n.wake?, i))).min().filter(|(at, _)| *at <= now).map(|(_, node)| node)
    }

    /// A started call, or the open stream of one, has ended. Ignored if the call was cancelled.
    pub fn ended(&mut self, call: CallId, outcome: Outcome) {
        if let Some(node) = self.running(call) {
            self.pending.push(Pending::Outward(node, outcome));
        }
    }

    /// A started call has delivered its first content.
    pub fn opened(&mut self, call: CallId, stream: Ticket) {
        if let Some(node) = self.running(call) {
            self.pending.push(Pending::Outward(node, Outcome::Stream(stream)));
        }
    }

    /// What an open stream gave out is taken back, or gone on from: how it ends now is judged as if it had never opened, so
    /// that it may be tried again.
    pub fn taken_back(&mut self, call: CallId) {
        let mut next = self.running(call).unwrap_or(NOBODY);
        while next != NOBODY {
            self.nodes[next].life = Life::Running;
            next = self.nodes[next].parent;
        }
    }

    /// What a driver may give that has calls under way beside each other: its wait for them ends.
    pub fn bell(&mut self) -> Arc<Signal> {
        self.common.signal.get_or_insert_with(|| Arc::new(Signal::new())).clone()
    }

    /// Of the calls that run beside each other that one alone goes on: the others are given up.
    pub fn goes_on_with(&mut self, call: CallId, now: Instant) {
        let mut next = self.running(call).unwrap_or(NOBODY);
        while next != NOBODY {
            let node = next;
            next = self.nodes[node].parent;
            self.cancel_beside(node, now);
        }
    }

    /// The answer to [`Step::Judge`].
    pub fn verdict(&mut self, verdict: Verdict, now: Instant) {
        if let Some((child, ask)) = self.judging.take() {
            self.outward(child, ask.outcome, Some(verdict), now);
        }
    }

    /// The caller went away: every layer gives back what it holds and nothing counts.
    pub fn abandon(&mut self, now: Instant) {
        self.judging = None;
        self.pending.clear();
        self.out.clear();
        for node in (0..self.nodes.len()).rev() {
            self.end_quietly(node, now);
        }
    }

    /// What has happened since this was last asked.
    pub fn take_events(&mut self) -> Drain<'_, Event> {
        self.common.events.drain(..)
    }

    /// Whether there are events to take.
    pub fn has_events(&self) -> bool {
        !self.common.events.is_empty()
    }

    /// Outcomes that belong to the error raised: the failures of the alternatives.
    pub fn attached(&self) -> &[Outcome] {
        &self.common.attached
    }

    /// Attempts started so far, over all targets: answers that were ready are none.
    pub fn calls(&self) -> u32 {
        self.common.calls
    }

    fn running(&self, call: CallId) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.life != Life::Ended && matches!(n.kind, Kind::Call(c) if c == call))
    }

    fn spawn(&mut self, parent: NodeId, stage: StageId, now: Instant, deadline: Instant) {
        let number = self.nodes.get_mut(parent).map_or(0, |parent| {
            let number = parent.children;
            parent.children += 1;
            number
        });
        // A node ends after all that is inside of it: an ended one is nobody's parent any more, and its place is free.
        let id = self.nodes.iter().position(|n| n.life == Life::Ended).unwrap_or_else(|| {
            self.nodes.push(Node::default());
            self.nodes.len() - 1
        });
        // Part by part where it lies: made elsewhere it would be copied from there, and the processor would wait for the parts.
        let node = &mut self.nodes[id];
        (node.parent, node.stage, node.life) = (parent, stage, Life::Running);
        (node.begun, node.deadline, node.wake, node.hears) = (now, deadline, None, Hears::default());
        (node.number, node.children) = (number, 0);
        match &self.plan.stages[stage.0 as usize] {
            Stage::Layer { policy, .. } => {
                node.kind = Kind::Layer(policy.enter());
                self.pending.push(Pending::Begin(id));
            }
            Stage::Leaf(target, is_attempt) => {
                let call = CallId(self.started);
                node.kind = Kind::Call(call);
                self.started += 1;
                self.common.calls += u32::from(*is_attempt);
                self.out.push(Step::Start { call, target: *target, deadline });
            }
        }
    }

    /// Carries a child's outcome to its parent, asking for a verdict first where the parent wants one.
    fn outward(&mut self, child: NodeId, outcome: Outcome, verdict: Option<Verdict>, now: Instant) {
        if self.nodes[child].life == Life::Ended {
            return;
        }
        let parent = self.nodes[child].parent;
        if parent == NOBODY {
            self.finish(child, outcome);
            self.out.push(match outcome {
                Outcome::Stream(ticket) => Step::Deliver(ticket),
                done => Step::Done(done),
            });
            return;
        }
        if verdict.is_none()
            && !matches!(outcome, Outcome::Stream(_))
            && let Kind::Layer(layer) = &self.nodes[parent].kind
            && let Some(attempt) = layer.asks(&outcome)
        {
            let ask = Ask::new(self.nodes[parent].stage, outcome, attempt, self.nodes[parent].begun);
            self.judging = Some((child, ask));
            return;
        }
        let was_open = self.nodes[child].life == Life::Delivered;
        self.finish(child, outcome);
        let input = if was_open { Input::Ended(outcome, verdict) } else { Input::Child(outcome, verdict) };
        let child = Child { number: self.nodes[child].number, begun: self.nodes[child].begun };
        self.input_of(parent, input, Some(child), now);
    }

    fn finish(&mut self, node: NodeId, outcome: Outcome) {
        self.nodes[node].life = if matches!(outcome, Outcome::Stream(_)) { Life::Delivered } else { Life::Ended };
    }

    fn input(&mut self, node: NodeId, input: Input, now: Instant) {
        self.input_of(node, input, None, now);
    }

    fn input_of(&mut self, node: NodeId, input: Input, child: Option<Child>, now: Instant) {
        let flow = self.on(node, input, child, now);
        if flow != Flow::Hold {
            self.nodes[node].hears.signal = false;
        }
        match flow {
            Flow::Hold => {}
            Flow::Inward(branch) => {
                let (stage, deadline) = (self.nodes[node].stage, self.nodes[node].deadline);
                let inner = match &self.plan.stages[stage.0 as usize] {
                    Stage::Layer { inner, .. } => inner[branch],
                    Stage::Leaf(..) => return,
                };
                self.spawn(node, inner, now, deadline);
            }
            Flow::Resolve(outcome) => {
                let is_late = matches!(outcome, Outcome::Rejected(rejection) if rejection.refusal() == Refusal::TimedOut);
                self.cancel_inside(node, !is_late, now);
                self.nodes[node].wake = None;
                self.pending.push(Pending::Outward(node, outcome));
            }
            Flow::PassOn(outcome) => {
                let is_open = |n: &Node| n.parent == node && n.life == Life::Delivered;
                if let Some(open) = self.nodes.iter().position(is_open) {
                    self.cancel_beside(open, now);
                }
                self.pending.push(Pending::Outward(node, outcome));
            }
        }
    }

    fn on(&mut self, node: NodeId, input: Input, child: Option<Child>, now: Instant) -> Flow {
        let stage = self.nodes[node].stage;
        let branches = match &self.plan.stages[stage.0 as usize] {
            Stage::Layer { inner, .. } => inner.len(),
            Stage::Leaf(..) => 0,
        };
        // Few calls weigh anything anywhere.
        let weight = self.weights.iter().find(|(at, _)| *at == stage).map_or(0, |(_, amount)| *amount);
        let brought = self.baggage.iter().find(|(at, _)| *at == stage).map(|(_, what)| what);
        // Most have had one child.
        let running = match self.nodes[node].children {
            0 | 1 => 0,
            _ => self.nodes.iter().filter(|n| n.parent == node && n.life == Life::Running).count(),
        };
        let Node { kind, begun, deadline, wake, hears, .. } = &mut self.nodes[node];
        let Kind::Layer(layer) = kind else { return Flow::Hold };
        let (begun, common) = (*begun, &mut self.common);
        let mut cx = Cx { now, stage, begun, deadline, wake, hears, weight, brought, common, branches, child, running };
        layer.on(input, &mut cx)
    }

    /// Ends everything inside a node; running calls are cancelled.
    fn cancel_inside(&mut self, node: NodeId, beaten: bool, now: Instant) {
        for inside in (0..self.nodes.len()).rev() {
            if inside != node && self.is_inside(inside, node) {
                self.cancel(inside, beaten, now);
            }
        }
    }

    /// Ends what runs beside a node, and all that is inside of that.
    fn cancel_beside(&mut self, node: NodeId, now: Instant) {
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
            self.nodes[node].wake = None;
            // What has not begun yet never does; whoever has its place next would hear of it otherwise.
            self.pending.retain(|p| match p {
                Pending::Begin(n) | Pending::Outward(n, _) => *n != node,
            });
            self.on(node, Input::Abandoned, None, now);
            self.nodes[node].life = Life::Ended;
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        let (nodes, events) = (take(&mut self.nodes), take(&mut self.common.events));
        // A thread that is at its end keeps nothing.
        let _ = SPARE.try_with(|spare| {
            spare.0.keep(nodes);
            spare.1.keep(events);
        });
    }
}

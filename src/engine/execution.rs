//! One guarded call: a small tree of passages, driven from outside.

mod begun;
mod given_up;

pub use begun::Idle;

use super::layer::{Child, Common, Cx, Event, Flow, Hears, Input, Layer, Place, Policy};
use super::outcome::{Outcome, Refusal, Ticket};
use super::plan::{Plan, Stage, StageId};
use super::queue::Queue;
use super::signal::Signal;
use super::step::{Ask, CallId, Step, Verdict};
use super::time::Instant;
use std::any::Any;
use std::sync::Arc;
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

impl Kind {
    /// Puts a passage there: what has ended there, where it was the same policy's, or a new one.
    #[inline(always)] // as `Execution::follow`
    fn enters(&mut self, policy: &dyn Policy, was_here: bool) {
        let is_renewed = was_here && if let Kind::Layer(layer) = self { layer.renew() } else { false };
        if !is_renewed {
            *self = Kind::Layer(policy.enter());
        }
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
    /// [`NOBODY`] of the outermost one. Stays when the node ends, until its place is taken: who gives up a tree goes up by it.
    parent: NodeId,
    /// Of one that has ended: the next place that is free.
    next: NodeId,
    kind: Kind,
    life: Life,
    place: Place,
}

/// What waits to be handed to a layer.
#[derive(Clone, Copy)]
enum Pending {
    Begin(NodeId),
    /// The child, and how it came out.
    Outward(NodeId, Outcome),
}

/// What follows from an input.
enum Next {
    Nothing,
    Pending(Pending),
    Step(Step),
}

/// One guarded call.
pub struct Execution {
    plan: Arc<Plan>,
    nodes: Vec<Node>,
    /// The place of the node that ended last; its `next` is the one before it.
    free: NodeId,
    /// The node of the call that was started last.
    latest: NodeId,
    pending: Queue<Pending>,
    out: Queue<Step>,
    /// The child whose outcome is being judged, and the question.
    judging: Option<(NodeId, Ask)>,
    /// How many calls were started, ready answers included.
    started: u64,
    common: Common,
}

impl Execution {
    /// Tells of each attempt as well.
    pub fn announce(&mut self) {
        self.common.announces = true;
    }

    /// Retries without waiting in between.
    pub fn hurry(&mut self) {
        self.common.hurries = true;
    }

    /// Whoever drives it holds a lock while it does, as all do who say so: one and the same.
    pub fn in_turn(&mut self) {
        self.common.is_in_turn = true;
    }

    /// Makes at most so many attempts in each retry.
    pub fn cap(&mut self, attempts: u32) {
        self.common.cap = attempts;
    }

    /// Weighs so much at that stage: what a limit there counts beside the call itself.
    pub fn weighs(&mut self, stage: StageId, amount: u64) {
        self.common.weights.push((stage, amount));
    }

    /// Brings something along for that stage, which its policy understands.
    pub fn brings(&mut self, stage: StageId, what: Arc<dyn Any + Send + Sync>) {
        self.common.baggage.push((stage, what));
    }

    /// What to do next. Repeats an unanswered [`Step::Judge`].
    pub fn step(&mut self, now: Instant) -> Step {
        self.step_answered(now, |_| None)
    }

    /// As [`Execution::step`]; a question to which `answer` knows the verdict at once is not handed out. None is asked before what has
    /// happened was published. Such verdicts are few and lie ready: one that is made would be copied from hand to hand.
    #[inline(never)] // apart from the one that begins with an end
    pub fn step_answered(&mut self, now: Instant, mut answer: impl FnMut(&Ask) -> Option<&'static Verdict>) -> Step {
        loop {
            if let Some(step) = self.out.pop() {
                return step;
            }
            if let Some((_, ask)) = self.judging {
                return Step::Judge(ask);
            }
            if let Some(pending) = self.pending.pop() {
                match self.go_on(pending, now, &mut answer) {
                    Some(step) => return step,
                    None => continue,
                }
            }
            match self.due(now) {
                Some(node) => {
                    self.nodes[node].place.wake = None;
                    self.wakes(node, now);
                }
                None if self.common.signal.as_ref().is_some_and(|signal| signal.take()) => self.signalled(now),
                None => return Step::Wait { until: self.next_wake() },
            }
        }
    }

    /// As [`Execution::ended`] and [`Execution::step_answered`] after it, by the shortest way there is.
    #[inline]
    pub fn ended_answered(
        &mut self,
        call: CallId,
        outcome: Outcome,
        now: Instant,
        mut answer: impl FnMut(&Ask) -> Option<&'static Verdict>,
    ) -> Step {
        let is_next = self.pending.is_empty() && self.out.is_empty() && self.judging.is_none();
        match self.running(call).map(|node| Pending::Outward(node, outcome)) {
            Some(pending) if is_next => {
                if let Some(step) = self.go_on(pending, now, &mut answer) {
                    return step;
                }
            }
            Some(pending) => self.pending.push(pending),
            None => {}
        }
        self.step_answered(now, answer)
    }

    /// Hands on what follows, until something is to be done outside, which is given, or nothing follows: all that an attempt costs in here.
    #[inline(always)] // twice in each driver that answers
    fn go_on(&mut self, mut pending: Pending, now: Instant, answer: &mut impl FnMut(&Ask) -> Option<&'static Verdict>) -> Option<Step> {
        loop {
            // Handed in where it is known what: an input that went through one place would be copied there.
            let (node, flow) = match pending {
                Pending::Begin(node) => (node, self.on(node, Input::Begin, None, now)),
                Pending::Outward(child, outcome) => {
                    let Node { parent, life, .. } = self.nodes[child];
                    if life == Life::Ended {
                        return None;
                    }
                    let Some(outer) = self.nodes.get(parent) else { return self.comes_outermost(child, outcome) };
                    let verdict = match (&outer.kind, outcome) {
                        (_, Outcome::Stream(_)) | (Kind::Call(_), _) => None,
                        (Kind::Layer(layer), _) => match layer.asks(&outcome) {
                            None => None,
                            Some(attempt) => {
                                let ask = Ask::new(outer.place.stage, outcome, attempt, outer.place.begun);
                                let known = if self.common.events.is_empty() { answer(&ask) } else { None };
                                if known.is_none() {
                                    self.judging = Some((child, ask));
                                    return None;
                                }
                                known
                            }
                        },
                    };
                    (parent, self.comes_out(child, parent, outcome, verdict, now))
                }
            };
            match self.follow(node, flow, now) {
                Next::Pending(next) => pending = next,
                Next::Step(step) => return Some(step),
                Next::Nothing => return None,
            }
        }
    }

    /// What follows at once, if nothing comes before it.
    #[inline]
    fn follows(&mut self, pending: Pending) -> Next {
        if self.pending.is_empty() && self.out.is_empty() {
            return Next::Pending(pending);
        }
        self.pending.push(pending);
        Next::Nothing
    }

    /// What is to be done outside, if nothing comes before it.
    #[inline]
    fn hands_out(&mut self, step: Step) -> Option<Step> {
        if self.out.is_empty() {
            return Some(step);
        }
        self.out.push(step);
        None
    }

    /// Leaves what would follow at once to the next step.
    fn later(&mut self, next: Next) {
        match next {
            Next::Pending(pending) => self.pending.push(pending),
            Next::Step(step) => self.out.push(step),
            Next::Nothing => {}
        }
    }

    /// The earliest time at which a layer wants to be woken.
    pub fn next_wake(&self) -> Instant {
        self.nodes.iter().filter(|n| n.life != Life::Ended).filter_map(|n| n.place.wake).min().unwrap_or(Instant::NEVER)
    }

    /// What else than time and the end of a call may end a wait, if anything in here listens.
    pub fn signal(&self) -> Option<&Arc<Signal>> {
        self.common.signal.as_ref().filter(|_| self.nodes.iter().any(|n| n.place.hears.signal && n.life == Life::Running))
    }

    /// Whether it waits for time to pass, and not only for something that a limit would cut short.
    pub fn passes_time(&self) -> bool {
        self.nodes.iter().any(|n| n.life != Life::Ended && n.place.wake.is_some() && !n.place.hears.limit)
    }

    fn signalled(&mut self, now: Instant) {
        for node in 0..self.nodes.len() {
            // Asked at each: what one does may end others.
            if self.nodes[node].place.hears.signal && self.nodes[node].life == Life::Running {
                self.wakes(node, now);
            }
        }
    }

    /// Wakes the layers whose time has come, without asking for the next step.
    pub fn wake(&mut self, now: Instant) {
        while let Some(node) = self.due(now) {
            self.nodes[node].place.wake = None;
            self.wakes(node, now);
        }
    }

    /// Whether a started call is over: ended or cancelled.
    pub fn is_over(&self, call: CallId) -> bool {
        self.running(call).is_none()
    }

    /// By when a running call has to be over.
    pub fn deadline_of(&self, call: CallId) -> Instant {
        self.running(call).map_or(Instant::NEVER, |node| self.nodes[node].place.deadline)
    }

    fn due(&self, now: Instant) -> Option<NodeId> {
        let live = self.nodes.iter().enumerate().filter(|(_, n)| n.life != Life::Ended);
        live.filter_map(|(i, n)| Some((n.place.wake?, i))).min().filter(|(at, _)| *at <= now).map(|(_, node)| node)
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
        if let Some((child, ask)) = self.judging.take()
            && self.nodes[child].life != Life::Ended
        {
            let parent = self.nodes[child].parent;
            let flow = self.comes_out(child, parent, ask.outcome, Some(&verdict), now);
            let next = self.follow(parent, flow, now);
            self.later(next);
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

    #[inline]
    fn running(&self, call: CallId) -> Option<NodeId> {
        let is_it = |n: &Node| n.life != Life::Ended && matches!(n.kind, Kind::Call(c) if c == call);
        // Most calls have one under way.
        if self.nodes.get(self.latest).is_some_and(is_it) { Some(self.latest) } else { self.nodes.iter().position(is_it) }
    }

    /// A new node, which its parent has counted already, and what follows from it.
    #[inline(always)] // as `follow`
    fn spawn(&mut self, parent: NodeId, number: u32, stage: StageId, now: Instant, deadline: Instant) -> Next {
        let (id, was_here) = self.takes_place(parent, number, stage, now, deadline);
        match &self.plan.stages[stage.0 as usize] {
            Stage::Layer { policy, .. } => {
                self.nodes[id].kind.enters(policy.as_ref(), was_here);
                self.follows(Pending::Begin(id))
            }
            Stage::Leaf(target, is_attempt) => {
                let call = CallId(self.started);
                self.nodes[id].kind = Kind::Call(call);
                self.started += 1;
                self.common.calls += u32::from(*is_attempt);
                self.latest = id;
                self.hands_out(Step::Start { call, target: *target, deadline }).map_or(Next::Nothing, Next::Step)
            }
        }
    }

    /// Where a new node lies, which is all but its kind; whether the one before it there was the same stage's.
    #[inline(always)] // as `follow`
    fn takes_place(&mut self, parent: NodeId, number: u32, stage: StageId, now: Instant, deadline: Instant) -> (NodeId, bool) {
        let id = if self.free == NOBODY { self.grow() } else { self.free };
        // Part by part where it lies: made elsewhere it would be copied from there, and the processor would wait for the parts.
        let node = &mut self.nodes[id];
        let was_here = node.place.stage == stage;
        self.free = node.next;
        (node.parent, node.life) = (parent, Life::Running);
        let place = &mut node.place;
        (place.stage, place.begun, place.deadline) = (stage, now, deadline);
        (place.wake, place.hears) = (None, Hears::default());
        (place.number, place.children, place.live) = (number, 0, 0);
        (id, was_here)
    }

    /// Room for one more node, as if one had ended there.
    #[cold]
    fn grow(&mut self) -> NodeId {
        self.nodes.push(Node { next: NOBODY, life: Life::Ended, ..Node::default() });
        self.nodes.len() - 1
    }

    /// The outermost node has come out so.
    fn comes_outermost(&mut self, node: NodeId, outcome: Outcome) -> Option<Step> {
        self.leaves(node, outcome);
        self.hands_out(match outcome {
            Outcome::Stream(ticket) => Step::Deliver(ticket),
            done => Step::Done(done),
        })
    }

    /// A node has come out so, if only with the beginning of a stream. Who it was, and whether its stream was open before.
    #[inline(always)] // as `follow`
    fn leaves(&mut self, id: NodeId, outcome: Outcome) -> (Child, bool) {
        let Node { life, place, .. } = &mut self.nodes[id];
        let (child, was_open) = (Child { number: place.number, begun: place.begun }, *life == Life::Delivered);
        if matches!(outcome, Outcome::Stream(_)) {
            *life = Life::Delivered;
        } else {
            self.ends(id);
        }
        (child, was_open)
    }

    /// A node has come out so: what its parent makes of that.
    #[inline(always)] // as `follow`
    fn comes_out(&mut self, id: NodeId, parent: NodeId, outcome: Outcome, verdict: Option<&Verdict>, now: Instant) -> Flow {
        let (child, was_open) = self.leaves(id, outcome);
        let input = if was_open { Input::Ended(outcome, verdict) } else { Input::Child(outcome, verdict) };
        self.on(parent, input, Some(child), now)
    }

    /// A node ends, after all that is inside of it: it is nobody's parent any more, and its place is free.
    #[inline]
    fn ends(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        (node.life, node.next) = (Life::Ended, self.free);
        self.free = id;
        let parent = node.parent;
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.place.live -= 1;
        }
    }

    /// Wakes a node's layer; what follows from it is left to the next step.
    #[inline(never)]
    fn wakes(&mut self, node: NodeId, now: Instant) {
        let flow = self.on(node, Input::Wake, None, now);
        let next = self.follow(node, flow, now);
        self.later(next);
    }

    /// What follows at once from what a node's layer does.
    #[inline(always)] // into the one loop that every attempt goes through
    fn follow(&mut self, node: NodeId, flow: Flow, now: Instant) -> Next {
        let place = &mut self.nodes[node].place;
        if flow != Flow::Hold {
            place.hears.signal = false;
        }
        match flow {
            Flow::Hold => Next::Nothing,
            Flow::Inward(branch) => {
                let (stage, deadline, number) = (place.stage, place.deadline, place.children);
                match &self.plan.stages[stage.0 as usize] {
                    Stage::Layer { inner, others, .. } => {
                        let inner = if branch == 0 { *inner } else { others[branch - 1] };
                        (place.children, place.live) = (number + 1, place.live + 1);
                        self.spawn(node, number, inner, now, deadline)
                    }
                    Stage::Leaf(..) => Next::Nothing,
                }
            }
            Flow::Resolve(outcome) => {
                place.wake = None;
                if place.live > 0 {
                    let is_late = matches!(outcome, Outcome::Rejected(rejection) if rejection.refusal() == Refusal::TimedOut);
                    self.cancel_inside(node, !is_late, now);
                }
                self.follows(Pending::Outward(node, outcome))
            }
            Flow::PassOn(outcome) => {
                let is_open = |n: &Node| n.parent == node && n.life == Life::Delivered;
                if let Some(open) = self.nodes.iter().position(is_open) {
                    self.cancel_beside(open, now);
                }
                self.follows(Pending::Outward(node, outcome))
            }
        }
    }

    /// Hands an input to a node's layer.
    #[inline(always)] // as `follow`
    fn on(&mut self, node: NodeId, input: Input<'_>, child: Option<Child>, now: Instant) -> Flow {
        // Most have one child at a time.
        let running = match self.nodes[node].place.live {
            0 => 0,
            _ => self.nodes.iter().filter(|n| n.parent == node && n.life == Life::Running).count(),
        };
        let Node { kind, place, .. } = &mut self.nodes[node];
        let Kind::Layer(layer) = kind else { return Flow::Hold };
        layer.on(input, &mut Cx { now, place, common: &mut self.common, plan: &self.plan, child, running })
    }
}

//! A machine that is over is the next call's, and knows nothing of the one before.

use super::policies::{FAIL, config, guarded, retry};
use crate::virtual_time::{Answer, World, admitted, at, plan};
use seawall::engine::{CallId, Cx, Execution, Flow, Input, Instant, Layer, Outcome, PlanBuilder, Policy, StageId, Step, Target, Ticket};
use seawall::policies::circuit_breaker::{CircuitBreaker, State};
use seawall::policies::fallback::Fallback;
use seawall::policies::retry::{Retried, Retry};
use std::sync::{Arc, Mutex};

/// Runs one call to its end.
fn run(world: &mut World, execution: &mut Execution) -> Outcome {
    world.drive(execution, &mut Vec::new(), Instant::NEVER).expect("it ends")
}

/// The same machine for another call.
fn again(execution: Execution, seed: u64) -> Execution {
    execution.rests().expect("it is over").wakes_up(seed)
}

#[test]
fn what_its_driver_asked_for_and_what_came_of_it_is_forgotten() {
    let mut builder = PlanBuilder::default();
    let (primary, other) = (builder.leaf(Target(0)), builder.leaf(Target(1)));
    let retried = builder.layer(Arc::new(Retried::new(retry(3, 30.0))), vec![primary]);
    let root = builder.layer(Arc::new(Fallback { judges_values: false }), vec![retried, other]);
    let plan = builder.build(root);
    let mut world = World::new(&[&[(0.0, FAIL)], &[(0.0, FAIL)]]);
    let mut execution = Execution::idle(plan, 7);
    execution.announce();
    execution.hurry();
    execution.cap(2);
    execution.begin(world.now, at(50.0));
    run(&mut world, &mut execution);
    assert_eq!((execution.calls(), execution.attached().len(), world.elapsed()), (3, 1, 0.0));
    let mut execution = again(execution, 7);
    assert_eq!((execution.calls(), execution.attached().len(), execution.has_events()), (0, 0, false));
    world.events.clear();
    execution.begin(world.now, Instant::NEVER);
    run(&mut world, &mut execution);
    // Three attempts, with the waits between them, that nobody is told of.
    assert_eq!((execution.calls(), execution.attached().len(), world.elapsed()), (4, 1, 60.0));
    assert!(world.events.iter().all(|event| event.name.as_str() != "attempt.started"));
}

#[test]
fn the_same_seed_gives_the_same_jitter_again() {
    let jittered = || {
        let wait = Arc::new(seawall::policies::retry::backoff::Backoff::Random { min: 1.0, max: 9.0 });
        plan(vec![Arc::new(Retried::new(Retry { wait, ..retry(3, 0.0) }))])
    };
    let mut world = World::new(&[&[(0.0, FAIL)]]);
    let mut execution = Execution::new(jittered(), 7, world.now);
    for seed in [8, 7] {
        run(&mut world, &mut execution);
        execution = again(execution, seed);
        execution.begin(world.now, Instant::NEVER);
    }
    run(&mut world, &mut execution);
    let waits: Vec<_> = world.events.iter().filter(|e| e.name.as_str() == "retry.scheduled").map(|e| e.span).collect();
    assert_eq!(waits[..2], waits[4..]);
    assert_ne!(waits[..2], waits[2..4]);
}

#[test]
fn a_call_that_was_let_in_stays_so_though_the_circuit_has_opened_since() {
    let breaker = Arc::new(CircuitBreaker::new(config(3, 60.0)));
    let plan = plan(vec![Arc::new(Retried::new(retry(1, 0.0))), guarded(&breaker)]);
    let mut world = World::new(&[&[(0.0, FAIL)]]);
    let mut execution = Execution::new(plan.clone(), 7, world.now);
    run(&mut world, &mut execution);
    let pass = admitted(&plan, world.now);
    breaker.force(State::ForcedOpen, world.now);
    let mut execution = again(execution, 7);
    execution.resume(&pass, Instant::NEVER);
    execution.ended(CallId::FIRST, Outcome::Value(Ticket(5)));
    assert_eq!(execution.step(world.now), Step::Done(Outcome::Value(Ticket(5))));
}

#[test]
fn one_whose_call_goes_on_is_of_no_use() {
    // As it begins, with an attempt under way, between two attempts, and after it was given up.
    for (until, is_given_up, rests) in [(1.0, false, false), (1.5, false, false), (2.2, false, false), (2.2, true, true)] {
        let mut world = World::new(&[&[(1.0, FAIL)]]);
        let mut execution = Execution::new(plan(vec![Arc::new(Retried::new(retry(2, 0.5)))]), 7, world.now);
        assert_eq!(world.drive(&mut execution, &mut Vec::new(), at(until)), None);
        if is_given_up {
            execution.abandon(world.now);
        }
        assert_eq!(execution.rests().is_some(), rests, "at {until}");
    }
}

#[test]
fn a_layer_is_made_new_for_its_own_stage_only() {
    let breakers = [(); 2].map(|()| Arc::new(CircuitBreaker::new(config(9, 60.0))));
    let mut builder = PlanBuilder::default();
    let branches = [0, 1].map(|at| {
        let leaf = builder.leaf(Target(at));
        builder.layer(guarded(&breakers[at]), vec![leaf])
    });
    // The alternative takes the place of the primary that has ended, and another breaker stands there.
    let root = builder.layer(Arc::new(Fallback { judges_values: false }), branches.to_vec());
    let mut world = World::new(&[&[(0.0, FAIL)], &[(0.0, FAIL)]]);
    let mut execution = Execution::new(builder.build(root), 7, world.now);
    for calls in 1..4 {
        run(&mut world, &mut execution);
        assert_eq!(breakers.each_ref().map(|breaker| breaker.outlook(world.now).consecutive_failures), [calls; 2]);
        execution = again(execution, 7);
        execution.begin(world.now, Instant::NEVER);
    }
}

#[test]
fn a_retrys_and_a_breakers_passages_stay() {
    let (retry, breaker) = (Arc::new(retry(2, 0.0)), Arc::new(CircuitBreaker::new(config(9, 60.0))));
    let plan = plan(vec![Arc::new(Retried(retry.clone())), guarded(&breaker)]);
    let held = || (Arc::strong_count(&retry), Arc::strong_count(&breaker));
    let before = held();
    let mut world = World::new(&[&[(0.0, FAIL)]]);
    let mut execution = Execution::new(plan, 7, world.now);
    run(&mut world, &mut execution);
    let idle = execution.rests().expect("it is over");
    assert_eq!(held(), (before.0 + 1, before.1 + 1));
    drop(idle);
    assert_eq!(held(), (before.0 - 1, before.1 - 1), "with the plan, which was its own");
}

/// Writes down when its passages begin and are let go.
#[derive(Clone)]
struct Holding {
    diary: Arc<Mutex<Vec<&'static str>>>,
}

impl Holding {
    fn write(&self, what: &'static str) {
        self.diary.lock().expect("nobody panics with it").push(what);
    }
}

impl Policy for Holding {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Inside(self.clone()))
    }
}

struct Inside(Holding);

impl Layer for Inside {
    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Child(outcome, _) | Input::Ended(outcome, _) => Flow::Resolve(outcome),
            _ => {
                self.0.write(if cx.weight() > 0 { "begins, heavy" } else { "begins" });
                Flow::Inward(0)
            }
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.write("goes");
    }
}

#[test]
fn what_cannot_be_made_new_is_let_go_with_the_call() {
    let diary = Arc::default();
    let holding = Holding { diary: Arc::clone(&diary) };
    let told = || std::mem::take(&mut *diary.lock().expect("nobody panics with it"));
    let mut world = World::new(&[&[(0.0, Answer::Value(1))]]);
    let mut execution = Execution::idle(plan(vec![Arc::new(holding)]), 7);
    let brought = Arc::new(());
    for (weight, begins) in [(5, "begins, heavy"), (0, "begins")] {
        execution.brings(StageId(1), brought.clone());
        if weight > 0 {
            execution.weighs(StageId(1), weight);
        }
        execution.begin(world.now, Instant::NEVER);
        run(&mut world, &mut execution);
        assert_eq!(told(), [begins]);
        let idle = execution.rests().expect("it is over");
        assert_eq!((told(), Arc::strong_count(&brought)), (vec!["goes"], 1));
        execution = idle.wakes_up(7);
    }
}

//! The lane's rules, by policies that write down what they are asked.

use crate::virtual_time::{admitted, at, plan, resumed, settles};
use seawall::engine::{CallId, Cx, Flow, Input, Instant, Lane, Layer, Outcome, Pass, Plan, Policy, Step, Ticket};
use std::cell::Cell;
use std::sync::{Arc, Mutex};

type Diary = Arc<Mutex<Vec<String>>>;

/// A watched policy: its permit is its number, and everything goes into the diary.
#[derive(Clone)]
struct Watching {
    number: u64,
    diary: Diary,
    admits: bool,
    plain: bool,
}

impl Watching {
    fn write(&self, what: &str) {
        self.diary.lock().expect("nobody panics with it").push(format!("{what} {}", self.number));
    }
}

impl Policy for Watching {
    fn enter(&self) -> Box<dyn Layer> {
        self.write("enter");
        Box::new(Letting(self.clone()))
    }

    fn lane(&self) -> Lane {
        Lane::Watched
    }

    fn admit(&self, now: Instant) -> Option<u64> {
        assert_eq!(now, at(1.0));
        self.write("admit");
        self.admits.then_some(self.number)
    }

    fn is_plain(&self, begun: Instant, now: &dyn Fn() -> Instant) -> bool {
        assert_eq!((begun, now()), (at(1.0), at(2.0)));
        self.write("plain?");
        self.plain
    }

    fn settle(&self, permit: u64, begun: Instant, now: &dyn Fn() -> Instant) -> bool {
        assert_eq!((permit, begun, now()), (self.number, at(1.0), at(2.0)));
        self.write("settle");
        self.plain
    }

    fn release(&self, permit: u64) {
        assert_eq!(permit, self.number);
        self.write("release");
    }
}

/// Its passage.
struct Letting(Watching);

impl Layer for Letting {
    fn let_in(&mut self, permit: u64, begun: Instant) {
        assert_eq!((permit, begun), (self.0.number, at(1.0)));
        self.0.write("let in");
    }

    fn on(&mut self, input: Input<'_>, cx: &mut Cx<'_>) -> Flow {
        Inside.on(input, cx)
    }
}

struct Inside;

impl Layer for Inside {
    fn on(&mut self, input: Input, _cx: &mut Cx<'_>) -> Flow {
        match input {
            Input::Begin => Flow::Inward(0),
            Input::Child(outcome, _) | Input::Ended(outcome, _) => Flow::Resolve(outcome),
            Input::Wake | Input::Abandoned => Flow::Hold,
        }
    }
}

/// Passes freely, and leaves the trait's own answers as they are.
struct Free(Lane);

impl Policy for Free {
    fn enter(&self) -> Box<dyn Layer> {
        Box::new(Inside)
    }

    fn lane(&self) -> Lane {
        self.0
    }
}

/// Watching policies, outermost first, each with a free one inside of it.
fn watched(policies: &[(bool, bool)]) -> (Arc<Plan>, Diary) {
    let diary = Diary::default();
    let mut all: Vec<Arc<dyn Policy>> = Vec::new();
    for (number, (admits, plain)) in (1..).zip(policies) {
        all.push(Arc::new(Watching { number, diary: diary.clone(), admits: *admits, plain: *plain }));
        all.push(Arc::new(Free(Lane::Free)));
    }
    (plan(all), diary)
}

fn told(diary: &Diary) -> Vec<String> {
    std::mem::take(&mut *diary.lock().expect("nobody panics with it"))
}

#[test]
fn a_success_is_admitted_from_outside_in_and_settled_from_inside_out() {
    for count in 0..=3 {
        let (plan, diary) = watched(&[(true, true); 3][..count]);
        let reads = Cell::new(0);
        let now = || {
            reads.set(reads.get() + 1);
            at(2.0)
        };
        let pass = admitted(&plan, at(1.0));
        assert!(settles(&plan, &pass, &now));
        assert_eq!(pass.begun(), at(1.0));
        let wanted: &[&str] = match count {
            0 => &[],
            1 => &["admit 1", "settle 1"],
            2 => &["admit 1", "admit 2", "plain? 1", "plain? 2", "settle 2", "settle 1"],
            _ => &["admit 1", "admit 2", "admit 3", "plain? 1", "plain? 2", "plain? 3", "settle 3", "settle 2", "settle 1"],
        };
        assert_eq!(told(&diary), wanted);
        assert!(reads.get() <= 1, "all of them settle by one time");
    }
}

#[test]
fn where_one_success_is_not_plain_nothing_is_settled() {
    let (plan, diary) = watched(&[(true, true), (true, false), (true, true)]);
    assert!(!settles(&plan, &admitted(&plan, at(1.0)), &|| at(2.0)));
    assert!(told(&diary).iter().all(|line| !line.starts_with("settle")));
    let (plan, _) = watched(&[(true, false)]);
    assert!(!settles(&plan, &admitted(&plan, at(1.0)), &|| at(2.0)), "the answer of the only one is the answer");
}

#[test]
fn a_caller_that_goes_away_gives_permits_back_from_inside_out() {
    let (plan, diary) = watched(&[(true, true); 2]);
    plan.release(&admitted(&plan, at(1.0)));
    assert_eq!(told(&diary), ["admit 1", "admit 2", "release 2", "release 1"]);
}

#[test]
fn a_machine_goes_on_with_the_permits_that_were_given() {
    let (plan, diary) = watched(&[(true, true), (false, true), (true, true)]);
    let mut pass = Pass::new(at(1.0));
    assert!(!plan.way().expect("three are watched").admit(&mut pass), "the second refuses");
    let mut execution = resumed(plan, 7, &pass, Instant::NEVER);
    // What refused is asked again, by the machine's way; nothing has been called yet.
    assert!(matches!(execution.step(at(1.0)), Step::Start { .. }));
    execution.ended(CallId::FIRST, Outcome::Value(Ticket(0)));
    assert_eq!(execution.step(at(2.0)), Step::Done(Outcome::Value(Ticket(0))));
    assert_eq!(told(&diary), ["admit 1", "admit 2", "enter 1", "let in 1", "enter 2", "enter 3"]);
}

#[test]
fn a_machine_that_all_let_in_does_not_call_again() {
    let (plan, diary) = watched(&[(true, true), (true, true)]);
    let pass = admitted(&plan, at(1.0));
    let mut execution = resumed(plan, 7, &pass, Instant::NEVER);
    assert_eq!((execution.step(at(1.0)), execution.calls()), (Step::Wait { until: Instant::NEVER }, 1));
    execution.ended(CallId::FIRST, Outcome::Error(Ticket(0)));
    assert_eq!(execution.step(at(2.0)), Step::Done(Outcome::Error(Ticket(0))));
    assert_eq!(told(&diary), ["admit 1", "admit 2", "enter 1", "let in 1", "enter 2", "let in 2"]);
}

#[test]
fn a_fourth_that_has_to_be_asked_closes_the_lane() {
    assert!(watched(&[(true, true); 3]).0.way().is_some());
    let (plan, diary) = watched(&[(true, true); 4]);
    let pass = admitted(&watched(&[(true, true); 3]).0, at(1.0));
    assert!(plan.way().is_none());
    plan.release(&pass);
    assert_eq!(told(&diary), [""; 0]);
}

#[test]
fn a_policy_that_says_nothing_of_lanes_is_the_machines() {
    assert!(plan(vec![Arc::new(Free(Lane::Machine))]).way().is_none());
    // Watched by name alone it gives no permit, and a success of it is plain.
    let silent = Free(Lane::Watched);
    assert_eq!((silent.admit(at(1.0)), silent.is_plain(at(1.0), &|| at(2.0))), (None, true));
    assert!(silent.settle(0, at(1.0), &|| at(2.0)));
    assert!(plan(vec![Arc::new(silent)]).way().is_some_and(|way| !way.admit(&mut Pass::new(at(1.0)))));
}

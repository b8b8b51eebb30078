//! What guardrails have done with an answer, as the machine tells it: a refused value is an error from there on.

use seawall::engine::{Execution, Instant, Outcome, Plan, PlanBuilder, Step, Target, Ticket, Verdict};
use seawall::policies::guardrails::{Guardrails, passed};
use std::sync::Arc;

const NOW: Instant = Instant(1);

fn plan() -> Arc<Plan> {
    let mut builder = PlanBuilder::default();
    let leaf = builder.leaf(Target(0));
    let root = builder.layer(Arc::new(Guardrails), vec![leaf]);
    builder.build(root)
}

/// What comes of an outcome on which the judge says that, and what is told of it.
fn after(outcome: Outcome, verdict: Verdict) -> (Outcome, Vec<(&'static str, u32, &'static str)>) {
    let mut execution = Execution::new(plan(), 1, NOW);
    let Step::Start { call, .. } = execution.step(NOW) else { panic!("the call is made") };
    execution.ended(call, outcome);
    let done = loop {
        match execution.step(NOW) {
            Step::Judge(ask) => {
                assert_eq!(ask.outcome, outcome);
                execution.verdict(verdict, NOW);
            }
            Step::Done(done) => break done,
            other => panic!("{other:?}"),
        }
    };
    let told = execution.take_events().map(|event| (event.name.as_str(), event.number, event.reason)).collect();
    (done, told)
}

#[test]
fn a_refused_value_is_the_error_that_now_stands_in_its_place() {
    let ticket = Ticket(0);
    let refused = vec![("guardrail.refused", 0, "output")];
    assert_eq!(after(Outcome::Value(ticket), Verdict::Final), (Outcome::Error(ticket), refused.clone()));
    assert_eq!(after(Outcome::Error(ticket), Verdict::Final), (Outcome::Error(ticket), refused));
}

#[test]
fn what_was_done_to_an_answer_is_told_and_nothing_else_is() {
    let value = Outcome::Value(Ticket(0));
    let told = vec![("guardrail.redacted", 3, "output"), ("guardrail.repaired", 1, "output")];
    assert_eq!(after(value, passed(3, 1)), (value, told));
    assert_eq!(after(value, passed(0, 0)), (value, vec![]));
    assert_eq!(after(value, Verdict::Ignore), (value, vec![]));
    let error = Outcome::Error(Ticket(0));
    assert_eq!(after(error, Verdict::Ignore), (error, vec![]));
}

//! A whole pipeline against a model of it: a plain loop over plain numbers that knows nothing of machines, layers or events.

use super::policies::{FAIL, retry};
use crate::virtual_time::{Answer, End, World, s};
use proptest::prelude::*;
use seawall::engine::{Plan, PlanBuilder, Policy, Refusal, Target};
use seawall::policies::fallback::Fallback;
use seawall::policies::retry::{Retried, Retry, reason};
use seawall::policies::timeout::Timeout;
use std::sync::Arc;

/// Tenths of a second.
type Tenths = u64;
const NEVER: Tenths = Tenths::MAX / 4;

#[derive(Clone, Debug)]
struct Shape {
    attempts: u32,
    wait: Tenths,
    retry_timeout: Option<Tenths>,
    max_retry_after: Tenths,
    attempt_limit: Option<Tenths>,
    total_limit: Option<Tenths>,
    alternatives: usize,
}

fn seconds(tenths: Tenths) -> f64 {
    tenths as f64 / 10.0
}

fn build(shape: &Shape) -> Arc<Plan> {
    let mut plan = PlanBuilder::default();
    let mut inner = plan.leaf(Target(0));
    let mut around = |plan: &mut PlanBuilder, policy: Arc<dyn Policy>| inner = plan.layer(policy, vec![inner]);
    if let Some(limit) = shape.attempt_limit {
        around(&mut plan, Arc::new(Timeout { limit: s(seconds(limit)) }));
    }
    let config = Retry {
        timeout: shape.retry_timeout.map(|t| s(seconds(t))),
        max_retry_after: s(seconds(shape.max_retry_after)),
        ..retry(shape.attempts, seconds(shape.wait))
    };
    around(&mut plan, Arc::new(Retried::new(config)));
    if let Some(limit) = shape.total_limit {
        around(&mut plan, Arc::new(Timeout { limit: s(seconds(limit)) }));
    }
    let mut branches = vec![inner];
    branches.extend((1..=shape.alternatives).map(|n| plan.leaf(Target(n))));
    let root = plan.layer(Arc::new(Fallback { judges_values: false }), branches);
    plan.build(root)
}

/// What a call should do: when each target is called, how it ends and when, and why retrying stopped.
#[derive(Debug, Default, PartialEq)]
struct Story {
    calls: Vec<(usize, Tenths)>,
    end: Option<End>,
    at: Tenths,
    reason: Option<&'static str>,
}

fn end_of(answer: Answer) -> End {
    match answer {
        Answer::Value(n) => End::Value(n),
        Answer::Error(name) => End::Error(name),
        Answer::Busy(_) => End::Busy,
        Answer::Hang | Answer::Stream(..) => unreachable!("not in these stories"),
    }
}

/// The primary with its retries and limits.
fn primary(shape: &Shape, script: &[(Tenths, Answer)], story: &mut Story) -> End {
    let total_end = shape.total_limit.unwrap_or(NEVER);
    let deadline = shape.retry_timeout.unwrap_or(NEVER).min(total_end);
    let mut now = 0;
    for attempt in 1.. {
        story.calls.push((0, now));
        let (takes, answer) = script[(attempt as usize - 1).min(script.len() - 1)];
        let over = if answer == Answer::Hang { NEVER } else { now + takes };
        let limit = shape.attempt_limit.map_or(NEVER, |limit| now + limit);
        let mut server = None;
        let end = if over <= limit.min(total_end) {
            now = over;
            if let Answer::Busy(wait) = answer {
                server = Some((wait.as_secs_f64() * 10.0).round() as Tenths);
            }
            end_of(answer)
        } else if limit < total_end {
            now = limit;
            End::Refused(Refusal::TimedOut)
        } else {
            story.at = total_end;
            return End::Refused(Refusal::TimedOut);
        };
        story.at = now;
        let stops = match end {
            End::Value(_) => return end,
            End::Error(name) if name.starts_with("final") => Some(reason::FINAL),
            _ if attempt >= shape.attempts => Some(reason::ATTEMPTS),
            _ if now >= deadline => Some(reason::DEADLINE),
            _ if server.is_some_and(|wait| wait > shape.max_retry_after) => Some(reason::RETRY_AFTER),
            _ => {
                let wait = server.unwrap_or(shape.wait);
                (wait > 0 && now + wait >= deadline).then_some(reason::DEADLINE)
            }
        };
        if stops.is_some() {
            story.reason = stops;
            return end;
        }
        now += server.unwrap_or(shape.wait);
    }
    unreachable!("attempts run out")
}

fn told(shape: &Shape, scripts: &[Vec<(Tenths, Answer)>]) -> Story {
    let mut story = Story::default();
    let first = primary(shape, &scripts[0], &mut story);
    let mut end = first;
    for (alternative, script) in scripts.iter().enumerate().skip(1).take(shape.alternatives) {
        if matches!(end, End::Value(_)) || matches!(end, End::Error(name) if name.starts_with("final")) {
            break;
        }
        story.calls.push((alternative, story.at));
        let (takes, answer) = script[0];
        story.at += takes;
        end = end_of(answer);
    }
    // A failure is told by the first one.
    story.end = Some(if matches!(end, End::Value(_)) { end } else { first });
    story
}

fn answers(primary: bool) -> impl Strategy<Value = (Tenths, Answer)> {
    let hang = if primary { 1 } else { 0 };
    let answer = prop_oneof![
        2 => Just(Answer::Value(7)),
        5 => Just(FAIL),
        1 => Just(Answer::Error("final: 401")),
        2 => (0u64..20).prop_map(|tenths| Answer::Busy(s(seconds(tenths)))),
        hang => Just(Answer::Hang),
    ];
    (0u64..12, answer)
}

fn shapes() -> impl Strategy<Value = Shape> {
    let limit = |most| proptest::option::of(1..most);
    (1u32..5, 0u64..8, limit(40u64), 1u64..15, limit(10u64), limit(30u64), 0usize..3).prop_map(
        |(attempts, wait, retry_timeout, max_retry_after, attempt_limit, total_limit, alternatives)| Shape {
            attempts,
            wait,
            retry_timeout,
            max_retry_after,
            attempt_limit,
            total_limit,
            alternatives,
        },
    )
}

/// How the pipeline went about it.
fn ran(shape: &Shape, scripts: &[Vec<(f64, Answer)>], takes_back: bool) -> (Story, Vec<&'static str>) {
    let mut world = World::new(&scripts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    world.takes_back = takes_back;
    let (end, _) = world.run(&build(shape));
    let tenths = |seconds: f64| (seconds * 10.0).round() as Tenths;
    let story = Story {
        calls: world.calls.iter().map(|(target, at)| (*target, tenths(*at))).collect(),
        end: Some(end),
        at: tenths(world.elapsed()),
        reason: world.events.iter().find(|e| e.name.as_str() == "retry.exhausted").map(|e| e.reason),
    };
    (story, world.names())
}

/// The same failure by a stream that opens halfway.
fn streamed((takes, answer): (f64, Answer)) -> (f64, Answer) {
    match answer {
        Answer::Error(name) => (takes / 2.0, Answer::Stream(s(takes) - s(takes / 2.0), Err(name))),
        Answer::Hang => (0.0, Answer::Stream(s(1e6), Err("never"))),
        other => (takes, other),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_pipeline_does_what_a_plain_loop_would(
        shape in shapes(),
        first in proptest::collection::vec(answers(true), 1..6),
        others in proptest::collection::vec(answers(false), 2..3),
    ) {
        // Somebody has to end a call that hangs.
        prop_assume!(shape.attempt_limit.is_some() || shape.total_limit.is_some() || first.iter().all(|(_, a)| *a != Answer::Hang));
        let scripts: Vec<Vec<(Tenths, Answer)>> = std::iter::once(first).chain(others.into_iter().map(|answer| vec![answer])).collect();
        let expected = told(&shape, &scripts);

        let timed: Vec<Vec<(f64, Answer)>> = scripts.iter().map(|script| script.iter().map(|(t, a)| (seconds(*t), *a)).collect()).collect();
        let (story, names) = ran(&shape, &timed, false);
        // What was taken back of a stream that failed is as if it had never been handed out.
        let streamed: Vec<Vec<_>> = timed.iter().map(|script| script.iter().copied().map(streamed).collect()).collect();
        let (again, others) = ran(&shape, &streamed, true);
        prop_assert_eq!((&again, others), (&story, names));
        prop_assert_eq!(story, expected);
    }
}

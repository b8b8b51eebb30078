//! Which request meets which fault, and how fast it is answered: rules per model and time, counted and seeded.

use super::faults::Fault;
use super::spread::{Pace, Spread};
use crate::engine::Random;
use std::collections::VecDeque;

/// Requests of every model.
pub const EVERY_MODEL: &str = "*";

/// For whom and when something holds.
#[derive(Clone, Debug)]
pub struct Scope {
    /// This model, or [`EVERY_MODEL`].
    pub model: String,
    /// Seconds since the server's first start.
    pub start: f64,
    /// It is over then.
    pub until: Option<f64>,
}

impl Scope {
    fn is_now(&self, now: f64) -> bool {
        now >= self.start && self.until.is_none_or(|until| now < until)
    }
}

/// A fault for some requests.
#[derive(Clone, Debug)]
pub struct Rule {
    pub scope: Scope,
    /// What happens.
    pub fault: Fault,
    /// How many requests are left; `None` is no end.
    pub times: Option<u64>,
    /// The share of the matching requests that it hits.
    pub probability: f64,
    /// Only for paths that contain this.
    pub path: Option<String>,
    /// It begins after so many matching requests.
    pub after: u64,
    /// It goes before all rules that are none.
    pub outage: bool,
}

/// What is dealt to a request.
pub struct Dealt {
    pub fault: Fault,
    /// Seconds before anything is answered.
    pub latency: f64,
    pub timing: Timing,
}

/// How fast an answer comes, once it does.
pub struct Timing {
    /// Seconds to the first token.
    pub first_token: f64,
    per_token: Spread,
    random: Random,
}

impl Timing {
    /// An answer that takes no time.
    pub fn none() -> Timing {
        Timing { first_token: 0.0, per_token: Spread::default(), random: Random::seeded(0) }
    }

    /// Seconds for so many tokens.
    pub fn of(&mut self, tokens: usize) -> f64 {
        if self.per_token.is_nothing() { 0.0 } else { (0..tokens).map(|_| self.per_token.draw(&mut self.random)).sum() }
    }
}

/// All rules, each with a chance of its own: what happens to one model changes nothing for another.
pub struct Script {
    rules: VecDeque<(Rule, Random)>,
    paces: VecDeque<(Scope, Pace, Random)>,
    seed: u64,
    made: u64,
}

/// Whether something is for a model: of its own, or as one of all.
fn is_for(scope: &Scope, model: &str, own: bool) -> bool {
    if own { scope.model == model } else { scope.model == EVERY_MODEL && model != EVERY_MODEL }
}

impl Script {
    /// No rules.
    pub fn new(seed: u64) -> Script {
        Script { rules: VecDeque::new(), paces: VecDeque::new(), seed, made: 0 }
    }

    fn chance(&mut self) -> Random {
        self.made += 1;
        Random::seeded(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.made))
    }

    /// Adds a rule before those that are there.
    pub fn push(&mut self, rule: Rule) {
        let chance = self.chance();
        self.rules.push_front((rule, chance));
    }

    /// Sets how fast a model is, before what was said of that.
    pub fn pace(&mut self, scope: Scope, pace: Pace) {
        let chance = self.chance();
        self.paces.push_front((scope, pace, chance));
    }

    /// Takes away what is said of a model, or all.
    pub fn clear(&mut self, model: Option<&str>) {
        self.rules.retain(|(r, _)| model.is_some_and(|m| m != r.scope.model));
        self.paces.retain(|(scope, ..)| model.is_some_and(|m| m != scope.model));
    }

    /// What is dealt to a request. Outages come first; rules of the model itself come before those for all.
    pub fn deal(&mut self, model: &str, path: &str, now: f64) -> Dealt {
        let mut dealt = None;
        for (outage, own) in [(true, true), (true, false), (false, true), (false, false)] {
            for (rule, random) in &mut self.rules {
                let for_it = rule.outage == outage && is_for(&rule.scope, model, own) && rule.scope.is_now(now);
                if !for_it || rule.path.as_ref().is_some_and(|p| !path.contains(p.as_str())) {
                    continue;
                }
                // Whoever begins later counts every request for it, also those that met something else.
                if rule.after > 0 {
                    rule.after -= 1;
                    continue;
                }
                if dealt.is_some() || rule.times == Some(0) || (rule.probability < 1.0 && random.unit() >= rule.probability) {
                    continue;
                }
                if let Some(left) = &mut rule.times {
                    *left -= 1;
                }
                let latency = rule.fault.latency.draw(random);
                dealt = Some((rule.fault.clone(), latency));
            }
        }
        self.rules.retain(|(r, _)| r.times != Some(0) && r.scope.until.is_none_or(|until| now < until));
        let (fault, mut latency) = dealt.unwrap_or_else(|| (Fault::ok(), 0.0));
        let mut timing = Timing::none();
        // Only what the model itself says takes its time: errors come at once.
        if fault.kind.is_answered()
            && let Some((_, pace, random)) = [true, false]
                .into_iter()
                .find_map(|own| self.paces.iter().position(|(scope, ..)| is_for(scope, model, own) && scope.is_now(now)))
                .map(|at| &mut self.paces[at])
        {
            latency += pace.latency.draw(random);
            let first_token = pace.first_token.draw(random);
            timing = Timing { first_token, per_token: pace.per_token.clone(), random: Random::seeded(random.next_u64()) };
        }
        Dealt { fault, latency, timing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(model: &str, name: &str) -> Rule {
        let fault = Fault { name: name.into(), ..Fault::ok() };
        let scope = Scope { model: model.into(), start: 0.0, until: None };
        Rule { scope, fault, times: None, probability: 1.0, path: None, after: 0, outage: false }
    }

    fn dealt(script: &mut Script, model: &str) -> String {
        script.deal(model, "chat/completions", 0.0).fault.name
    }

    #[test]
    fn a_models_own_rules_come_first_and_counted_ones_fall_back() {
        let mut script = Script::new(0);
        script.push(rule("a", "lasting"));
        script.push(rule("*", "all"));
        script.push(Rule { times: Some(2), ..rule("a", "twice") });
        script.push(Rule { times: Some(1), after: 1, ..rule("a", "second") });
        let names: Vec<String> = (0..5).map(|_| dealt(&mut script, "a")).collect();
        assert_eq!(names, ["twice", "second", "twice", "lasting", "lasting"]);
        assert_eq!(dealt(&mut script, "b"), "all");
        script.clear(Some("a"));
        assert_eq!(dealt(&mut script, "a"), "all");
        script.clear(None);
        assert_eq!(dealt(&mut script, "a"), "ok");
    }

    #[test]
    fn who_begins_later_counts_the_requests_that_met_something_else() {
        let mut script = Script::new(0);
        script.push(Rule { after: 3, ..rule("a", "later") });
        script.push(Rule { times: Some(2), ..rule("a", "twice") });
        let names: Vec<String> = (0..5).map(|_| dealt(&mut script, "a")).collect();
        assert_eq!(names, ["twice", "twice", "ok", "later", "later"]);
    }

    #[test]
    fn requests_for_one_model_change_nothing_for_another() {
        let met = |others: usize| {
            let mut script = Script::new(7);
            script.push(Rule { probability: 0.5, ..rule("a", "hit") });
            script.push(Rule { probability: 0.5, ..rule("b", "hit") });
            (0..50)
                .map(|_| {
                    (0..others).for_each(|_| drop(script.deal("b", "", 0.0)));
                    dealt(&mut script, "a")
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(met(0), met(3));
    }

    #[test]
    fn a_share_is_seeded() {
        let hits = |seed| {
            let mut script = Script::new(seed);
            script.push(Rule { probability: 0.2, ..rule("*", "hit") });
            (0..1000).map(|_| dealt(&mut script, "a") == "hit").collect::<Vec<_>>()
        };
        assert_eq!(hits(1), hits(1));
        assert_ne!(hits(1), hits(2));
        assert!((150..250).contains(&hits(1).iter().filter(|h| **h).count()));
    }

    #[test]
    fn a_rule_holds_from_its_start_until_its_end_and_outages_go_first() {
        let mut script = Script::new(0);
        let at = |model: &str, start: f64, until: f64| Scope { model: model.into(), start, until: Some(until) };
        script.push(Rule { scope: at("*", 20.0, 30.0), outage: true, ..rule("*", "outage") });
        script.push(Rule { scope: at("a", 10.0, 40.0), ..rule("a", "window") });
        script.push(Rule { after: 1, scope: at("a", 15.0, 18.0), ..rule("a", "second of its time") });
        let mut at = |now: f64| script.deal("a", "", now).fault.name;
        let names = [0.0, 10.0, 15.0, 16.0, 19.0, 20.0, 29.9, 30.0, 40.0].map(&mut at);
        assert_eq!(names, ["ok", "window", "window", "second of its time", "window", "outage", "outage", "window", "ok"]);
    }

    #[test]
    fn a_pace_is_for_answers_and_not_for_errors() {
        use super::super::faults::{Kind, Status};
        let mut script = Script::new(0);
        let fixed = |seconds: f64| Spread::Fixed { seconds };
        let scope = |model: &str| Scope { model: model.into(), start: 0.0, until: None };
        script.pace(scope("a"), Pace { latency: fixed(1.0), first_token: fixed(2.0), per_token: fixed(0.5) });
        script.pace(scope("*"), Pace { latency: fixed(9.0), ..Pace::default() });
        let mut dealt = script.deal("a", "", 0.0);
        assert_eq!((dealt.latency, dealt.timing.first_token, dealt.timing.of(4)), (1.0, 2.0, 2.0));
        assert_eq!(script.deal("b", "", 0.0).latency, 9.0);
        let fault = Fault { kind: Kind::Status(Status::of(500, "", None)), ..Fault::ok() };
        script.push(Rule { fault, ..rule("a", "") });
        assert_eq!(script.deal("a", "", 0.0).latency, 0.0);
    }
}

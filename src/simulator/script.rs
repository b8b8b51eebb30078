//! Which request meets which fault: rules per model, counted and seeded.

use super::faults::Fault;
use crate::engine::Random;
use std::collections::VecDeque;

/// Requests of every model.
pub const EVERY_MODEL: &str = "*";

/// A fault for some requests.
#[derive(Clone, Debug)]
pub struct Rule {
    /// For this model, or [`EVERY_MODEL`].
    pub model: String,
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
}

/// All rules, each with a chance of its own: what happens to one model changes nothing for another.
pub struct Script {
    rules: VecDeque<(Rule, Random)>,
    seed: u64,
    made: u64,
}

impl Script {
    /// No rules.
    pub fn new(seed: u64) -> Script {
        Script { rules: VecDeque::new(), seed, made: 0 }
    }

    /// Adds a rule before those that are there.
    pub fn push(&mut self, rule: Rule) {
        self.made += 1;
        let random = Random::seeded(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.made));
        self.rules.push_front((rule, random));
    }

    /// Takes away a model's rules, or all.
    pub fn clear(&mut self, model: Option<&str>) {
        self.rules.retain(|(r, _)| model.is_some_and(|m| m != r.model));
    }

    /// The fault for a request, and its latency in seconds. Rules of the model itself come before those for all.
    pub fn deal(&mut self, model: &str, path: &str) -> (Fault, f64) {
        let mut dealt = None;
        for exact in [true, false] {
            for (rule, random) in &mut self.rules {
                let for_it = if exact { rule.model == model } else { rule.model == EVERY_MODEL && model != EVERY_MODEL };
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
                let (least, most) = rule.fault.latency;
                let latency = if most > least { least + (most - least) * random.unit() } else { least };
                dealt = Some((rule.fault.clone(), latency));
            }
        }
        self.rules.retain(|(r, _)| r.times != Some(0));
        dealt.unwrap_or_else(|| (Fault::ok(), 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(model: &str, name: &str) -> Rule {
        let fault = Fault { name: name.into(), ..Fault::ok() };
        Rule { model: model.into(), fault, times: None, probability: 1.0, path: None, after: 0 }
    }

    fn dealt(script: &mut Script, model: &str) -> String {
        script.deal(model, "chat/completions").0.name
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
                    (0..others).for_each(|_| drop(script.deal("b", "")));
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
}

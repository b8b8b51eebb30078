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

/// All rules, and the chance that they use.
pub struct Script {
    rules: VecDeque<Rule>,
    random: Random,
}

impl Script {
    /// No rules.
    pub fn new(seed: u64) -> Script {
        Script { rules: VecDeque::new(), random: Random::seeded(seed) }
    }

    /// Adds a rule before those that are there.
    pub fn push(&mut self, rule: Rule) {
        self.rules.push_front(rule);
    }

    /// Takes away a model's rules, or all.
    pub fn clear(&mut self, model: Option<&str>) {
        self.rules.retain(|r| model.is_some_and(|m| m != r.model));
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The fault for a request, and its latency in seconds. Rules of the model itself come before those for all.
    pub fn deal(&mut self, model: &str, path: &str) -> (Fault, f64) {
        let mut fault = Fault::ok();
        'found: for exact in [true, false] {
            for rule in &mut self.rules {
                let for_it = if exact { rule.model == model } else { rule.model == EVERY_MODEL };
                if !for_it || rule.times == Some(0) || rule.path.as_ref().is_some_and(|p| !path.contains(p.as_str())) {
                    continue;
                }
                if rule.after > 0 {
                    rule.after -= 1;
                    continue;
                }
                if rule.probability < 1.0 && self.random.unit() >= rule.probability {
                    continue;
                }
                if let Some(left) = &mut rule.times {
                    *left -= 1;
                }
                fault = rule.fault.clone();
                break 'found;
            }
        }
        self.rules.retain(|r| r.times != Some(0));
        let (least, most) = fault.latency;
        let latency = if most > least { least + (most - least) * self.random.unit() } else { least };
        (fault, latency)
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

//! The fixed shape of a guarded call: which policies, in which order, around which targets.

use super::lane::Way;
use super::layer::Policy;
use std::sync::Arc;

/// A place in a [`Plan`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StageId(pub u16);

/// What a leaf calls: a number whose meaning the driver knows. A whole word, as all that steps are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target(pub usize);

pub(super) enum Stage {
    Layer {
        policy: Arc<dyn Policy>,
        /// The first branch, which most have alone: it lies here, where each attempt looks for it.
        inner: StageId,
        others: Vec<StageId>,
    },
    /// The target, and whether calling it is an attempt.
    Leaf(Target, bool),
}

/// An immutable tree of policies with targets as leaves, shared by all executions.
pub struct Plan {
    pub(super) stages: Vec<Stage>,
    pub(super) root: StageId,
    /// The fast lane, if every policy on the primary's way has one.
    pub(super) way: Option<Way>,
}

impl Plan {
    /// How many branches are inside a stage.
    pub(super) fn branches(&self, stage: StageId) -> usize {
        match &self.stages[stage.0 as usize] {
            Stage::Layer { others, .. } => 1 + others.len(),
            Stage::Leaf(..) => 0,
        }
    }
}

/// Builds a [`Plan`] from the inside out.
#[derive(Default)]
pub struct PlanBuilder {
    stages: Vec<Stage>,
}

impl PlanBuilder {
    /// A call of `target`.
    pub fn leaf(&mut self, target: Target) -> StageId {
        self.push(Stage::Leaf(target, true))
    }

    /// An answer that is there already: giving it is no attempt.
    pub fn ready(&mut self, target: Target) -> StageId {
        self.push(Stage::Leaf(target, false))
    }

    /// `policy` around `inner`; more than one branch only for policies that choose between them.
    pub fn layer(&mut self, policy: Arc<dyn Policy>, mut inner: Vec<StageId>) -> StageId {
        assert!(!inner.is_empty(), "a layer needs something inside");
        let others = inner.split_off(1);
        self.push(Stage::Layer { policy, inner: inner[0], others })
    }

    /// The plan whose outermost stage is `root`.
    pub fn build(self, root: StageId) -> Arc<Plan> {
        let way = Way::along(&self.stages, root);
        Arc::new(Plan { stages: self.stages, root, way })
    }

    fn push(&mut self, stage: Stage) -> StageId {
        let id = StageId(u16::try_from(self.stages.len()).expect("fewer than 65,536 stages"));
        self.stages.push(stage);
        id
    }
}

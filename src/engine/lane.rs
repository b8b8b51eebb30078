//! The fast lane: a call that meets no trouble builds no machine.
//!
//! The policies on the primary's way are asked for permits; a success gives them back. Whatever else happens, a refusal,
//! a failure, a wait, a stream, is the machine's: [`Execution::resume`](super::Execution::resume) builds it from the
//! permits already taken, as if it had been there from the beginning.

use super::layer::{Lane, Policy};
use super::plan::{Plan, Stage, StageId};
use super::time::Instant;
use std::cell::Cell;
use std::sync::Arc;

/// So many policies on a way may be watched; more are left to the machine.
const WATCHED: usize = 3;

/// The primary's way through a plan.
pub struct Way {
    /// The policies that want to be asked, outermost first.
    watched: Box<Watched>,
}

impl Way {
    /// The way from the root to the primary, if it is open to all that pass it.
    pub(super) fn along(stages: &[Stage], root: StageId) -> Option<Way> {
        let mut watched = Vec::new();
        let mut at = root;
        while let Stage::Layer { policy, inner, .. } = &stages[at.0 as usize] {
            match policy.lane() {
                Lane::Machine => return None,
                Lane::Free => {}
                Lane::Watched => watched.push((at, policy.clone())),
            }
            at = *inner;
        }
        (watched.len() <= WATCHED).then(|| Way { watched: watched.into() })
    }
}

/// A call on the fast lane: when it began and the permits it holds. Written where it lies: one that is handed over as a value is written
/// in pieces and read whole, and the processor waits in between.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    pub(super) begun: Instant,
    permits: [u64; WATCHED],
    taken: u32,
}

impl Pass {
    /// Of a call that begins now and holds nothing.
    #[inline]
    pub fn new(begun: Instant) -> Pass {
        Pass { begun, permits: [0; WATCHED], taken: 0 }
    }

    /// When the call began.
    #[inline]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The permits taken, outermost first.
    #[inline]
    pub(super) fn permits(&self) -> &[u64] {
        &self.permits[..(self.taken as usize).min(WATCHED)]
    }
}

impl Way {
    /// Asks the policies on the way, outermost first, until one refuses. `true`: the call may go ahead; `false`: the machine has to go
    /// on from here.
    #[inline]
    pub fn admit(&self, pass: &mut Pass) -> bool {
        match &*self.watched {
            [] => true,
            [(_, policy)] => match policy.admit(pass.begun) {
                Some(permit) => {
                    (pass.permits[0], pass.taken) = (permit, 1);
                    true
                }
                None => false,
            },
            watched => admit_all(watched, pass),
        }
    }

    /// Settles a success of a call that all let in, innermost first. `false`: nothing has changed, and the machine has to settle it.
    #[inline]
    pub fn settle(&self, pass: &Pass, now: &dyn Fn() -> Instant) -> bool {
        match &*self.watched {
            [] => true,
            [(_, policy)] => policy.settle(pass.permits[0], pass.begun, now),
            watched => settle_all(watched, pass, now),
        }
    }
}

impl Plan {
    /// The way of calls that meet no trouble, if there is one.
    #[inline]
    pub fn way(&self) -> Option<&Way> {
        self.way.as_ref()
    }

    /// The caller went away: permits back, no evidence.
    pub fn release(&self, pass: &Pass) {
        let Some(way) = &self.way else { return };
        for ((_, policy), permit) in way.watched.iter().zip(pass.permits()).rev() {
            policy.release(*permit);
        }
    }

    /// Whether the lane asks the policy at that stage.
    pub(super) fn watches(&self, stage: StageId) -> bool {
        self.way.as_ref().is_some_and(|way| way.watched.iter().any(|(at, _)| *at == stage))
    }
}

type Watched = [(StageId, Arc<dyn Policy>)];

#[inline(never)] // most ways have one policy that is asked, and need no loop
fn admit_all(watched: &Watched, pass: &mut Pass) -> bool {
    for ((_, policy), place) in watched.iter().zip(&mut pass.permits) {
        match policy.admit(pass.begun) {
            Some(permit) => *place = permit,
            None => return false,
        }
        pass.taken += 1;
    }
    true
}

/// All or none: a policy that has settled cannot take it back.
#[inline(never)]
fn settle_all(watched: &Watched, pass: &Pass, now: &dyn Fn() -> Instant) -> bool {
    // Read once, if at all: all policies judge and settle by the same time.
    let read = Cell::new(None);
    let now = || {
        let time = read.get().unwrap_or_else(now);
        read.set(Some(time));
        time
    };
    if !watched.iter().all(|(_, policy)| policy.is_plain(pass.begun, &now)) {
        return false;
    }
    for ((_, policy), permit) in watched.iter().zip(pass.permits()).rev() {
        policy.settle(*permit, pass.begun, &now);
    }
    true
}

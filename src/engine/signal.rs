//! The way from one call to another: what a policy gives to the execution that waits for it.

use super::sync::{Mutex, MutexGuard};
use std::sync::PoisonError;
use std::task::Waker;

/// What wakes a call that waits for another one: for its permit, its place in a queue, its answer.
///
/// A layer takes it from [`Cx::listen`](super::Cx::listen) and leaves it with the policy's shared state; whoever has something
/// for that call gives the signal, from any thread and with no lock held. The execution then hands
/// [`Input::Wake`](super::Input::Wake) to its layers that listen. It says that something has changed, not what, and may be
/// given for nothing: whoever is woken looks for itself.
#[derive(Debug)]
pub struct Signal(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Given and not noticed yet.
    given: bool,
    /// Who drives the execution and waits.
    driver: Option<Waker>,
}

impl Signal {
    /// One that was not given.
    pub(super) fn new() -> Signal {
        Signal(Mutex::new(State::default()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it. What is given before anybody waits is not lost.
    pub fn give(&self) {
        let driver = {
            let mut state = self.state();
            state.given = true;
            state.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// For a driver that is about to wait: wakes `driver` when the signal is given. `true`: it was given already, and there
    /// is nothing to wait for.
    #[must_use]
    pub fn listen(&self, driver: &Waker) -> bool {
        let before = {
            let mut state = self.state();
            if state.given {
                return true;
            }
            // The same one most often: a task that is polled again.
            match &mut state.driver {
                Some(before) if before.will_wake(driver) => None,
                before => before.replace(driver.clone()),
            }
        };
        drop(before); // outside the lock: it may be anybody's
        false
    }

    /// Whether it was given since this was last asked.
    pub(super) fn take(&self) -> bool {
        std::mem::take(&mut self.state().given)
    }
}

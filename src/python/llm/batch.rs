//! Batches: what is to be done, by whom, and what came of it.

use super::extras::Checked;
use super::finished::Finished;
use super::route::{Route, run};
use crate::engine::Instant;
use crate::llm::client::Client;
use crate::llm::interrupt::OnInterrupt;
use crate::llm::order::{Order, Task};
use crate::llm::route::Route as Core;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::task::JoinSet;

/// What each call of a batch is made with.
#[derive(Clone)]
pub struct Call {
    pub core: Arc<Core>,
    pub client: Client,
    pub deadline: Instant,
}

/// What a batch has to do, for those who do it: each takes the next order until there are none.
pub struct Work {
    pub orders: Vec<Arc<Order>>,
    next: AtomicUsize,
    /// In the order of the orders.
    results: Mutex<Vec<Option<Finished>>>,
}

impl Work {
    pub fn lock(&self) -> MutexGuard<'_, Vec<Option<Finished>>> {
        self.results.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Carries them all out, so many at a time. Whoever drops it cuts those under way.
    pub async fn carry_out(self: Arc<Work>, at_a_time: Option<usize>, call: Call) {
        let mut workers = JoinSet::new();
        for _ in 0..at_a_time.unwrap_or(usize::MAX).clamp(1, self.orders.len().max(1)) {
            workers.spawn(self.clone().work(call.clone()));
        }
        while workers.join_next().await.is_some() {}
    }

    async fn work(self: Arc<Work>, Call { core, client, deadline }: Call) {
        while let at = self.next.fetch_add(1, Ordering::Relaxed)
            && let Some(order) = self.orders.get(at)
        {
            let finished = run(core.clone(), order.clone(), client.clone(), deadline).await;
            self.lock()[at] = Some(finished);
        }
    }
}

/// A batch: what was refused of it before anything was sent, each at its place, and how many are to be sent.
pub struct Batch {
    refused: Vec<Option<PyErr>>,
    orders: Vec<Arc<Order>>,
}

impl Batch {
    /// With `lenient` what cannot be sent is its own result.
    pub fn new(
        route: &Route,
        task: Task,
        contents: &[Bound<'_, PyAny>],
        params: Option<&Bound<'_, PyDict>>,
        extras: &Checked,
        lenient: bool,
    ) -> PyResult<Batch> {
        let mut batch = Batch { refused: Vec::with_capacity(contents.len()), orders: Vec::with_capacity(contents.len()) };
        for (at, content) in contents.iter().enumerate() {
            let order = match content.is_instance_of::<PyBaseException>() {
                true => Err(PyErr::from_value(content.clone())),
                false => route.order_at(&format!("inputs[{at}]"), task, content, params, extras.of_call(at), OnInterrupt::Error),
            };
            batch.refused.push(match order {
                Ok(order) => {
                    batch.orders.push(order);
                    None
                }
                Err(error) if lenient => Some(error),
                Err(error) => return Err(error),
            });
        }
        Ok(batch)
    }

    /// The work that it is, and what was refused.
    pub fn work(self) -> (Arc<Work>, Vec<Option<PyErr>>) {
        let results = (0..self.orders.len()).map(|_| None).collect();
        (Arc::new(Work { orders: self.orders, next: AtomicUsize::new(0), results: Mutex::new(results) }), self.refused)
    }
}

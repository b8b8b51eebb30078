//! `Hedge`.

use crate::drive::clock;
use crate::policies::hedge::{self as core, Config, Delay, Hedged};
use crate::python::convert::{self, quoted};
use crate::python::errors::{configuration, ours, picture};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use std::sync::Arc;
use std::time::Duration;

/// Ask once more where an answer takes long: the first that comes is the answer, and the others are given up.
///
/// ```python
/// @seawall.Pipeline(seawall.Hedge(percentile=0.95))
/// async def ask(question): ...
/// ```
///
/// `delay` is the seconds without an answer after which the call is made once more, beside the one under way; or `percentile` (0.95 where
/// neither is given), the share of attempts, between 0 and 1, that answer in time: the delay is then what these took, learnt from the last one
/// to two thousand attempts, or those of the last minutes where they are fewer. Until `minimum_calls` attempts (20) are known it
/// is `initial_delay` seconds (default: nothing is hedged until then), and never less than `min_delay` (0.001).
///
/// A call is made at most `max_hedges` times more (1), and at most the share `budget` of the calls is (0.05; ten are saved up), each further request
/// counted. Policies inside of it see each request; one that they turn away is no hedge. Those that are given up are no evidence for breakers.
///
/// **What is guarded runs more than once for one call**, at the same time: it must be safe to repeat. Plain functions
/// run on threads of their own, in copies of the caller's context; what is given up there runs on to its end, and its result is dropped.
///
/// A Hedge is shared state: used in two pipelines, it is one; `copy` and `deepcopy` give the object itself. It pickles by its
/// arguments: where it came from it is found again, in another process it is made anew, once.
/// `name` is its name in events and metrics.
///
/// Raises `ConfigurationError` for arguments that make no hedge.
#[pyclass(frozen, module = "seawall", subclass, weakref)]
pub struct Hedge {
    pub core: Arc<core::Hedge>,
    /// Its name in errors, events and metrics; `None` for none.
    #[pyo3(get)]
    pub name: Option<String>,
    /// Finds it again when it is unpickled where it came from.
    #[pyo3(get, name = "_identity")]
    identity: u64,
}

/// A share between 0 and 1, neither of them.
fn between(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    match convert::share(argument, value) {
        Ok(share) if share < 1.0 => Ok(share),
        Err(error) if convert::number(value).is_none() => Err(error),
        _ => Err(convert::value_error(argument, value, "a share, more than 0 and less than 1, as 0.95")),
    }
}

#[pymethods]
impl Hedge {
    #[new]
    #[pyo3(signature = (delay=None, *, percentile=None, minimum_calls=None, initial_delay=None, min_delay=None, max_hedges=None,
                        budget=None, name=None),
           text_signature = "(delay=None, *, percentile=None, minimum_calls=20, initial_delay=None, min_delay=0.001, max_hedges=1, \
                             budget=0.05, name=None)")]
    #[allow(clippy::too_many_arguments)] // one per keyword argument
    fn new(
        py: Python<'_>,
        delay: Option<&Bound<'_, PyAny>>,
        percentile: Option<&Bound<'_, PyAny>>,
        minimum_calls: Option<&Bound<'_, PyAny>>,
        initial_delay: Option<&Bound<'_, PyAny>>,
        min_delay: Option<&Bound<'_, PyAny>>,
        max_hedges: Option<&Bound<'_, PyAny>>,
        budget: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Hedge> {
        let delay = convert::optional("delay", delay, convert::finite_positive_seconds)?;
        let share = convert::optional("percentile", percentile, between)?;
        let delay = match (delay, share) {
            (Some(_), Some(_)) => return Err(configuration(py, "delay and percentile are two ways to say when: give one of them")),
            (Some(delay), None) => {
                let learnt = [("minimum_calls", minimum_calls), ("initial_delay", initial_delay), ("min_delay", min_delay)];
                if let Some((argument, _)) = learnt.iter().find(|(_, value)| value.is_some_and(|value| !value.is_none())) {
                    return Err(configuration(
                        py,
                        &format!("{argument} is about a delay that is learnt: it needs percentile=, not delay="),
                    ));
                }
                Delay::Fixed(delay)
            }
            (None, share) => Delay::Percentile {
                share: share.unwrap_or(0.95),
                minimum_calls: convert::optional("minimum_calls", minimum_calls, |a, v| convert::count(a, v, 1))?.unwrap_or(20),
                initial: convert::optional("initial_delay", initial_delay, convert::finite_positive_seconds)?,
                floor: convert::optional("min_delay", min_delay, convert::finite_seconds)?.unwrap_or(Duration::from_millis(1)),
            },
        };
        let max_hedges = convert::optional("max_hedges", max_hedges, |a, v| convert::count(a, v, 1))?.unwrap_or(1);
        let budget = convert::optional("budget", budget, convert::portion)?.unwrap_or(0.05);
        let name = convert::optional("name", name, convert::text)?;
        let core = Arc::new(core::Hedge::new(Config { delay, max_hedges, budget }));
        Ok(Hedge { core, name, identity: clock::seed() })
    }

    /// The seconds without an answer after which it would ask once more now; `None` while nothing is hedged.
    #[getter]
    fn delay(&self) -> Option<f64> {
        self.core.delay().map(|delay| delay.as_secs_f64())
    }

    /// The share of attempts that answer within the delay; `None` where that is fixed.
    #[getter]
    fn percentile(&self) -> Option<f64> {
        match self.core.config().delay {
            Delay::Fixed(_) => None,
            Delay::Percentile { share, .. } => Some(share),
        }
    }

    /// Further requests of one call, at most.
    #[getter]
    fn max_hedges(&self) -> u32 {
        self.core.config().max_hedges
    }

    /// The share of the calls that may be hedged.
    #[getter]
    fn budget(&self) -> f64 {
        self.core.config().budget
    }

    /// What it has done so far, in all pipelines, as a dict: `calls` that came to it, `hedges` that were made, answers that came
    /// from one of these (`wins`), and hedges that the budget had no room for (`denied`).
    #[getter]
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let totals = self.core.totals();
        let told = PyDict::new(py);
        for (name, count) in [("calls", totals.calls), ("hedges", totals.hedges), ("wins", totals.wins), ("denied", totals.denied)] {
            told.set_item(name, count)?;
        }
        Ok(told)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static REDUCED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, this) = (slf.py(), slf.get());
        let said = PyDict::new(py);
        let delay = match this.core.config().delay {
            Delay::Fixed(delay) => Some(delay.as_secs_f64()),
            Delay::Percentile { share, minimum_calls, initial, floor } => {
                said.set_item("percentile", share)?;
                said.set_item("minimum_calls", minimum_calls)?;
                said.set_item("initial_delay", initial.map(|initial| initial.as_secs_f64()))?;
                said.set_item("min_delay", floor.as_secs_f64())?;
                None
            }
        };
        said.set_item("max_hedges", this.max_hedges())?;
        said.set_item("budget", this.budget())?;
        said.set_item("name", this.name.as_deref())?;
        ours(py, &REDUCED, "seawall._limits", "reduced")?.call1((slf, (delay,), said))
    }

    fn __copy__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let config = self.core.config();
        let mut parts = vec![match config.delay {
            Delay::Fixed(delay) => delay.as_secs_f64().to_string(),
            Delay::Percentile { share, .. } => format!("percentile={share}"),
        }];
        if config.max_hedges != 1 {
            parts.push(format!("max_hedges={}", config.max_hedges));
        }
        parts.push(format!("budget={}", config.budget));
        parts.extend(self.name.as_ref().map(|name| format!("name={}", quoted(py, name))));
        let totals = self.core.totals();
        let plural = if totals.hedges == 1 { "" } else { "s" };
        format!("<Hedge({}): {} hedge{plural} in {} calls>", parts.join(", "), totals.hedges, totals.calls)
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "hedge")
    }
}

impl Hedge {
    pub fn policy(&self) -> Hedged {
        Hedged(self.core.clone())
    }
}

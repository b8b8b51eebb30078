//! Rules, silences and what time alone brings: the native side of `seawall._rules`, `seawall._silence` and `seawall._alarms`.

use super::convert;
use super::errors::{configuration, ours};
use super::monitor::{Monitor, publish};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::drive::clock;
use crate::engine::Instant;
use crate::monitor::{METRICS, Metric, Rule, Rules, Unit};

/// When the alarm rings that is set for a monitor.
pub struct Alarm(AtomicU64);

impl Alarm {
    /// None is set.
    pub fn unset() -> Alarm {
        Alarm(AtomicU64::new(Instant::NEVER.0))
    }
}

/// A rule on its way to and from Python: metric, limits, minimum, clear, hold and clear_hold in seconds.
pub type Given = (String, [f64; 3], u64, f64, f64, f64);

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Share => "share",
        Unit::Seconds => "seconds",
        Unit::Calls => "calls",
        Unit::Number => "number",
    }
}

/// Adds the table of metrics: name, unit, whether low is bad, limits, minimum.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let rows = METRICS.each_ref().map(|row| (row.name, unit(row.unit), row.is_low_bad, row.limits, row.minimum));
    m.add("METRICS", rows.to_vec())
}

/// The usual rules, and in place of those the ones that Python gives.
pub fn rules(py: Python<'_>, given: Option<&Bound<'_, PyAny>>, remind_every: Option<&Bound<'_, PyAny>>) -> PyResult<Rules> {
    let mut rules = Rules::default();
    rules.remind_every = convert::optional("remind_every", remind_every, convert::positive_seconds)?;
    if let Some(given) = given.filter(|given| !given.is_none()) {
        static NATIVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let rows = ours(py, &NATIVE, "seawall._rules", "native")?.call1((given,))?;
        put(&mut rules, rows.extract()?)?;
    }
    be_ready(py, &rules)?;
    Ok(rules)
}

/// What will set alarms has what that takes loaded now, and not in some call's way.
pub fn be_ready(py: Python<'_>, rules: &Rules) -> PyResult<()> {
    let holds = |metric| !(rules.of(metric).hold.is_zero() && rules.of(metric).clear_hold.is_zero());
    match rules.remind_every.is_some() || Metric::all().any(holds) {
        true => py.import("seawall._alarms").map(drop),
        false => Ok(()),
    }
}

/// Puts the rules in the places of those of their metrics.
pub fn put(rules: &mut Rules, given: Vec<Given>) -> PyResult<()> {
    for (name, limits, minimum, clear, hold, clear_hold) in given {
        let Some(metric) = Metric::named(&name) else { continue };
        let span = |seconds: f64| Duration::from_secs_f64(seconds.min(convert::LONGEST));
        rules.set(metric, Rule { limits, minimum, clear, hold: span(hold), clear_hold: span(clear_hold) });
    }
    Ok(())
}

/// The rules that have any limit.
pub fn given(rules: &Rules) -> Vec<Given> {
    let row = |metric: Metric| {
        let rule = rules.of(metric);
        let spans = (rule.hold.as_secs_f64(), rule.clear_hold.as_secs_f64());
        (metric.name().to_owned(), rule.limits, rule.minimum, rule.clear, spans.0, spans.1)
    };
    Metric::all().map(row).filter(|row| row.1.iter().any(|limit| limit.is_finite())).collect()
}

/// The same as `seawall.Rule`s.
pub fn shown<'py>(py: Python<'py>, rules: &Rules) -> PyResult<Bound<'py, PyAny>> {
    static SHOWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(py, &SHOWN, "seawall._rules", "shown_rules")?.call1((given(rules),))
}

/// Begins a silence.
pub fn silence<'py>(
    monitor: &Bound<'py, Monitor>,
    duration: Option<&Bound<'py, PyAny>>,
    until: Option<&Bound<'py, PyAny>>,
    reason: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    static BEGIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = monitor.py();
    let reason = convert::optional("reason", reason, convert::text)?;
    let begin = ours(py, &BEGIN, "seawall._silence", "Silence")?;
    let seconds = match (duration, until) {
        (Some(duration), None) => convert::positive_seconds("duration", duration)?.as_secs_f64(),
        (None, Some(until)) => begin.call_method1("_span", (until,))?.extract()?,
        _ => return Err(configuration(py, "silence needs either a duration or until=, and not both")),
    };
    let now = clock::now();
    let end = now.after(Duration::from_secs_f64(seconds.min(convert::LONGEST)));
    let core = monitor.get().core();
    let id = core.silence(end, reason.clone());
    keep_watch(monitor, now)?;
    begin.call1((monitor, id, end.0, reason))
}

/// The silences that last.
pub fn silences<'py>(monitor: &Bound<'py, Monitor>) -> PyResult<Bound<'py, PyList>> {
    static SILENCE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = monitor.py();
    let class = ours(py, &SILENCE, "seawall._silence", "Silence")?;
    let list = PyList::empty(py);
    for silence in monitor.get().core().silences(clock::now()) {
        list.append(class.call1((monitor, silence.id, silence.until.0, silence.reason))?)?;
    }
    Ok(list)
}

/// Ends a silence and tells what it held back.
pub fn end_silence(monitor: &Bound<'_, Monitor>, id: u64) -> PyResult<bool> {
    let was_on = monitor.get().core().end_silence(id);
    catch_up(monitor)?;
    Ok(was_on)
}

/// Tells what time alone has brought until now.
pub fn catch_up(monitor: &Bound<'_, Monitor>) -> PyResult<()> {
    let now = clock::now();
    if monitor.get().core().due() <= now {
        tell(monitor, now)?;
    }
    keep_watch(monitor, now)
}

fn tell(monitor: &Bound<'_, Monitor>, now: Instant) -> PyResult<()> {
    let told = monitor.get().core().tick(now, clock::unix(now));
    told.iter().try_for_each(|alert| publish(monitor.py(), monitor.get(), alert))
}

/// Whether something is to be told before the alarm that is set rings. After each record: a load or two.
#[inline]
pub fn is_unwatched(monitor: &Monitor) -> bool {
    let due = monitor.core().due();
    due != Instant::NEVER && due.0 < monitor.alarm().0.load(Ordering::Relaxed)
}

/// Tells what is due already, and has an alarm set for what is not.
#[cold]
pub fn keep_watch(monitor: &Bound<'_, Monitor>, now: Instant) -> PyResult<()> {
    static ARM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let this = monitor.get();
    if this.core().due() <= now {
        tell(monitor, now)?;
    }
    if is_unwatched(this) {
        let due = this.core().due();
        this.alarm().0.store(due.0, Ordering::Relaxed);
        ours(monitor.py(), &ARM, "seawall._alarms", "arm")?.call1((monitor, due.0))?;
    }
    Ok(())
}

/// The alarm has rung, or is gone with the process that set it.
pub fn rung(monitor: &Bound<'_, Monitor>) {
    monitor.get().alarm().0.store(Instant::NEVER.0, Ordering::Relaxed);
}

//! A function behind a pipeline: the fast lane, and the way into the machine for whatever meets trouble on it.

use super::async_generator::AsyncGenerator;
use super::bare;
use super::compiled::Compiled;
use super::coroutine::Coroutine;
use super::errors::picture;
use super::event_loop;
use super::flight::{Flight, Way};
use super::generator::Generator;
use super::inline::Inline;
use super::lent::Lent;
use super::log;
use super::monitor;
use super::pipeline::Pipeline;
use super::policies::circuit_breaker::{CircuitBreaker, short_repr};
use super::race::Race;
use super::railed::restoring;
use super::raised::Raised;
use super::remaining;
use super::running::Running;
use super::sdk_stream::{self, Desk};
use super::slots;
use super::stack;
use super::story::Story;
use super::trace;
use crate::drive::clock;
use crate::drive::inline::{self, End};
use crate::engine::{CallId, Execution, Instant, Outcome, Pass, Target, Way as Lane};
use crate::telemetry;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function behind a pipeline. Looks to `inspect` like the function.
#[pyclass(frozen, module = "seawall", dict, weakref)]
pub struct Guarded {
    vectorcall: ffi::vectorcallfunc,
    function: Py<PyAny>,
    pipeline: Py<Pipeline>,
    compiled: Compiled,
    way: Way,
}

/// What a plain function may give that has still to be run: its policies see the end of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    Coroutine,
    Generator,
    AsyncGenerator,
    /// A stream object of an SDK.
    Stream,
    AsyncStream,
}

/// Whether a result has still to be run.
#[inline]
pub fn has_to_run(value: &Bound<'_, PyAny>) -> Option<Given> {
    // SAFETY: reads the type of a live object.
    unsafe { to_run(value.as_ptr()) }
}

#[inline]
unsafe fn to_run(value: *mut ffi::PyObject) -> Option<Given> {
    // SAFETY: the caller's promise: a live object.
    let kind = unsafe { ffi::Py_TYPE(value) };
    // Numbers, strings, dicts and their like have none of this; generators have, for `send`.
    // SAFETY: the type of a live object.
    if unsafe { (*kind).tp_as_async }.is_null() {
        return None;
    }
    let is_ours = |ours: &AtomicPtr<ffi::PyTypeObject>| kind == ours.load(Ordering::Relaxed);
    if kind == &raw mut ffi::PyGen_Type {
        // SAFETY: the interpreter's lock is held where a result is looked at; a live object.
        let generator = unsafe { Borrowed::from_ptr(Python::assume_attached(), value) };
        Some(if event_loop::is_marked(&generator) { Given::Coroutine } else { Given::Generator })
    } else if is_ours(&OURS[0]) {
        Some(Given::Generator)
    } else if kind == &raw mut ffi::PyCoro_Type || is_ours(&OURS[1]) {
        Some(Given::Coroutine)
    } else if kind == &raw mut ffi::PyAsyncGen_Type || is_ours(&OURS[2]) {
        Some(Given::AsyncGenerator)
    } else {
        // SAFETY: a live object.
        unsafe { sdk_stream::given(value) }
    }
}

/// The types of what a guarded function inside gives. They live as long as the module, which is never unloaded.
static OURS: [AtomicPtr<ffi::PyTypeObject>; 3] = [const { AtomicPtr::new(null_mut()) }; 3];

/// Makes our own types known to [`has_to_run`].
pub fn know_ours(py: Python<'_>) {
    let types = [py.get_type::<Generator>(), py.get_type::<Coroutine>(), py.get_type::<AsyncGenerator>()];
    for (place, kind) in OURS.iter().zip(types) {
        place.store(kind.as_type_ptr(), Ordering::Relaxed);
    }
}

#[pymethods]
impl Guarded {
    /// What has become of its calls, as a dict: `calls` begun, `successes`, `failures`, `attempts` of all targets,
    /// `retries`, answers of `fallbacks`, seconds `waited` between attempts; and of the last call that did not simply pass
    /// `last_attempts`, `last_seconds` and the type of its error, `last_error`. Cancelled calls are neither success nor
    /// failure.
    #[getter]
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.compiled.tally.told(py)
    }

    /// The story of its last call that did not simply pass: the steps of its policies, and `attempts`; `None` if all did.
    #[getter]
    fn story(&self, py: Python<'_>) -> PyResult<Option<Py<Story>>> {
        self.compiled.tally.story(py, || self.compiled.labels().cloned())
    }

    /// The pipeline that guards it.
    #[getter]
    fn pipeline(&self, py: Python<'_>) -> Py<Pipeline> {
        self.pipeline.clone_ref(py)
    }

    // Gives the type its `__call__`; calls themselves come in by the vectorcall slot.
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, flight) = (slf.py(), Guarded::flight(slf, args, kwargs));
        match slf.get().way {
            Way::Sync => fly(py, flight),
            way => waiting(py, flight, way),
        }
    }

    // Gives the type its `__get__`; binding itself comes in by the slot.
    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        instance: Option<&Bound<'py, PyAny>>,
        _owner: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let instance = instance.map_or(null_mut(), Bound::as_ptr);
        // SAFETY: both are live objects of this call.
        unsafe { Bound::from_owned_ptr_or_err(slf.py(), bind(slf.as_ptr(), instance, null_mut())) }
    }

    // Copied and pickled as functions are: it is itself, and found again by its name.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.getattr(intern!(slf.py(), "__qualname__"))
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "guarded")
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<guarded {} by {}>", short_repr(self.function.bind(py)), self.pipeline.get().__repr__(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        // The pipeline tells of what `compiled` shares with it; the monitor is held once more.
        visit.call(&self.compiled.monitor)?;
        visit.call(&self.pipeline)
    }
}

impl Guarded {
    /// Where the type's slot points.
    pub fn vectorcall(&self) -> &ffi::vectorcallfunc {
        &self.vectorcall
    }

    /// What is guarded.
    pub fn function<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.function.bind(py)
    }

    /// What its pipeline was made into, with its own counts.
    #[inline]
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// A call for the machine.
    pub fn flight<'py>(slf: &Bound<'py, Self>, args: &Bound<'py, PyTuple>, kwargs: Option<&Bound<'py, PyDict>>) -> Flight {
        Flight::new(Lent::by(slf, Guarded::compiled), slf.get().function.bind(slf.py()), args, kwargs)
    }

    /// An instance that shows where its fields lie.
    pub fn sample(py: Python<'_>) -> PyResult<Bound<'_, Guarded>> {
        let pipeline = Pipeline::of(py, Vec::new(), None)?;
        let compiled = pipeline.get().compiled().anew(py, "");
        slots::made(py, Guarded { vectorcall, function: py.None(), pipeline, compiled, way: Way::Sync })
    }
}

/// A function behind a pipeline.
#[pyfunction]
pub fn guarded<'py>(py: Python<'py>, pipeline: Py<Pipeline>, function: Py<PyAny>, name: &str, kind: &str) -> PyResult<Bound<'py, Guarded>> {
    let compiled = pipeline.get().compiled().anew(py, &short_repr(function.bind(py)));
    for stage in &compiled.stages {
        if let Some(breaker) = &stage.breaker {
            CircuitBreaker::guards(breaker.bind(py), compiled.name.as_deref().unwrap_or(name))?;
        }
    }
    let way = match kind {
        "function" => Way::Sync,
        "coroutine" => Way::Async,
        "generator" => Way::Items,
        "async generator" => Way::AsyncItems,
        other => return Err(PyValueError::new_err(format!("a function's kind is none of '{other}'"))),
    };
    if matches!(way, Way::Sync | Way::Items) {
        compiled.only_sync(py, name)?;
    }
    slots::made(py, Guarded { vectorcall, function, pipeline, compiled, way })
}

unsafe extern "C" {
    // Of CPython's classobject.h; pyo3 declares it nowhere.
    fn PyMethod_New(function: *mut ffi::PyObject, instance: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// Binds as functions do.
pub unsafe extern "C" fn bind(slf: *mut ffi::PyObject, instance: *mut ffi::PyObject, _owner: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter hands in live objects.
    unsafe {
        if instance.is_null() || instance == ffi::Py_None() {
            return ffi::Py_NewRef(slf);
        }
        PyMethod_New(slf, instance)
    }
}

/// Arguments as the interpreter hands them over.
pub struct Handed {
    args: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
}

impl Handed {
    /// As a tuple and a dict, for whoever may need them again.
    pub fn keep<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
        // SAFETY: the interpreter's promise: `count` positional ones, then one for each name.
        unsafe {
            let at = |i: usize| Borrowed::from_ptr(py, *self.args.add(i));
            let args = Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(self.count as ffi::Py_ssize_t))?.cast_into_unchecked::<PyTuple>();
            for i in 0..self.count {
                ffi::PyTuple_SET_ITEM(args.as_ptr(), i as ffi::Py_ssize_t, ffi::Py_NewRef(*self.args.add(i)));
            }
            if self.names.is_null() {
                return Ok((args, None));
            }
            let kwargs = PyDict::new(py);
            for (i, name) in Borrowed::from_ptr(py, self.names).cast_unchecked::<PyTuple>().iter_borrowed().enumerate() {
                kwargs.set_item(name, at(self.count + i))?;
            }
            Ok((args, Some(kwargs)))
        }
    }
}

unsafe extern "C" fn vectorcall(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    slots::guarded(null_mut(), || {
        if stack::is_used_up() {
            slots::raise(stack::used_up());
            return null_mut();
        }
        // SAFETY: the slot is that of this type, and the caller holds the callable.
        let guarded = unsafe { slots::contents::<Guarded>(callable) };
        // SAFETY: a count with a flag in it, as the protocol has it.
        let handed = || Handed { args, count: unsafe { ffi::PyVectorcall_NARGS(nargsf) } as usize, names };
        let function = guarded.function.as_ptr();
        // SAFETY: hands on what the interpreter handed in, unchanged. Calls the slot itself where there is one: the
        // interpreter checks what we return as it would what that does.
        let call = move || unsafe {
            match slots::vectorcall_of(function) {
                Some(vectorcall) => vectorcall(function, args, nargsf, names),
                None => ffi::PyObject_Vectorcall(function, args, nargsf, names),
            }
        };
        match guarded.way {
            Way::Sync => run(callable, guarded, handed, call),
            Way::Async => begin(callable, &handed(), call),
            way => stream(callable, &handed(), way),
        }
    })
}

/// A synchronous call. The fast lane owns no reference that pyo3 would have to count.
#[inline]
fn run(
    callable: *mut ffi::PyObject,
    guarded: &Guarded,
    handed: impl Fn() -> Handed,
    call: impl FnOnce() -> *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let compiled = &guarded.compiled;
    let Some(lane) = compiled.lane().filter(|_| !trace::is_on()) else {
        return trouble(callable, &handed(), None, None);
    };
    let mut pass = Pass::new(clock::now());
    if !lane.admit(&mut pass) {
        return trouble(callable, &handed(), Some(&pass), None);
    }
    let value = match compiled.tightest {
        None => call(),
        // SAFETY: the interpreter calls with its lock held, and lets nothing go here.
        Some(_) => unsafe {
            let py = Python::assume_attached();
            remaining::within(py, compiled.deadline(py, &pass), call)
        },
    };
    // SAFETY: not null, so a live object.
    let plain = !value.is_null() && unsafe { to_run(value) }.is_none();
    if !plain {
        return trouble(callable, &handed(), Some(&pass), Some(value));
    }
    match settle(compiled, lane, &pass) {
        Ok(true) => value,
        Ok(false) => trouble(callable, &handed(), Some(&pass), Some(value)),
        Err(interrupt) => {
            // SAFETY: the reference was ours.
            unsafe { ffi::Py_DECREF(value) };
            slots::raise(*interrupt);
            null_mut()
        }
    }
}

/// Settles a success on the fast lane and tells the monitor; `false`: the machine has to do both. An error is an interrupt
/// that came while an alert was told.
#[inline(always)] // twice in the program, and most of what a call costs
pub fn settle(compiled: &Compiled, lane: &Lane, pass: &Pass) -> Result<bool, Box<PyErr>> {
    let Some(watch) = &compiled.monitor else {
        if telemetry::is_on() {
            return heard(compiled, lane, pass);
        }
        let settled = lane.settle(pass, &clock::now);
        if settled {
            compiled.tally.pass();
        }
        return Ok(settled);
    };
    let now = clock::now();
    if !lane.settle(pass, &|| now) {
        return Ok(false);
    }
    compiled.tally.pass();
    let latency_ns = now.0.saturating_sub(pass.begun().0);
    if telemetry::is_on() {
        telemetry::passed(clock::unix(pass.begun()), latency_ns, compiled.source);
    }
    monitor::passed(watch, latency_ns, now, compiled.source).map(|()| true)
}

/// The same without a monitor, where all calls are told.
#[cold]
fn heard(compiled: &Compiled, lane: &Lane, pass: &Pass) -> Result<bool, Box<PyErr>> {
    let now = clock::now();
    let settled = lane.settle(pass, &|| now);
    if settled {
        compiled.tally.pass();
    }
    if settled && !log::is_our_own(compiled.source.pipeline().as_str()) {
        telemetry::passed(clock::unix(pass.begun()), now.0.saturating_sub(pass.begun().0), compiled.source);
    }
    Ok(settled)
}

/// The machine takes over: from the beginning, from a refusal, or with what the first call gave (null: it raised).
#[cold]
#[inline(never)] // a call that passes needs none of its room on the stack
fn trouble(callable: *mut ffi::PyObject, handed: &Handed, pass: Option<&Pass>, first: Option<*mut ffi::PyObject>) -> *mut ffi::PyObject {
    slots::attached(|py| {
        // SAFETY: the slot is that of this type, and the caller holds the callable.
        let guarded = unsafe { Borrowed::from_ptr(py, callable).cast_unchecked::<Guarded>() };
        // SAFETY: a new reference, or null with the exception set.
        let first = first.map(|value| unsafe { Raised::or(py, value) });
        taken_over(&guarded, handed, pass, first).map_or_else(
            |error| {
                error.restore(py);
                null_mut()
            },
            Py::into_ptr,
        )
    })
}

fn taken_over(
    guarded: &Bound<'_, Guarded>,
    handed: &Handed,
    pass: Option<&Pass>,
    first: Option<Result<Bound<'_, PyAny>, Raised<'_>>>,
) -> PyResult<Py<PyAny>> {
    let py = guarded.py();
    let released = |_: &PyErr| pass.into_iter().for_each(|pass| guarded.get().compiled.release(pass));
    let first = match first {
        Some(Err(error)) => Some(Err(bare::outcome(error).inspect_err(released)?.0)),
        first => first,
    };
    let (args, kwargs) = handed.keep(py)?;
    let mut flight = Guarded::flight(guarded, &args, kwargs.as_ref());
    let Some(pass) = pass else { return fly(py, flight).map(Bound::unbind) };
    let mut execution = flight.idle(py, pass);
    flight.resume(py, pass, &mut execution);
    if first.is_some() {
        flight.diary.started(Target::default());
    }
    let first = match first {
        Some(Ok(value)) if has_to_run(&value).is_some() => {
            flight.given = Some(value.unbind());
            return hand_over(py, flight, execution, CallId::FIRST).map(Bound::unbind);
        }
        Some(result) => Some(flight.keep(result.map(Bound::unbind))?),
        None => None,
    };
    match go_on(py, &mut flight, &mut execution, first) {
        Gone::Over(given) => {
            flight.compiled.is_over(py, execution);
            given
        }
        Gone::Given(call) => hand_over(py, flight, execution, call).map(Bound::unbind),
    }
}

/// How far a call has gone on its caller's thread.
enum Gone {
    Over(PyResult<Py<PyAny>>),
    /// That attempt has given something that has still to be run.
    Given(CallId),
}

/// Runs the machine on this thread as far as it goes; from its beginning, or from how the first call ended. Both stay where they are: they
/// are large.
fn go_on(py: Python<'_>, flight: &mut Flight, execution: &mut Execution, first: Option<(Outcome, Instant)>) -> Gone {
    let race = flight.compiled.hedged.then(|| Race::new(execution.bell()));
    match inline::run(execution, &mut Inline { py, flight, race }, first) {
        Ok(End::Done(outcome, now)) => Gone::Over(flight.finish(py, outcome, execution, now)),
        Ok(End::Given(call)) => Gone::Given(call),
        Err(interrupt) => Gone::Over(Err(interrupt)),
    }
}

/// Gives the driver of its kind what a plain function gave.
fn hand_over(py: Python<'_>, mut flight: Flight, mut execution: Execution, call: CallId) -> PyResult<Bound<'_, PyAny>> {
    let given = flight.given.take().unwrap_or_else(|| py.None());
    flight.goes_elsewhere();
    let kind = has_to_run(given.bind(py));
    flight.railed.is_stream = kind.is_some_and(|kind| kind != Given::Coroutine);
    let given = match kind {
        Some(Given::Generator | Given::AsyncGenerator) => {
            let screened = flight.screened(given.bind(py), None, kind == Some(Given::AsyncGenerator));
            screened.inspect_err(|_| execution.abandon(clock::now()))?
        }
        _ => given,
    };
    Ok(match kind {
        Some(Given::Coroutine) | None => Bound::new(py, Coroutine::under_way(flight, execution, call, given))?.into_any(),
        Some(Given::Generator) => {
            let holder = flight.holds(py)?;
            restoring(holder, Bound::new(py, Generator::under_way(flight, execution, call, given))?.into_any(), false)?
        }
        Some(Given::AsyncGenerator) => {
            let holder = flight.holds(py)?;
            restoring(holder, Bound::new(py, AsyncGenerator::under_way(flight, execution, call, given))?.into_any(), true)?
        }
        Some(Given::Stream) => {
            let (desk, pieces) = Desk::of(given.bind(py), flight.rails(py)).inspect_err(|_| execution.abandon(clock::now()))?;
            let holder = flight.holds(py)?;
            let generator = Bound::new(py, Generator::at_a_desk(flight, execution, call, pieces, desk.clone_ref(py)))?;
            desk.wrap(restoring(holder, generator.into_any(), false)?)?
        }
        Some(Given::AsyncStream) => {
            let running = Running::resumed(flight, Some(execution), Way::Async);
            AsyncGenerator::at_a_desk(py, Box::new(running), call, &given)?
        }
    })
}

/// The object of a call that begins when it is awaited or iterated.
fn waiting(py: Python<'_>, mut flight: Flight, way: Way) -> PyResult<Bound<'_, PyAny>> {
    let holder = if matches!(way, Way::Items | Way::AsyncItems) { flight.holds(py)? } else { None };
    Ok(match way {
        Way::Items => restoring(holder, Bound::new(py, Generator::new(flight))?.into_any(), false)?,
        Way::AsyncItems => restoring(holder, Bound::new(py, AsyncGenerator::new(flight))?.into_any(), true)?,
        Way::Async | Way::Sync => Bound::new(py, Coroutine::new(flight))?.into_any(),
    })
}

/// A call that gives items: nothing runs before the first is asked for.
#[inline(never)] // a plain call's frame is small without it
fn stream(callable: *mut ffi::PyObject, handed: &Handed, way: Way) -> *mut ffi::PyObject {
    slots::attached(|py| {
        // SAFETY: the slot is that of this type, and the caller holds the callable.
        let guarded = unsafe { Borrowed::from_ptr(py, callable).cast_unchecked::<Guarded>() };
        let made = handed.keep(py).and_then(|(args, kwargs)| waiting(py, Guarded::flight(&guarded, &args, kwargs.as_ref()), way));
        made.map_or_else(
            |error| {
                error.restore(py);
                null_mut()
            },
            Bound::into_ptr,
        )
    })
}

/// Runs a call by the machine from its beginning.
pub fn fly(py: Python<'_>, mut flight: Flight) -> PyResult<Bound<'_, PyAny>> {
    if stack::is_used_up() {
        return Err(stack::used_up());
    }
    let mut execution = flight.execution(py, Way::Sync, clock::now())?;
    match go_on(py, &mut flight, &mut execution, None) {
        Gone::Over(given) => {
            flight.compiled.is_over(py, execution);
            given.map(|value| value.into_bound(py))
        }
        Gone::Given(call) => hand_over(py, flight, execution, call),
    }
}

/// An asynchronous call: the function's own coroutine is made at once, as without a guard; nothing runs yet.
#[inline(never)] // a plain call's frame is small without it
fn begin(callable: *mut ffi::PyObject, handed: &Handed, call: impl FnOnce() -> *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls with its lock held; nothing below lets a reference go that pyo3 would have to count.
    let py = unsafe { Python::assume_attached() };
    let begun = || -> PyResult<*mut ffi::PyObject> {
        // SAFETY: the slot is that of this type, and the caller holds the callable.
        let guarded = unsafe { Bound::from_borrowed_ptr(py, callable).cast_into_unchecked::<Guarded>() };
        let (args, kwargs) = handed.keep(py)?;
        // SAFETY: a new reference, or null with the exception set.
        let inner = unsafe { Bound::from_owned_ptr_or_err(py, call())? };
        Ok(Bound::new(py, Coroutine::light(guarded, args, kwargs, inner))?.into_ptr())
    };
    begun().unwrap_or_else(|error| {
        slots::raise(error);
        null_mut()
    })
}

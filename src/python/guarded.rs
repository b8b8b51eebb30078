//! A function behind a pipeline: the fast lane, and the way into the machine for whatever meets trouble on it.

use super::compiled::Compiled;
use super::coroutine::Coroutine;
use super::errors::ours;
use super::flight::Flight;
use super::inline::Inline;
use super::monitor;
use super::pipeline::Pipeline;
use super::policies::circuit_breaker::{CircuitBreaker, short_repr};
use super::slots;
use crate::drive::{clock, inline};
use crate::engine::{CallId, Pass};
use crate::stats::Record;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use std::ptr::null_mut;
use std::sync::Arc;

/// A function behind a pipeline. Looks to `inspect` like the function.
#[pyclass(frozen, module = "seawall", dict, weakref)]
pub struct Guarded {
    vectorcall: ffi::vectorcallfunc,
    function: Py<PyAny>,
    pipeline: Py<Pipeline>,
    compiled: Arc<Compiled>,
    asynchronous: bool,
}

#[pymethods]
impl Guarded {
    #[new]
    fn new(py: Python<'_>, pipeline: Py<Pipeline>, function: Py<PyAny>, name: &str, asynchronous: bool) -> PyResult<Guarded> {
        let compiled = pipeline.get().compiled();
        for stage in &compiled.stages {
            if let Some(breaker) = &stage.breaker {
                breaker.get().adopt_name(compiled.name.as_deref().unwrap_or(name));
                register(breaker.bind(py))?;
            }
        }
        Ok(Guarded { vectorcall, function, pipeline, compiled, asynchronous })
    }

    /// The pipeline that guards it.
    #[getter]
    fn pipeline(&self, py: Python<'_>) -> Py<Pipeline> {
        self.pipeline.clone_ref(py)
    }

    // Gives the type its `__call__`; calls themselves come in by the vectorcall slot.
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let flight = Flight::new(self.compiled.clone(), self.function.bind(py), args, kwargs);
        if self.asynchronous { Ok(Bound::new(py, Coroutine::new(flight))?.into_any()) } else { fly(py, flight) }
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

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<guarded {} by {}>", short_repr(self.function.bind(py)), self.pipeline.get().__repr__(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.pipeline)
    }
}

impl Guarded {
    /// Where the type's slot points.
    pub fn vectorcall(&self) -> &ffi::vectorcallfunc {
        &self.vectorcall
    }

    /// An instance that shows where its fields lie.
    pub fn sample(py: Python<'_>) -> PyResult<Bound<'_, Guarded>> {
        let pipeline = Pipeline::of(py, Vec::new(), None)?;
        let compiled = pipeline.get().compiled();
        Bound::new(py, Guarded { vectorcall, function: py.None(), pipeline, compiled, asynchronous: false })
    }
}

fn register(breaker: &Bound<'_, CircuitBreaker>) -> PyResult<()> {
    static REGISTER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    ours(breaker.py(), &REGISTER, "seawall._circuits", "register")?.call1((breaker,))?;
    Ok(())
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
        // SAFETY: the slot is that of this type, and the caller holds the callable.
        let guarded = unsafe { slots::contents::<Guarded>(callable) };
        // SAFETY: a count with a flag in it, as the protocol has it.
        let handed = Handed { args, count: unsafe { ffi::PyVectorcall_NARGS(nargsf) } as usize, names };
        let function = guarded.function.as_ptr();
        // SAFETY: hands on what the interpreter handed in, unchanged.
        let call = || unsafe { ffi::PyObject_Vectorcall(function, args, nargsf, names) };
        if guarded.asynchronous { begin(guarded, &handed, call) } else { run(guarded, &handed, call) }
    })
}

/// A synchronous call. The fast lane owns no reference that pyo3 would have to count.
#[inline]
fn run(guarded: &Guarded, handed: &Handed, call: impl FnOnce() -> *mut ffi::PyObject) -> *mut ffi::PyObject {
    let compiled = &*guarded.compiled;
    if !compiled.has_lane() {
        return trouble(guarded, handed, None, None);
    }
    let mut pass = Pass::new(clock::now());
    if !compiled.plan.admit(&mut pass) {
        return trouble(guarded, handed, Some(&pass), None);
    }
    let value = call();
    if !value.is_null() && settle(compiled, &pass) { value } else { trouble(guarded, handed, Some(&pass), Some(value)) }
}

/// Settles a success on the fast lane and tells the monitor; `false`: the machine has to do both.
#[inline]
pub fn settle(compiled: &Compiled, pass: &Pass) -> bool {
    let Some(watch) = &compiled.monitor else { return compiled.plan.settle(pass, &clock::now) };
    let now = clock::now();
    if !compiled.plan.settle(pass, &|| now) {
        return false;
    }
    let latency_ns = now.0.saturating_sub(pass.begun().0);
    let record = Record { ok: true, retries: 0, fallback: false, latency_ns, tokens: 0 };
    if let Err(error) = monitor::record(watch.get(), record, now) {
        // The call has succeeded; what could not be told of it does not take its answer away.
        Python::attach(|py| error.write_unraisable(py, None));
    }
    true
}

/// The machine takes over: from the beginning, from a refusal, or with what the first call gave (null: it raised).
#[cold]
fn trouble(guarded: &Guarded, handed: &Handed, pass: Option<&Pass>, first: Option<*mut ffi::PyObject>) -> *mut ffi::PyObject {
    Python::attach(|py| {
        // SAFETY: a new reference, or null with the exception set.
        let first = first.map(|value| unsafe { Bound::from_owned_ptr_or_err(py, value) });
        taken_over(py, guarded, handed, pass, first).map_or_else(
            |error| {
                error.restore(py);
                null_mut()
            },
            Py::into_ptr,
        )
    })
}

fn taken_over(
    py: Python<'_>,
    guarded: &Guarded,
    handed: &Handed,
    pass: Option<&Pass>,
    first: Option<PyResult<Bound<'_, PyAny>>>,
) -> PyResult<Py<PyAny>> {
    let interrupted = matches!(&first, Some(Err(error)) if !error.is_instance_of::<PyException>(py));
    if let (true, Some(pass), Some(Err(error))) = (interrupted, pass, &first) {
        guarded.compiled.plan.release(pass);
        return Err(error.clone_ref(py));
    }
    let (args, kwargs) = handed.keep(py)?;
    let mut flight = Flight::new(guarded.compiled.clone(), guarded.function.bind(py), &args, kwargs.as_ref());
    let Some(pass) = pass else { return fly(py, flight).map(Bound::unbind) };
    let mut execution = flight.resume(pass);
    if let Some(result) = first {
        let outcome = flight.keep(py, result.map(Bound::unbind))?;
        execution.ended(CallId::FIRST, outcome);
    }
    let outcome = inline::run(&mut execution, &mut Inline { py, flight: &mut flight })?;
    flight.finish(py, outcome, &execution)
}

/// Runs a call by the machine from its beginning.
pub fn fly(py: Python<'_>, mut flight: Flight) -> PyResult<Bound<'_, PyAny>> {
    let mut execution = flight.execution(clock::now());
    let outcome = inline::run(&mut execution, &mut Inline { py, flight: &mut flight })?;
    flight.finish(py, outcome, &execution).map(|value| value.into_bound(py))
}

/// An asynchronous call: the function's own coroutine is made at once, as without a guard; nothing runs yet.
fn begin(guarded: &Guarded, handed: &Handed, call: impl FnOnce() -> *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls with its lock held; nothing below lets a reference go that pyo3 would have to count.
    let py = unsafe { Python::assume_attached() };
    let begun = || -> PyResult<*mut ffi::PyObject> {
        let (compiled, function) = (guarded.compiled.clone(), guarded.function.bind(py));
        let (args, kwargs) = handed.keep(py)?;
        let coroutine = if compiled.has_lane() {
            // SAFETY: a new reference, or null with the exception set.
            let inner = unsafe { Bound::from_owned_ptr_or_err(py, call())? };
            Coroutine::light(compiled, function, args, kwargs, inner)
        } else {
            Coroutine::new(Flight::new(compiled, function, &args, kwargs.as_ref()))
        };
        Ok(Bound::new(py, coroutine)?.into_ptr())
    };
    begun().unwrap_or_else(|error| {
        slots::raise(error);
        null_mut()
    })
}

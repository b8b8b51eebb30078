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
            let args = PyTuple::new(py, (0..self.count).map(at))?;
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
    slots::entered(null_mut(), |py| {
        // SAFETY: the slot is that of this type, and the caller holds the callable.
        let guarded = unsafe { slots::contents::<Guarded>(callable) };
        // SAFETY: a count with a flag in it, as the protocol has it.
        let handed = Handed { args, count: unsafe { ffi::PyVectorcall_NARGS(nargsf) } as usize, names };
        let function = guarded.function.as_ptr();
        // SAFETY: hands on what the interpreter handed in, unchanged.
        let call = || unsafe { ffi::PyObject_Vectorcall(function, args, nargsf, names) };
        let result = if guarded.asynchronous { begin(py, guarded, &handed, call) } else { run(py, guarded, &handed, call) };
        result.unwrap_or_else(|error| {
            error.restore(py);
            null_mut()
        })
    })
}

/// A synchronous call.
#[inline]
fn run(py: Python<'_>, guarded: &Guarded, handed: &Handed, call: impl FnOnce() -> *mut ffi::PyObject) -> PyResult<*mut ffi::PyObject> {
    let compiled = &guarded.compiled;
    let pass = if compiled.has_lane() { compiled.plan.admit(clock::now()) } else { None };
    let first = match &pass {
        Some(pass) if pass.is_complete() => {
            let value = call();
            if !value.is_null() && compiled.plan.settle(pass, &clock::now) {
                if let Err(error) = record(py, compiled, pass) {
                    // SAFETY: the reference was ours.
                    unsafe { ffi::Py_DECREF(value) };
                    return Err(error);
                }
                return Ok(value);
            }
            // SAFETY: a new reference, or null with the exception set.
            Some(unsafe { Bound::from_owned_ptr_or_err(py, value) })
        }
        _ => None,
    };
    trouble(py, guarded, handed, pass, first)
}

/// Tells the monitor of a call that met no trouble.
#[inline]
pub fn record(py: Python<'_>, compiled: &Compiled, pass: &Pass) -> PyResult<()> {
    let Some(watch) = &compiled.monitor else { return Ok(()) };
    let latency_ns = clock::now().0.saturating_sub(pass.begun().0);
    monitor::record(py, watch.get(), Record { ok: true, retries: 0, fallback: false, latency_ns, tokens: 0 })
}

/// The machine takes over: from the beginning, from a refusal, or with what the first call gave.
#[cold]
fn trouble(
    py: Python<'_>,
    guarded: &Guarded,
    handed: &Handed,
    pass: Option<Pass>,
    first: Option<PyResult<Bound<'_, PyAny>>>,
) -> PyResult<*mut ffi::PyObject> {
    if let (Some(pass), Some(Err(error))) = (&pass, &first)
        && !error.is_instance_of::<PyException>(py)
    {
        guarded.compiled.plan.release(pass);
        return Err(error.clone_ref(py));
    }
    let (args, kwargs) = handed.keep(py)?;
    let mut flight = Flight::new(guarded.compiled.clone(), guarded.function.bind(py), &args, kwargs.as_ref());
    let Some(pass) = pass else { return fly(py, flight).map(Bound::into_ptr) };
    let mut execution = flight.resume(&pass);
    if let Some(result) = first {
        let outcome = flight.keep(py, result.map(Bound::unbind))?;
        execution.ended(CallId::FIRST, outcome);
    }
    let outcome = inline::run(&mut execution, &mut Inline { py, flight: &mut flight })?;
    flight.finish(py, outcome, &execution).map(Py::into_ptr)
}

/// Runs a call by the machine from its beginning.
pub fn fly(py: Python<'_>, mut flight: Flight) -> PyResult<Bound<'_, PyAny>> {
    let mut execution = flight.execution(clock::now());
    let outcome = inline::run(&mut execution, &mut Inline { py, flight: &mut flight })?;
    flight.finish(py, outcome, &execution).map(|value| value.into_bound(py))
}

/// An asynchronous call: the function's own coroutine is made at once, as without a guard; nothing runs yet.
fn begin(py: Python<'_>, guarded: &Guarded, handed: &Handed, call: impl FnOnce() -> *mut ffi::PyObject) -> PyResult<*mut ffi::PyObject> {
    let (args, kwargs) = handed.keep(py)?;
    let (compiled, function) = (guarded.compiled.clone(), guarded.function.bind(py));
    let coroutine = if compiled.has_lane() {
        // SAFETY: a new reference, or null with the exception set.
        let inner = unsafe { Bound::from_owned_ptr_or_err(py, call())? };
        Coroutine::light(compiled, function, args, kwargs, inner)
    } else {
        Coroutine::new(Flight::new(compiled, function, &args, kwargs.as_ref()))
    };
    Ok(Bound::new(py, coroutine)?.into_ptr())
}

//! The type slots that PyO3 has no word for: vectorcall, and the send that `await` uses. Set once, when the module is
//! made and nobody can have an instance or a subclass yet.

use super::async_generator::{self, AsyncGenerator, Item};
use super::coroutine::{self, Coroutine};
use super::generator::{self, Generator};
use super::guarded::{self as function, Guarded};
use super::llm::pieces::Piece;
use super::protocol;
use super::recycled;
use super::wrong_calls;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::{PyClass, PyClassInitializer};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body`; a panic becomes an exception and `failed` is returned.
#[inline]
pub fn guarded<T>(failed: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| panicked(failed))
}

/// Attaches where the interpreter has called and pyo3 does not know that it is attached: at the interpreter's end too, when
/// pyo3 would let nobody attach anew.
pub fn attached<T>(body: impl FnOnce(Python<'_>) -> T) -> T {
    // SAFETY: only called where the interpreter has called, with its lock held.
    unsafe { Python::attach_unchecked(body) }
}

#[cold]
fn panicked<T>(failed: T) -> T {
    attached(|py| PyRuntimeError::new_err("seawall met a state that it does not know; please report this").restore(py));
    failed
}

/// Sets the exception that a slot ends with.
#[cold]
pub fn raise(error: PyErr) {
    attached(|py| error.restore(py));
}

/// Runs what an object does at its end: an exception that is on its way just then goes on afterwards.
pub fn at_the_end(body: impl FnOnce(Python<'_>)) {
    attached(|py| {
        let raised = PyErr::take(py);
        body(py);
        if let Some(raised) = raised {
            raised.restore(py);
        }
    });
}

/// A reference inside an object that lives and dies on the fast lane, where pyo3 does not know that the interpreter is
/// attached and would put off every release.
pub struct Held(ManuallyDrop<Py<PyAny>>);

impl Held {
    /// Takes a reference over.
    pub fn new(object: Bound<'_, PyAny>) -> Held {
        Held(ManuallyDrop::new(object.unbind()))
    }

    /// The object.
    pub fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.0.bind(py)
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and its owner, a Python object, dies with the interpreter's lock held.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) };
    }
}

/// What an object is called by, if it has a vectorcall slot: as `PyVectorcall_Function`, without the way there.
///
/// # Safety
/// `callable` is a live object.
#[inline]
pub unsafe fn vectorcall_of(callable: *mut ffi::PyObject) -> Option<ffi::vectorcallfunc> {
    // SAFETY: the caller's promise; a type that says so has, at that place in each of its objects, a function or null.
    unsafe {
        let kind = ffi::Py_TYPE(callable);
        if ffi::PyType_HasFeature(kind, ffi::Py_TPFLAGS_HAVE_VECTORCALL) == 0 {
            return None;
        }
        *callable.cast::<u8>().offset((*kind).tp_vectorcall_offset).cast::<Option<ffi::vectorcallfunc>>()
    }
}

/// The contents of an instance whose type is known.
///
/// # Safety
/// `object` is an instance of `T` and lives as long as the result is used.
pub unsafe fn contents<'a, T: PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync>(object: *mut ffi::PyObject) -> &'a T {
    // SAFETY: the caller's promise; a frozen class is never borrowed mutably.
    unsafe { &*std::ptr::from_ref(Borrowed::from_ptr(Python::assume_attached(), object).cast_unchecked::<T>().get()) }
}

/// An object with a dict and with references. On Python 3.11 its dict is made while the collector knows it already and
/// its contents are not there yet: a collection then would look at nothing as if it were they.
pub fn made<T: PyClass>(py: Python<'_>, contents: impl Into<PyClassInitializer<T>>) -> PyResult<Bound<'_, T>> {
    // SAFETY: the interpreter is attached.
    let was_enabled = unsafe { ffi::PyGC_Disable() } != 0;
    let object = Bound::new(py, contents);
    if was_enabled {
        // SAFETY: as above.
        unsafe { ffi::PyGC_Enable() };
    }
    object
}

/// Sets the slots of our types.
pub fn set(py: Python<'_>) -> PyResult<()> {
    let sample = Guarded::sample(py)?;
    let kind = py.get_type::<Guarded>().as_type_ptr();
    let field = std::ptr::from_ref(sample.get().vectorcall()).cast::<u8>();
    // SAFETY: the field lies inside the object, and the type is ours and in nobody else's hands yet.
    unsafe {
        (*kind).tp_vectorcall_offset = field.offset_from(sample.as_ptr().cast::<u8>());
        (*kind).tp_call = Some(ffi::PyVectorcall_Call);
        (*kind).tp_flags |= ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR;
        (*kind).tp_descr_get = Some(function::bind);
        ffi::PyType_Modified(kind);
        let kind = py.get_type::<AsyncGenerator>().as_type_ptr();
        if let Some(methods) = (*kind).tp_as_async.as_mut() {
            methods.am_anext = Some(async_generator::am_anext);
        }
        ffi::PyType_Modified(kind);
        let kind = py.get_type::<Generator>().as_type_ptr();
        (*kind).tp_iternext = Some(generator::iternext);
        ffi::PyType_Modified(kind);
    }
    protocol::set::<Coroutine>(py, coroutine::itself);
    protocol::set::<Item>(py, protocol::itself);
    protocol::set::<Piece>(py, protocol::itself);
    recycled::set::<Coroutine>(py);
    recycled::set::<Item>(py);
    function::know_ours(py);
    wrong_calls::set(py);
    Ok(())
}

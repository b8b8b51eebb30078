//! Objects that come and go with every call: the memory of the last few that went is kept for those that come next, as
//! the interpreter does with its own.

use super::slots;
use super::threads;
use pyo3::PyClass;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// So many are kept.
const MOST: usize = 64;

/// What is kept of one type: a list through the objects' own type fields. Touched with the interpreter's lock held.
pub struct Bin {
    first: AtomicPtr<ffi::PyObject>,
    count: AtomicUsize,
}

impl Bin {
    pub const fn new() -> Bin {
        Bin { first: AtomicPtr::new(null_mut()), count: AtomicUsize::new(0) }
    }

    #[inline]
    fn take(&self) -> *mut ffi::PyObject {
        let first = self.first.load(Ordering::Relaxed);
        if !first.is_null() {
            // SAFETY: what is kept is memory of an object that nobody else knows.
            self.first.store(unsafe { (*first).ob_type }.cast(), Ordering::Relaxed);
            self.count.store(self.count.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
        first
    }

    /// Whether it was kept.
    #[inline]
    fn put(&self, object: *mut ffi::PyObject) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        if count >= MOST || threads::are_free() {
            return false;
        }
        // SAFETY: the object is dead, and its memory the caller's.
        unsafe { (*object).ob_type = self.first.load(Ordering::Relaxed).cast() };
        self.first.store(object, Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Relaxed);
        true
    }
}

/// A type whose objects' memory is kept.
pub trait Recycled: PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync {
    /// Where.
    fn bin() -> &'static Bin;
}

unsafe extern "C" fn alloc<T: Recycled>(kind: *mut ffi::PyTypeObject, items: ffi::Py_ssize_t) -> *mut ffi::PyObject {
    let kept = T::bin().take();
    // SAFETY: the interpreter's promise of a type; the memory is that of an object of this very type, which nobody has.
    // Its contents are written before the interpreter can run anything, a collection included.
    unsafe {
        if kept.is_null() {
            return ffi::PyType_GenericAlloc(kind, items);
        }
        ffi::PyObject_Init(kept, kind);
        ffi::PyObject_GC_Track(kept.cast());
    }
    kept
}

unsafe extern "C" fn dealloc<T: Recycled>(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter's promise: an object of this type that nobody knows any more, with contents.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        let kind = ffi::Py_TYPE(object);
        let weak = (*kind).tp_weaklistoffset;
        if weak > 0 && !(*object.byte_offset(weak).cast::<*mut ffi::PyObject>()).is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        let contents = std::ptr::from_ref(slots::contents::<T>(object)).cast_mut();
        slots::guarded((), || std::ptr::drop_in_place(contents));
        if !T::bin().put(object) {
            ffi::PyObject_GC_Del(object.cast());
        }
        ffi::Py_DECREF(kind.cast());
    }
}

/// Sets the slots of a type that has no subclasses and no instances yet.
pub fn set<T: Recycled>(py: Python<'_>) {
    let kind = py.get_type::<T>().as_type_ptr();
    // SAFETY: the type is ours and in nobody else's hands yet.
    unsafe {
        (*kind).tp_alloc = Some(alloc::<T>);
        (*kind).tp_dealloc = Some(dealloc::<T>);
    }
}

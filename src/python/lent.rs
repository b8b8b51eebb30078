//! A pipeline made ready, as a call has it: lent by the Python object that it lies in.

use super::compiled::Compiled;
use pyo3::PyClass;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use std::ops::Deref;
use std::ptr::NonNull;

/// It lives as long as its owner, which is held: that takes no exchange between processors, as a count of its own would, twice in each call.
/// The collector sees whose it is.
pub struct Lent {
    compiled: NonNull<Compiled>,
    owner: Py<PyAny>,
}

// SAFETY: it is only looked at, and all of it may be looked at by any thread.
unsafe impl Send for Lent where Compiled: Sync {}
// SAFETY: as above.
unsafe impl Sync for Lent where Compiled: Sync {}

impl Lent {
    /// What `of` finds in an object: a part of it, which stays where it is and as it is, since the class is frozen.
    pub fn by<T: PyClass<Frozen = True> + Sync>(owner: &Bound<'_, T>, of: impl for<'a> FnOnce(&'a T) -> &'a Compiled) -> Lent {
        Lent { compiled: NonNull::from(of(owner.get())), owner: owner.clone().into_any().unbind() }
    }

    /// The same once more.
    pub fn clone_ref(&self, py: Python<'_>) -> Lent {
        Lent { compiled: self.compiled, owner: self.owner.clone_ref(py) }
    }

    /// For the garbage collector.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)
    }
}

impl Deref for Lent {
    type Target = Compiled;

    #[inline]
    fn deref(&self) -> &Compiled {
        // SAFETY: the owner is held, and its parts stay where they are.
        unsafe { self.compiled.as_ref() }
    }
}

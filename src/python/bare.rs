//! Exceptions that carry nothing but their type: what they mean is asked of `seawall._classify` once for each type.

use super::errors::ours;
use crate::policies::class::{Class, Row};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// What was found out about a type.
struct Found {
    /// Held, so that its address stays its own.
    _kind: Py<PyAny>,
    class: Option<Class>,
}

/// By the type's address.
static SEEN: Mutex<Option<HashMap<usize, Found, BuildHasherDefault<Address>>>> = Mutex::new(None);

/// Addresses differ enough as they are.
#[derive(Default)]
struct Address(u64);

impl Hasher for Address {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_usize(&mut self, address: usize) {
        // The low bits of an address say nothing; the table looks at the high ones and the low ones.
        self.0 = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// Classes made at run time must not fill the memory.
const MOST: usize = 1024;
/// A user's classifier may say anything of any exception.
static ASK_ALWAYS: AtomicBool = AtomicBool::new(false);

/// Called when classifiers are registered or taken back: whether there are any.
#[pyfunction]
pub fn ask_always(yes: bool) {
    ASK_ALWAYS.store(yes, Ordering::Release);
}

/// The row of an exception about which its type says everything; `None` if one has to look at the exception itself.
pub fn row(error: &Bound<'_, PyAny>) -> PyResult<Option<&'static Row>> {
    static BARE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if ASK_ALWAYS.load(Ordering::Acquire) || !is_empty(error) {
        return Ok(None);
    }
    let (py, kind) = (error.py(), error.get_type());
    let key = kind.as_ptr() as usize;
    let known = SEEN.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|seen| seen.get(&key).map(|found| found.class));
    if let Some(class) = known {
        return Ok(class.map(Class::row));
    }
    let name: Option<String> = ours(py, &BARE, "seawall._classify", "bare")?.call1((&kind,))?.extract()?;
    let class = name.as_deref().and_then(Class::named);
    let forgotten = {
        let mut guard = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = guard.get_or_insert_default();
        let forgotten = if seen.len() >= MOST { std::mem::take(seen) } else { HashMap::default() };
        seen.insert(key, Found { _kind: kind.into_any().unbind(), class });
        forgotten
    };
    // Outside the lock: letting a class go may run code.
    drop(forgotten);
    Ok(class.map(Class::row))
}

/// Whether an exception has no attributes of its own.
fn is_empty(error: &Bound<'_, PyAny>) -> bool {
    // SAFETY: reads the dict of a live exception; it is null until something is set.
    unsafe {
        if ffi::PyExceptionInstance_Check(error.as_ptr()) == 0 {
            return false;
        }
        let dict = (*error.as_ptr().cast::<ffi::PyBaseExceptionObject>()).dict;
        dict.is_null() || ffi::PyDict_Size(dict) == 0
    }
}

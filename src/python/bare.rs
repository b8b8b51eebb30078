//! What the type of an exception says by itself, which is all where it carries nothing else: asked of `seawall._classify`
//! once for each type.

use super::errors::ours;
use super::raised::Raised;
use crate::policies::class::{CLASSES, Class, Row};
use crate::stats::Word;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// What was found out about a type.
struct Found {
    /// Held, so that its address stays its own.
    _kind: Py<PyAny>,
    says: Says,
}

/// What the type of an exception says. One word, which travels in a register: from the low end, a bit that is set for an interrupt, seven
/// for the number of its class and one (0 for none), and in the high half the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Says(u64);

const INTERRUPT: u64 = 1;
const CLASS: u32 = 1;
const NAME: u32 = 32;

impl Says {
    pub const NOTHING: Says = Says(0);

    fn new(name: Word, class: Option<Class>, is_interrupt: bool) -> Says {
        let class = class.map_or(0, |class| class as u64 + 1);
        Says(u64::from(name.number()) << NAME | class << CLASS | u64::from(is_interrupt))
    }

    /// What is known of an exception's type, if only the name.
    pub fn known(error: &Bound<'_, PyAny>) -> Says {
        known(TIMES.load(Ordering::Acquire), error.get_type_ptr() as usize)
            .unwrap_or_else(|| Says::new(name(&error.get_type()), None, false))
    }

    /// The type's name.
    #[inline]
    pub fn name(self) -> Word {
        Word::numbered((self.0 >> NAME) as u32)
    }

    #[inline]
    fn is_interrupt(self) -> bool {
        self.0 & INTERRUPT != 0
    }

    #[inline]
    fn row(self) -> Option<&'static Row> {
        CLASSES.get(((self.0 >> CLASS & 0x7f) as usize).wrapping_sub(1))
    }
}

fn name(class: &Bound<'_, PyType>) -> Word {
    class.name().map_or(Word::of("?"), |name| Word::of(&name.to_string_lossy()))
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

thread_local! {
    // The type asked about last, and which of the table's times that was: most failures are like the one before.
    static LAST: Cell<(u32, usize, Says)> = const { Cell::new((0, 0, Says::NOTHING)) };
}

/// Goes up each time types are let go, whose addresses may then be others'.
static TIMES: AtomicU32 = AtomicU32::new(0);

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
    if ASK_ALWAYS.load(Ordering::Acquire) || !is_empty(error) {
        return Ok(None);
    }
    Ok(says(error.get_type())?.row())
}

/// As [`row`], where it is known already what the type says: nothing is asked, and no code is run.
#[inline]
pub fn known_row(error: &Bound<'_, PyAny>, says: Says) -> Option<&'static Row> {
    says.row().filter(|_| !ASK_ALWAYS.load(Ordering::Acquire) && is_empty(error))
}

/// Whether an exception is no outcome of a call but on its way to somebody further out: an interrupt, a cancellation, a
/// graph's command.
pub fn is_interrupt(error: &Bound<'_, PyAny>) -> PyResult<bool> {
    look(error).map(Says::is_interrupt)
}

/// The exception, if it is an outcome, and what its type says; else what goes on its way: itself, or an interrupt that came just then.
pub fn outcome(error: Raised<'_>) -> Result<(Raised<'_>, Says), PyErr> {
    let says = look(error.value())?;
    if says.is_interrupt() { Err(error.into()) } else { Ok((error, says)) }
}

#[inline]
fn look(error: &Bound<'_, PyAny>) -> PyResult<Says> {
    match known(TIMES.load(Ordering::Acquire), error.get_type_ptr() as usize) {
        Some(says) => Ok(says),
        None => look_closer(error),
    }
}

#[cold]
fn look_closer(error: &Bound<'_, PyAny>) -> PyResult<Says> {
    match says(error.get_type()) {
        // A type that cannot be looked at, or no stack left to do it: it is what it looks like.
        Err(failed) if failed.is_instance_of::<PyException>(error.py()) => {
            Ok(Says::new(name(&error.get_type()), None, !error.is_instance_of::<PyException>()))
        }
        found => found,
    }
}

fn says(kind: Bound<'_, PyType>) -> PyResult<Says> {
    static BARE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static CONTROL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (py, key) = (kind.py(), kind.as_ptr() as usize);
    let time = TIMES.load(Ordering::Acquire);
    if let Some(says) = known(time, key) {
        return Ok(says);
    }
    let class: Option<String> = ours(py, &BARE, "seawall._classify", "bare")?.call1((&kind,))?.extract()?;
    let is_interrupt = !kind.is_subclass_of::<PyException>()?
        || ours(py, &CONTROL, "seawall._classify", "is_control_flow")?.call1((&kind,))?.is_truthy()?;
    let says = Says::new(name(&kind), class.as_deref().and_then(Class::named), is_interrupt);
    let forgotten = {
        let mut guard = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = guard.get_or_insert_default();
        let is_full = seen.len() >= MOST;
        TIMES.fetch_add(u32::from(is_full), Ordering::AcqRel);
        let forgotten = if is_full { std::mem::take(seen) } else { HashMap::default() };
        seen.insert(key, Found { _kind: kind.into_any().unbind(), says });
        forgotten
    };
    // Outside the lock: letting a class go may run code.
    drop(forgotten);
    Ok(says)
}

/// What was found out before about the type at that address, the table having been renewed so many times.
#[inline]
fn known(time: u32, key: usize) -> Option<Says> {
    let last = LAST.get();
    if (last.0, last.1) == (time, key) {
        return Some(last.2);
    }
    let says = SEEN.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(&key)?.says;
    LAST.set((time, key, says));
    Some(says)
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

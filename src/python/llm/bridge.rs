//! From the runtime's threads back to Python: waiting on a thread so that Ctrl-C ends it at once, and waking an event loop
//! (asyncio's, or a run of trio's) through a file descriptor, many completions per wake-up.

use crate::drive::process::Process;
use crate::python::errors::ours;
use crate::python::event_loop;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::Wake;
use std::time::Duration;
use tokio::task::AbortHandle;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// For a signal that another thread got.
const SLICE: Duration = Duration::from_millis(100);

/// A place where one thread waits and another wakes it.
pub struct Parker {
    reader: PipeReader,
    writer: PipeWriter,
    woken: AtomicBool,
    /// A forked child shares its parent's pipes, and must wait at its own.
    process: Process,
}

impl Parker {
    fn new() -> PyResult<Parker> {
        let (reader, writer) = pipe()?;
        Ok(Parker { reader, writer, woken: AtomicBool::new(false), process: Process::here() })
    }

    /// Wakes whoever waits, or will.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // A pipe with one byte at most in it takes this one.
            let _ = (&self.writer).write(&[1]);
        }
    }

    /// Waits, with the GIL released, until woken; a signal's exception ends it.
    fn park(&self, py: Python<'_>) -> PyResult<()> {
        while !self.woken.load(Ordering::Acquire) {
            py.detach(|| self.poll(SLICE));
            py.check_signals()?;
        }
        let _ = (&self.reader).read(&mut [0]);
        self.woken.store(false, Ordering::Release);
        Ok(())
    }

    /// Waits so long at the most, until woken, or for a signal. To be called with the GIL released.
    pub fn park_for(&self, span: Duration) {
        if !self.woken.load(Ordering::Acquire) {
            self.poll(span);
        }
        if self.woken.swap(false, Ordering::AcqRel) {
            let _ = (&self.reader).read(&mut [0]);
        }
    }

    #[cfg(unix)]
    fn poll(&self, most: Duration) {
        use std::os::fd::AsRawFd;
        let mut wanted = libc::pollfd { fd: self.reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // A signal ends the wait by EINTR.
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut wanted, 1, most.min(SLICE).as_millis() as i32) };
    }

    #[cfg(not(unix))]
    fn poll(&self, most: Duration) {
        std::thread::sleep(most.min(Duration::from_millis(1)));
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        Parker::wake(&self);
    }
}

thread_local! {
    // One per thread, reused: a call waits at one place at a time.
    static PARKER: RefCell<Option<Arc<Parker>>> = const { RefCell::new(None) };
}

/// A place to wait at on this thread.
pub fn parker() -> PyResult<Arc<Parker>> {
    Ok(match PARKER.with(|slot| slot.borrow_mut().take()).filter(|p| p.process.is_here()) {
        Some(parker) => parker,
        None => Arc::new(Parker::new()?),
    })
}

/// The wait is over. A waker that is still to come belongs to it: such a place is not used again.
pub fn put_back(parker: Arc<Parker>) {
    if !parker.woken.load(Ordering::Acquire) && Arc::strong_count(&parker) == 1 {
        PARKER.with(|slot| *slot.borrow_mut() = Some(parker));
    }
}

/// Waits on this thread until `ready` gives something. `register` is told whom to wake.
pub fn wait<T>(py: Python<'_>, register: impl FnOnce(Arc<Parker>), mut ready: impl FnMut() -> Option<T>) -> PyResult<T> {
    let parker = parker()?;
    register(parker.clone());
    loop {
        if let Some(value) = ready() {
            put_back(parker);
            return Ok(value);
        }
        parker.park(py)?;
    }
}

/// What a finished future is to be given.
type Make = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

#[derive(Default)]
struct Awaited {
    done: Vec<(Py<PyAny>, Make)>,
    /// What is under way because somebody in this loop awaits it.
    jobs: HashMap<u64, AbortHandle>,
    next: u64,
}

struct Loop {
    awaited: Mutex<Awaited>,
    // Both ends, so that a write to a loop that is gone fails by itself and needs no signal to say so.
    reader: PipeReader,
    writer: PipeWriter,
    /// For a loop that watches no file descriptors: what tells it.
    tell: OnceLock<Py<PyAny>>,
    is_closed: AtomicBool,
    /// A forked child shares its parent's pipe, and must have its own.
    process: Process,
}

impl Loop {
    fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Acquire) && self.is_here()
    }

    fn is_here(&self) -> bool {
        self.process.is_here()
    }

    /// Nobody awaits anything here any more: what is under way for it is cut.
    fn close(&self) {
        if !self.is_here() {
            return;
        }
        let left = {
            let mut awaited = lock(&self.awaited);
            self.is_closed.store(true, Ordering::Release);
            std::mem::take(&mut *awaited)
        };
        left.jobs.values().for_each(AbortHandle::abort);
    }

    fn tell(&self) {
        // Without an interpreter nobody waits.
        let told = Python::try_attach(|py| self.tell.get().map_or(Ok(()), |tell| tell.call0(py).map(drop)));
        // A closed loop takes no more calls.
        if let Some(Err(_)) = told {
            self.close();
        }
    }
}

/// The way into one event loop. It lives as long as the loop watches it: closing the loop ends what its tasks awaited.
#[pyclass(frozen, module = "seawall", weakref)]
pub struct Bridge(Arc<Loop>);

/// Hands results to one event loop, from any thread.
#[derive(Clone)]
pub struct Sender(Arc<Loop>);

impl Sender {
    /// Completes `future` on its loop with what `make` gives. The loop is woken when the result is dropped; of many
    /// completions one wakes it.
    #[must_use]
    pub fn complete(&self, future: Py<PyAny>, make: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static) -> Option<Call> {
        let mut awaited = lock(&self.0.awaited);
        if self.0.is_closed.load(Ordering::Acquire) {
            return None;
        }
        awaited.done.push((future, Box::new(make)));
        (awaited.done.len() == 1).then(|| Call(self.clone()))
    }

    /// Something under way that a task of this loop awaits: cut if the loop is closed meanwhile.
    pub fn awaits(&self, job: AbortHandle) -> Tie {
        let mut awaited = lock(&self.0.awaited);
        let key = awaited.next;
        awaited.next += 1;
        awaited.jobs.insert(key, job);
        Tie { event_loop: self.0.clone(), key }
    }

    fn wake(&self) {
        if self.0.tell.get().is_none() {
            // A pipe with a byte or two at most in it takes this one.
            let _ = (&self.0.writer).write(&[1]);
            return;
        }
        // The thread that carries all calls waits for no interpreter.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let event_loop = self.0.clone();
                drop(runtime.spawn_blocking(move || event_loop.tell()));
            }
            Err(_) => self.0.tell(),
        }
    }
}

/// The loop has to be woken: dropping this does.
pub struct Call(Sender);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// While this lives, the end of a loop is the end of a job.
pub struct Tie {
    event_loop: Arc<Loop>,
    key: u64,
}

impl Tie {
    /// Whether it was made in this process: a forked child has a copy, and not the job.
    pub fn is_here(&self) -> bool {
        self.event_loop.is_here()
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        if self.is_here() {
            lock(&self.event_loop.awaited).jobs.remove(&self.key);
        }
    }
}

#[pymethods]
impl Bridge {
    #[new]
    fn new() -> PyResult<Bridge> {
        let (reader, writer) = pipe()?;
        #[cfg(unix)]
        never_waits(&reader)?;
        Ok(Bridge(Arc::new(Loop {
            awaited: Mutex::default(),
            reader,
            writer,
            tell: OnceLock::new(),
            is_closed: AtomicBool::new(false),
            process: Process::here(),
        })))
    }

    /// Whether it leads into a loop of this process.
    #[getter]
    fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// The descriptor to watch.
    #[cfg(unix)]
    fn fileno(&self) -> i32 {
        use std::os::fd::AsRawFd;
        self.0.reader.as_raw_fd()
    }

    /// For a loop that watches no descriptors: `tell` is called, from any thread, to have it call `deliver`.
    fn tell_by(&self, tell: Py<PyAny>) {
        let _ = self.0.tell.set(tell);
    }

    /// Called by the loop when the descriptor is readable.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        // What the parent's runtime wrote is for the parent to read.
        if !self.0.is_here() {
            return Ok(());
        }
        let _ = (&self.0.reader).read(&mut [0]);
        self.deliver(py)
    }

    /// Completes the futures whose results have come.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        let done = std::mem::take(&mut lock(&self.0.awaited).done);
        let mut failed = Ok(());
        for (future, make) in done {
            // One that cannot be completed must not cost the others their results.
            if let Err(error) = complete(future.bind(py), make) {
                failed = Err(error);
            }
        }
        failed
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A loop may be told that there is something where there is nothing, as one is that shares its poll with a forked process.
#[cfg(unix)]
fn never_waits(reader: &PipeReader) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: sets a flag of a descriptor that is ours.
    match unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn complete(future: &Bound<'_, PyAny>, make: Make) -> PyResult<()> {
    let py = future.py();
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    match make(py) {
        Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?,
    };
    Ok(())
}

thread_local! {
    // The asyncio loop that this thread ran last, and the way into it. Neither is kept alive by this.
    static LAST: RefCell<Option<(Py<PyWeakrefReference>, Weak<Loop>)>> = const { RefCell::new(None) };
}

/// A new future of the running loop, and the way to complete it.
pub fn future(py: Python<'_>) -> PyResult<(Py<PyAny>, Sender)> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    // Before asyncio's: a run of trio's may be the guest of a loop.
    if event_loop::trio(py)?.is_some() {
        return future_of_trio(py);
    }
    let running = ours(py, &RUNNING, "asyncio", "_get_running_loop")?.call0()?;
    if running.is_none() {
        return Err(PyRuntimeError::new_err(
            "no event loop of asyncio or trio is running here: await this in one, or call the method without the a (`invoke`, `batch`)",
        ));
    }
    let known = LAST.with(|last| match &*last.borrow() {
        Some((event_loop, shared)) if event_loop.bind(py).upgrade().is_some_and(|known| known.is(&running)) => shared.upgrade(),
        _ => None,
    });
    let shared = match known.filter(|shared| shared.is_open()) {
        Some(shared) => shared,
        None => new_to_thread(&running)?,
    };
    Ok((running.call_method0(intern!(py, "create_future"))?.unbind(), Sender(shared)))
}

#[cold]
fn new_to_thread(running: &Bound<'_, PyAny>) -> PyResult<Arc<Loop>> {
    static BRIDGE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = running.py();
    let bridge = ours(py, &BRIDGE, "seawall._bridge", "bridge")?.call1((running,))?.cast_into::<Bridge>()?;
    let shared = bridge.get().0.clone();
    let known = (PyWeakrefReference::new(running)?.unbind(), Arc::downgrade(&shared));
    let old = LAST.with(|last| last.replace(Some(known)));
    drop(old);
    Ok(shared)
}

fn future_of_trio(py: Python<'_>) -> PyResult<(Py<PyAny>, Sender)> {
    static BRIDGE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static FUTURE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let bridge = ours(py, &BRIDGE, "seawall._trio_bridge", "bridge")?.call0()?.cast_into::<Bridge>()?;
    let future = ours(py, &FUTURE, "seawall._trio_bridge", "Future")?.call0()?;
    Ok((future.unbind(), Sender(bridge.get().0.clone())))
}

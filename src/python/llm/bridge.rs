//! From the runtime's threads back to Python: waiting on a thread so that Ctrl-C ends it at once, and waking an asyncio
//! loop through a file descriptor, many completions per wake-up.

use crate::python::errors::ours;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use std::cell::RefCell;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A place where one thread waits and another wakes it.
pub struct Parker {
    reader: PipeReader,
    writer: PipeWriter,
    woken: AtomicBool,
    /// A forked child shares its parent's pipes, and must wait at its own.
    process: u32,
}

impl Parker {
    fn new() -> PyResult<Parker> {
        let (reader, writer) = pipe()?;
        Ok(Parker { reader, writer, woken: AtomicBool::new(false), process: std::process::id() })
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
            py.detach(|| self.poll());
            py.check_signals()?;
        }
        let _ = (&self.reader).read(&mut [0]);
        self.woken.store(false, Ordering::Release);
        Ok(())
    }

    #[cfg(unix)]
    fn poll(&self) {
        use std::os::fd::AsRawFd;
        let mut wanted = libc::pollfd { fd: self.reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // A signal ends the wait by EINTR. The slice is for a signal that another thread got.
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut wanted, 1, 100) };
    }

    #[cfg(not(unix))]
    fn poll(&self) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

thread_local! {
    // One per thread, reused: a call waits at one place at a time.
    static PARKER: RefCell<Option<Arc<Parker>>> = const { RefCell::new(None) };
}

/// Waits on this thread until `ready` gives something. `register` is told whom to wake.
pub fn wait<T>(py: Python<'_>, register: impl FnOnce(Arc<Parker>), mut ready: impl FnMut() -> Option<T>) -> PyResult<T> {
    let parker = match PARKER.with(|slot| slot.borrow_mut().take()).filter(|p| p.process == std::process::id()) {
        Some(parker) => parker,
        None => Arc::new(Parker::new()?),
    };
    register(parker.clone());
    loop {
        if let Some(value) = ready() {
            // A waker that is still to come belongs to this call: such a place is not used again.
            if !parker.woken.load(Ordering::Acquire) && Arc::strong_count(&parker) == 1 {
                PARKER.with(|slot| *slot.borrow_mut() = Some(parker));
            }
            return Ok(value);
        }
        parker.park(py)?;
    }
}

/// What a finished future is to be given.
type Make = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

struct Loop {
    done: Mutex<Vec<(Py<PyAny>, Make)>>,
    writer: PipeWriter,
    /// For a loop that watches no file descriptors: its `call_soon_threadsafe` and what to call.
    threadsafe: Mutex<Option<(Py<PyAny>, Py<PyAny>)>>,
    watches_nothing: AtomicBool,
}

/// The way into one asyncio loop.
#[pyclass(frozen, module = "seawall", weakref)]
pub struct Bridge {
    reader: PipeReader,
    shared: Arc<Loop>,
}

/// Hands results to one asyncio loop, from any thread.
#[derive(Clone)]
pub struct Sender(Arc<Loop>);

impl Sender {
    /// Completes `future` on its loop with what `make` gives. The loop is woken when the result is dropped; of many
    /// completions one wakes it.
    #[must_use]
    pub fn complete(&self, future: Py<PyAny>, make: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static) -> Option<Call> {
        let mut done = lock(&self.0.done);
        done.push((future, Box::new(make)));
        (done.len() == 1).then(|| Call(self.clone()))
    }

    fn wake(&self) {
        if !self.0.watches_nothing.load(Ordering::Acquire) {
            // A pipe with a byte or two at most in it takes this one.
            let _ = (&self.0.writer).write(&[1]);
            return;
        }
        // A closed loop takes no more calls; whoever awaited on it is gone.
        let _ = Python::try_attach(|py| {
            let threadsafe = lock(&self.0.threadsafe).as_ref().map(|(call, what)| (call.clone_ref(py), what.clone_ref(py)));
            threadsafe.map(|(call, what)| call.call1(py, (what,)).map(drop))
        });
    }
}

/// The loop has to be woken: dropping this does.
pub struct Call(Sender);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.wake();
    }
}

#[pymethods]
impl Bridge {
    #[new]
    fn new() -> PyResult<Bridge> {
        let (reader, writer) = pipe()?;
        Ok(Bridge {
            reader,
            shared: Arc::new(Loop {
                done: Mutex::new(Vec::new()),
                writer,
                threadsafe: Mutex::new(None),
                watches_nothing: AtomicBool::new(false),
            }),
        })
    }

    /// The descriptor to watch.
    #[cfg(unix)]
    fn fileno(&self) -> i32 {
        use std::os::fd::AsRawFd;
        self.reader.as_raw_fd()
    }

    /// For a loop that watches no descriptors.
    fn use_threadsafe(slf: &Bound<'_, Self>, call_soon_threadsafe: Py<PyAny>) -> PyResult<()> {
        let deliver = slf.getattr("deliver")?.unbind();
        *lock(&slf.get().shared.threadsafe) = Some((call_soon_threadsafe, deliver));
        slf.get().shared.watches_nothing.store(true, Ordering::Release);
        Ok(())
    }

    /// Called by the loop when the descriptor is readable.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let _ = (&self.reader).read(&mut [0]);
        self.deliver(py)
    }

    /// Completes the futures whose results have come.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        let done = std::mem::take(&mut *lock(&self.shared.done));
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
    // The loop that this thread ran last, and the way into it. Neither is kept alive by this.
    static LAST: RefCell<Option<(Py<PyWeakrefReference>, Weak<Loop>)>> = const { RefCell::new(None) };
}

/// A new future of the running loop, and the way to complete it.
pub fn future(py: Python<'_>) -> PyResult<(Py<PyAny>, Sender)> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let running = ours(py, &RUNNING, "asyncio", "_get_running_loop")?.call0()?;
    let known = LAST.with(|last| match &*last.borrow() {
        Some((event_loop, shared)) if event_loop.bind(py).upgrade().is_some_and(|known| known.is(&running)) => shared.upgrade(),
        _ => None,
    });
    let shared = match known {
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
    let shared = bridge.get().shared.clone();
    let known = (PyWeakrefReference::new(running)?.unbind(), Arc::downgrade(&shared));
    let old = LAST.with(|last| last.replace(Some(known)));
    drop(old);
    Ok(shared)
}

//! A fork beside the runtime's thread finds it between two tasks, holding nothing.

#![cfg(unix)]

mod forked;

use forked::forked;
use seawall::drive::process::Process;
use seawall::llm::runtime;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

#[test]
fn a_lock_that_calls_take_is_free_in_the_child_and_its_runtime_is_its_own() {
    let (handle, _) = runtime::get().unwrap();
    let (shared, over) = (Arc::new(Mutex::new(0u64)), Arc::new(AtomicBool::new(false)));
    let (used, ended) = (shared.clone(), over.clone());
    // Never idle, and nearly always inside the lock.
    let busy = handle.spawn(async move {
        while !ended.load(Ordering::Relaxed) {
            {
                let mut count = used.lock().unwrap();
                for _ in 0..10_000 {
                    *count = std::hint::black_box(*count) + 1;
                }
            }
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..10 {
        let code = forked(|| {
            let free = shared.try_lock().is_ok_and(|count| *count % 10_000 == 0);
            let Ok((own, _)) = runtime::get() else { return 2 };
            let (answer, answered) = std::sync::mpsc::channel();
            own.spawn(async move { answer.send(own_thread()) });
            match answered.recv() {
                Ok(true) if free => 0,
                _ => 1,
            }
        });
        assert_eq!(code, 0);
    }
    over.store(true, Ordering::Relaxed);
    while !busy.is_finished() {
        std::thread::yield_now();
    }
    assert_eq!(forked(|| i32::from(shared.try_lock().is_err())), 0, "and with an idle one");
}

fn own_thread() -> bool {
    std::thread::current().name() == Some("seawall")
}

#[test]
fn a_child_is_another_process_and_so_is_its_own() {
    let here = Process::here();
    assert!(here.is_here());
    let others = forked(|| {
        let child = Process::here();
        let grandchild = forked(|| i32::from(child.is_here() || here.is_here()));
        grandchild + 2 * i32::from(here.is_here()) + 4 * i32::from(!child.is_here())
    });
    assert_eq!((others, here.is_here()), (0, true));
}

//! A fork beside a server's thread waits until that has looked at what is locked, and the child does not listen.

#![cfg(unix)]

mod forked;

use forked::forked;
use seawall::serve::{self, Server, fork};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

#[test]
fn what_is_looked_at_is_free_in_the_child() {
    let listener = serve::listen(serve::resolve("127.0.0.1", 0).unwrap()).unwrap();
    let server = Server::start("server", listener, 8, |stream| async move { drop(stream) }).unwrap();
    let (shared, over) = (Arc::new(Mutex::new(0u64)), Arc::new(AtomicBool::new(false)));
    let (looked_at, ended) = (shared.clone(), over.clone());
    // Never idle, and nearly always inside the lock.
    let busy = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            fork::apart(|| {
                let mut count = looked_at.lock().unwrap();
                for _ in 0..10_000 {
                    *count = std::hint::black_box(*count) + 1;
                }
            });
            std::thread::yield_now();
        }
    });
    for _ in 0..20 {
        let code = forked(|| {
            let free = shared.try_lock().is_ok_and(|count| *count % 10_000 == 0);
            i32::from(!free || server.is_here())
        });
        assert_eq!(code, 0);
    }
    over.store(true, Ordering::Relaxed);
    busy.join().unwrap();
    let address = server.address;
    assert!(TcpStream::connect(address).is_ok(), "the parent's listens on");
    drop(server);
    assert!(TcpStream::connect(address).is_err());
}

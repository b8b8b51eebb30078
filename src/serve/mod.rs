//! A server's thread: it listens, hands connections on, and ends everything at once when it is told to. What is said on a
//! connection is for whoever starts it.

#[cfg(unix)]
pub mod fork;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener as Blocking, ToSocketAddrs};
use std::thread::JoinHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// A server that listens. Dropping it ends it, with every connection.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    #[cfg(unix)]
    listening: fork::Listening,
    /// Threads are not taken along by a fork.
    process: u32,
}

/// The address that a host's name stands for: the first.
pub fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let first = (host, port).to_socket_addrs()?.next();
    first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
}

/// Listens; port 0 is any that is free. Who comes waits until a [`Server`] is there.
pub fn listen(wanted: SocketAddr) -> io::Result<Blocking> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(wanted), socket2::Type::STREAM, None)?;
    // On Windows the word means that two may listen at one place.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&wanted.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Server {
    /// Serves those who come, on a thread of that name: each connection runs `connection`. Of more than `most` at a time the
    /// oldest is given up, so that whoever comes is served, whatever others hold open.
    pub fn start<F, C>(thread: &str, listener: Blocking, most: usize, connection: F) -> io::Result<Server>
    where
        F: Fn(TcpStream) -> C + Send + 'static,
        C: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr()?;
        #[cfg(unix)]
        let listening = fork::Listening::at(&listener);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let carry = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, most, connection) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime drops every connection where it stands.
        };
        let begin = || std::thread::Builder::new().name(thread.to_owned()).spawn(carry);
        #[cfg(unix)]
        let begun = crate::drive::signals::away(begin)?;
        #[cfg(not(unix))]
        let begun = begin()?;
        Ok(Server {
            address,
            stop: Some(stop),
            thread: Some(begun),
            #[cfg(unix)]
            listening,
            process: std::process::id(),
        })
    }

    /// Whether it was started in this process: a forked child has the thing, but not its thread.
    pub fn is_here(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.is_here() {
            // Waking a thread that is not here may wait for ever.
            std::mem::forget(self.stop.take());
            std::mem::forget(self.thread.take());
            return;
        }
        #[cfg(unix)]
        self.listening.end();
        if let Some(stop) = self.stop.take() {
            // Whoever does not listen any more has ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept<F, C>(listener: Blocking, most: usize, connection: F)
where
    F: Fn(TcpStream) -> C,
    C: Future<Output = ()> + Send + 'static,
{
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                if most < usize::MAX && open.len() >= most {
                    open.retain(|each| !each.is_finished());
                    if open.len() >= most
                        && let Some(oldest) = open.pop_front()
                    {
                        oldest.abort();
                    }
                }
                let begun = tokio::spawn(connection(stream));
                if most < usize::MAX {
                    open.push_back(begun.abort_handle());
                }
            }
            // Out of file descriptors, mostly: others are about to be closed.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    }
}

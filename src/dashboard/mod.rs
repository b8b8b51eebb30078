//! The dashboard: one page, served by this process, that shows how its calls go.
//!
//! `state` is what the page is told, `gather` takes it together, `guard` says who may see it, `page` is the page itself, and
//! `server` answers. No thread of it ever takes the interpreter's lock: the page answers while Python computes.

mod gather;
mod guard;
mod page;
pub mod server;
pub mod state;

//! What all calls of the process went through: who wants to hear of them, and the ledger that counts them while somebody does.

mod hub;
mod ledger;

pub use hub::{Call, Listener, Listening, Note, Request, Watching, abandoned, ended, is_on, listen, passed, watch};
pub use ledger::{Failed, Series, failures, snapshot};

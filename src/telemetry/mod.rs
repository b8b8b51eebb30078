//! What all calls of the process went through: who wants to hear of them, the ledger that counts them while somebody does, what
//! breakers and monitors there are, and the exporters that show it.

#[cfg(feature = "net")]
mod exporter;
#[cfg(all(feature = "net", unix))]
mod group;
mod hub;
pub mod known;
mod ledger;
pub mod names;
mod snapshot;
#[cfg(feature = "net")]
pub mod speech;
mod text;

#[cfg(feature = "net")]
pub use exporter::{Exporter, Publisher, page};
#[cfg(feature = "net")]
pub use hub::Trace;
pub use hub::{Call, GIVEN_UP, Listener, Listening, Note, Request, Watching, abandoned, ended, is_on, left, listen, passed, watch};
pub use ledger::{Failed, Series, failures, snapshot};
pub use snapshot::{Samples, Snapshot, Value, forget, numbers};
pub use text::{Format, text};

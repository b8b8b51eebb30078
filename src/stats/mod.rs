//! Windows, sums and quantiles, and the latch that they stand behind: pure numbers. Nothing here reads a clock; whoever calls
//! says what time it is.

mod count_window;
mod histogram;
mod latch;
mod record;
mod ring;
mod slots;
mod time_window;
mod words;

pub use count_window::{CountWindow, Entry};
pub use histogram::Histogram;
#[cfg(not(loom))]
pub use latch::ask_whether_alone;
pub use latch::{Held, Latch};
pub use record::{Record, Tally};
pub use ring::Ring;
pub use slots::{Group, Slot, Timeline};
pub use time_window::{Sums, TimeWindow};
pub use words::{OTHER, Source, Word};

//! Health of something that is called: what the last calls were like, how bad that is, and when to say so.

mod alert;
mod core;
mod incident;
mod level;
mod prices;
mod rules;
mod silence;
mod tail;
mod text;
mod window;

pub use self::core::{Monitor, Snapshot};
pub use alert::{Alert, Kind, Reading};
pub use level::{Level, METRICS, Metric, Row, Seen, Unit};
pub use prices::{Price, price, prices, set_prices};
pub use rules::{Rule, Rules};
pub use silence::Silence;
pub use text::Language;
pub use window::Span;

pub use crate::stats::{Entry, Histogram, Record, Slot, Source, Tally, Word};

//! Who runs a machine. Nothing here decides: drivers carry out steps.

pub mod clock;
pub mod inline;
#[cfg(feature = "net")]
pub mod pause;
#[cfg(feature = "net")]
pub mod process;
#[cfg(all(unix, feature = "net"))]
pub mod signals;
#[cfg(feature = "net")]
pub mod still;
#[cfg(feature = "net")]
pub mod tokio;
pub mod trial;

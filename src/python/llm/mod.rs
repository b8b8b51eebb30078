//! The native client's Python side.

mod asked;
mod batch;
pub mod bridge;
mod extras;
mod finished;
mod foreign;
mod journal;
mod json;
mod keys;
mod leg;
pub mod pieces;
mod progress;
mod raise;
mod reply;
mod route;
mod run;
mod screened;
mod shared;
mod story;
mod stream;
mod vectors;
mod webhook;

pub use asked::asked;

use pyo3::prelude::*;

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<bridge::Bridge>()?;
    m.add_class::<leg::Leg>()?;
    m.add_class::<route::Route>()?;
    m.add_class::<route::Flying>()?;
    m.add_class::<run::Run>()?;
    m.add_class::<journal::JournalReader>()?;
    m.add_class::<reply::Reply>()?;
    m.add_class::<reply::Choice>()?;
    m.add_class::<reply::Chunk>()?;
    m.add_class::<stream::Stream>()?;
    m.add_class::<progress::AttemptEvent>()?;
    m.add_class::<pieces::AsyncPieces>()?;
    m.add_class::<webhook::Webhook>()?;
    m.add("ERROR_CLASSES", leg::class_names())
}

//! A server with OpenAI's API that misbehaves on command.

pub mod answer;
mod body;
pub mod faults;
mod invent;
pub mod log;
pub mod script;
pub mod server;
mod service;

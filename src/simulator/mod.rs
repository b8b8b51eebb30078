//! A server with OpenAI's API, and Anthropic's messages, that misbehaves on command.

mod anthropic;
mod asked;
mod body;
mod damage;
mod embeddings;
pub mod faults;
mod hints;
mod invent;
pub mod limits;
pub mod log;
mod openai;
mod refusal;
mod reply;
mod route;
mod said;
pub mod script;
pub mod server;
mod service;
pub mod spread;

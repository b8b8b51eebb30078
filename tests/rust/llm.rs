//! The native client against real sockets.

mod llm_client;
mod llm_stream;
mod raw_server;

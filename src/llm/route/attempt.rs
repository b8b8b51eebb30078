//! One attempt at a leg: the future that the driver runs.

use super::{Answer, From, Leg};
use crate::drive::clock;
use crate::drive::tokio::sleep_until;
use crate::engine::Instant;
use crate::guardrails::{Rails, Vault};
use crate::llm::client::Request;
use crate::llm::error::{ApiError, ErrorKind};
use crate::llm::interrupt::Beginning;
use crate::llm::order::{Order, Task};
use crate::llm::runtime::on_a_thread;
use crate::llm::stream::open_stream;
use crate::llm::{chat, embeddings, models, screen};
use std::sync::Arc;

/// Opens a stream and reads it up to its first content.
pub(super) async fn opened(
    from: From,
    leg: Arc<Leg>,
    request: Request,
    beginning: Beginning,
    records: bool,
    rails: Option<(Arc<Rails>, Vault)>,
) -> Result<Answer, ApiError> {
    let patience = leg.patience;
    let begun = async {
        let (client, endpoint) = leg.reached(from).await?;
        let mut stream = Box::new(open_stream(&client, &endpoint, request).await?);
        // What goes on from something is not the whole of it.
        if records && beginning.text.is_empty() {
            stream.record();
        }
        if let Some((rails, vault)) = rails {
            stream.guard(rails, vault);
        }
        stream.begins(beginning);
        let mut first = Vec::new();
        // A stream counts as begun with its first content; until then it may be tried again in silence.
        while let Some(delta) = stream.next().await? {
            let begun = delta.has_content();
            first.push(delta);
            if begun {
                break;
            }
        }
        stream.bound_silence(patience.idle);
        Ok(Answer::Stream(stream, first))
    };
    let limit = patience.first_token.map_or(Instant::NEVER, |span| clock::now().after(span));
    tokio::select! {
        biased;
        answer = begun => answer,
        () = sleep_until(limit) => {
            let seconds = patience.first_token.unwrap_or_default().as_secs_f64();
            let place = leg.endpoint.place();
            Err(ApiError::new(ErrorKind::Timeout, format!("Request timed out: no content from {place} within {seconds} s (first_token_timeout).")))
        }
    }
}

/// A reply longer than this is read on another thread: the one that carries all calls has them to think of.
const LONG: usize = 512 * 1024;

/// Asks for a whole answer. `rails`: what it has to pass, and how often it was asked for again.
pub(super) async fn answered(
    from: From,
    leg: Arc<Leg>,
    request: Request,
    order: Arc<Order>,
    rails: Option<(Arc<Rails>, u32)>,
) -> Result<Answer, ApiError> {
    let (client, endpoint) = leg.reached(from).await?;
    let reply = client.send_json(&endpoint, request).await?;
    if let (Some((rails, asked)), Task::Chat) = (rails, order.task) {
        let is_long = rails.asks() || reply.body.len() > screen::LONG;
        let read = move || screen::answered(reply, &rails, asked, &order.screened.vault).map(Arc::new).map(Answer::Chat);
        return if is_long { on_a_thread(read).await } else { read() };
    }
    let is_long = reply.body.len() > LONG;
    let read = move || match order.task {
        Task::Embeddings => embeddings::parse_reply(reply, order.inputs, dimensions(&order, &leg)).map(Arc::new).map(Answer::Embeddings),
        Task::Models => models::parse_reply(reply).map(Answer::Models),
        Task::Chat | Task::Stream => chat::parse_reply(reply).map(Arc::new).map(Answer::Chat),
    };
    if is_long { on_a_thread(read).await } else { read() }
}

/// How long the vectors were asked to be.
fn dimensions(order: &Order, leg: &Leg) -> Option<usize> {
    let (_, value) = order.params_at(leg).find(|(name, _)| &**name == "dimensions")?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

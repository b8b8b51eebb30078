//! Answers as Anthropic's messages, and its errors.

use super::asked::Asked;
use super::faults::{Reply, Status};
use super::reply::{Content, Healthy, Stream};
use super::said::{Finish, Said, pieces, tokens};
use serde_json::{Value, json};

/// What an error may be.
const TYPES: [&str; 10] = [
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "timeout_error",
    "overloaded_error",
];

/// The reason why an answer ends, and the sequence at which it does.
fn reason(finish: &Finish) -> (&str, Value) {
    match finish {
        Finish::Stop => ("end_turn", Value::Null),
        Finish::Sequence(sequence) => ("stop_sequence", json!(sequence)),
        Finish::Length => ("max_tokens", Value::Null),
        Finish::Calls => ("tool_use", Value::Null),
        Finish::Said(reason) => (reason, Value::Null),
    }
}

/// A block of content: how it begins, and what its pieces are.
struct Block {
    begins: Value,
    pieces: Vec<(Value, usize)>,
    whole: Value,
}

fn blocks(said: &Said, number: u64) -> Vec<Block> {
    let delta = |kind: &str, field: &str, text: &str| {
        let one = |piece: String| {
            let tokens = tokens(&piece);
            (json!({ "type": kind, field: piece }), tokens)
        };
        pieces(text, false).into_iter().map(one).collect::<Vec<_>>()
    };
    let mut blocks = Vec::new();
    if let Some(reasoning) = &said.reasoning {
        let mut pieces = delta("thinking_delta", "thinking", reasoning);
        pieces.push((json!({ "type": "signature_delta", "signature": "c2ltdWxhdG9y" }), 0));
        let begins = json!({ "type": "thinking", "thinking": "", "signature": "" });
        blocks.push(Block { begins, pieces, whole: json!({ "type": "thinking", "thinking": reasoning, "signature": "c2ltdWxhdG9y" }) });
    }
    if said.calls.is_empty() || !said.text.is_empty() {
        let pieces = delta("text_delta", "text", &said.text);
        blocks.push(Block { begins: json!({ "type": "text", "text": "" }), pieces, whole: json!({ "type": "text", "text": said.text }) });
    }
    for (place, call) in said.calls.iter().enumerate() {
        let id = if place == 0 { format!("toolu_{number}") } else { format!("toolu_{number}_{place}") };
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
        blocks.push(Block {
            begins: json!({ "type": "tool_use", "id": id, "name": call.name, "input": {} }),
            pieces: delta("input_json_delta", "partial_json", &call.arguments),
            whole: json!({ "type": "tool_use", "id": id, "name": call.name, "input": input }),
        });
    }
    blocks
}

/// An answer, whole or in pieces.
pub fn answer(asked: &Asked, stream: bool, seed: u64, number: u64, reply: &Reply) -> Healthy {
    let said = asked.said(seed, 0, reply);
    let blocks = blocks(&said, number);
    let message = |content: Vec<Value>, reason: Value, sequence: Value, output: usize| {
        json!({
            "id": format!("msg_{number}"),
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": {
                "input_tokens": asked.prompt_tokens,
                "output_tokens": output,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
            },
        })
    };
    let (reason, sequence) = reason(&said.finish);
    if !stream {
        let value = message(blocks.into_iter().map(|b| b.whole).collect(), json!(reason), sequence, said.tokens());
        return Healthy::Whole { value, list: "content", tokens: said.tokens() };
    }
    let started = event(json!({ "type": "message_start", "message": message(Vec::new(), Value::Null, Value::Null, 1) }));
    let ended = event(json!({
        "type": "message_delta",
        "delta": { "stop_reason": reason, "stop_sequence": sequence },
        "usage": { "output_tokens": said.tokens() },
    }));
    let mut between = started.clone();
    let (mut opening, mut content) = (String::new(), Vec::new());
    for (index, block) in blocks.iter().enumerate() {
        between.push_str(&event(json!({ "type": "content_block_start", "index": index, "content_block": block.begins })));
        if index == 0 {
            between.push_str(&event(json!({ "type": "ping" })));
            opening = std::mem::take(&mut between);
        }
        for (delta, tokens) in &block.pieces {
            let text = std::mem::take(&mut between) + &event(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
            content.push(Content { text, tokens: *tokens });
        }
        between.push_str(&event(json!({ "type": "content_block_stop", "index": index })));
    }
    Healthy::Stream(Stream {
        opening,
        content,
        finish: between + &ended,
        usage: String::new(),
        done: event(json!({ "type": "message_stop" })),
        none: started + &ended,
    })
}

/// An event, under its type's name.
pub fn event(value: Value) -> String {
    format!("event: {}\ndata: {value}\n\n", value.get("type").and_then(Value::as_str).unwrap_or("message"))
}

/// The error object of a status.
pub fn error(status: &Status, number: u64) -> Value {
    let (kind, text) = match status.code {
        401 => ("authentication_error", "invalid x-api-key"),
        402 => ("billing_error", "Your credit balance is too low."),
        403 => ("permission_error", "Your API key may not do this."),
        404 => ("not_found_error", "Not found"),
        408 | 504 => ("timeout_error", "The request timed out."),
        413 => ("request_too_large", "The request is too large."),
        429 => ("rate_limit_error", "This request would exceed your rate limit."),
        529 => ("overloaded_error", "Overloaded"),
        code if code >= 500 => ("api_error", "Internal server error"),
        _ => ("invalid_request_error", "The request is not valid."),
    };
    // A type of the other API's means nothing here.
    let kind = status.error_type.as_deref().filter(|t| TYPES.contains(t)).unwrap_or(kind);
    let message = status.message.as_deref().unwrap_or(text);
    json!({ "type": "error", "error": { "type": kind, "message": message }, "request_id": format!("req_{number}") })
}

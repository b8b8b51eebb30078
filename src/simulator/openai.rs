//! Answers as OpenAI's chat completions, and its errors.

use super::asked::Asked;
use super::faults::{Reply, Status};
use super::reply::{Content, Healthy, Stream};
use super::said::{Finish, Said, hash, pieces, split, tokens};
use serde_json::{Value, json};

/// When the first answer was made, by what it says.
const EPOCH: u64 = 1_700_000_000;

fn reason(finish: &Finish) -> &str {
    match finish {
        Finish::Stop | Finish::Sequence(_) => "stop",
        Finish::Length => "length",
        Finish::Calls => "tool_calls",
        Finish::Said(reason) => reason,
    }
}

fn call_id(number: u64, choice: usize, call: usize) -> String {
    if call == 0 { format!("call_{number}_{choice}") } else { format!("call_{number}_{choice}_{call}") }
}

/// A token with its logarithm of probability.
fn likely(token: &str, logprob: f64) -> Value {
    json!({ "token": token, "logprob": logprob, "bytes": token.as_bytes() })
}

/// What is said of a text's tokens: the token itself, then less likely ones.
fn logprobs(text: &str, beside: usize) -> Value {
    let content: Vec<Value> = split(text)
        .iter()
        .map(|token| {
            // From -0.001 to -1.
            let own = -((hash(&[token.as_bytes()]) % 1000 + 1) as f64) / 1000.0;
            let mut said = likely(token, own);
            let others = (1..beside).map(|place| likely(&format!("{token}{place}"), own - place as f64));
            said["top_logprobs"] = (beside > 0).then(|| likely(token, own)).into_iter().chain(others).collect();
            said
        })
        .collect();
    json!({ "content": content, "refusal": null })
}

fn usage(asked: &Asked, said: &[Said]) -> Value {
    let completion: usize = said.iter().map(Said::tokens).sum();
    let mut usage = json!({
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": asked.prompt_tokens + completion,
    });
    let reasoning: usize = said.iter().map(Said::reasoning_tokens).sum();
    if reasoning > 0 {
        usage["completion_tokens_details"] = json!({ "reasoning_tokens": reasoning });
    }
    usage
}

fn message(said: &Said, number: u64, index: usize) -> Value {
    let mut message = json!({ "role": "assistant", "content": said.text, "refusal": null });
    if let Some(reasoning) = &said.reasoning {
        message["reasoning_content"] = json!(reasoning);
    }
    if !said.calls.is_empty() {
        let call = |(place, call): (usize, &super::said::Call)| {
            json!({
                "id": call_id(number, index, place),
                "type": "function",
                "function": { "name": call.name, "arguments": call.arguments },
            })
        };
        message["tool_calls"] = said.calls.iter().enumerate().map(call).collect();
        if said.text.is_empty() {
            message["content"] = Value::Null;
        }
    }
    message
}

/// An answer, whole or in pieces.
pub fn answer(asked: &Asked, stream: bool, seed: u64, number: u64, reply: &Reply) -> Healthy {
    let said: Vec<Said> = (0..asked.choices).map(|index| asked.said(seed, index, reply)).collect();
    if stream { Healthy::Stream(streamed(asked, &said, number)) } else { whole(asked, &said, number) }
}

fn whole(asked: &Asked, said: &[Said], number: u64) -> Healthy {
    let choice = |(index, said): (usize, &Said)| {
        json!({
            "index": index,
            "message": message(said, number, index),
            "logprobs": asked.logprobs.map(|beside| logprobs(&said.text, beside)),
            "finish_reason": reason(&said.finish),
        })
    };
    let value = json!({
        "id": format!("chatcmpl-{number}"),
        "object": "chat.completion",
        "created": EPOCH + number,
        "model": asked.model,
        "choices": said.iter().enumerate().map(choice).collect::<Vec<_>>(),
        "usage": usage(asked, said),
        "system_fingerprint": "fp_simulator",
    });
    Healthy::Whole { value, list: "choices", tokens: said.iter().map(Said::tokens).sum() }
}

fn streamed(asked: &Asked, said: &[Said], number: u64) -> Stream {
    let event = |choices: Value, usage: Value| {
        let mut event = json!({
            "id": format!("chatcmpl-{number}"),
            "object": "chat.completion.chunk",
            "created": EPOCH + number,
            "model": asked.model,
            "system_fingerprint": "fp_simulator",
            "choices": choices,
        });
        if asked.usage_wanted {
            event["usage"] = usage;
        }
        format!("data: {event}\n\n")
    };
    let delta = |index: usize, delta: Value, logprobs: Value, finish: Value| {
        event(json!([{ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish }]), Value::Null)
    };
    let opening = |(index, said): (usize, &Said)| {
        let mut opening = json!({ "role": "assistant", "content": "" });
        if let (Some(call), true) = (said.calls.first(), said.text.is_empty()) {
            opening = json!({ "role": "assistant", "content": null, "tool_calls": [begun(number, index, 0, &call.name)] });
        }
        delta(index, opening, Value::Null, Value::Null)
    };
    let content = |(index, said): (usize, &Said)| {
        let mut content = Vec::new();
        for piece in said.reasoning.iter().flat_map(|r| pieces(r, false)) {
            let tokens = tokens(&piece);
            content.push(Content { text: delta(index, json!({ "reasoning_content": piece }), Value::Null, Value::Null), tokens });
        }
        for piece in pieces(&said.text, asked.logprobs.is_some()) {
            let beside = asked.logprobs.map_or(Value::Null, |beside| logprobs(&piece, beside));
            let tokens = tokens(&piece);
            content.push(Content { text: delta(index, json!({ "content": piece }), beside, Value::Null), tokens });
        }
        for (place, call) in said.calls.iter().enumerate() {
            // The first call's name has come with the role, if no text goes before it.
            let mut begins = if place == 0 && said.text.is_empty() {
                String::new()
            } else {
                delta(index, json!({ "tool_calls": [begun(number, index, place, &call.name)] }), Value::Null, Value::Null)
            };
            for piece in pieces(&call.arguments, false) {
                let tokens = tokens(&piece);
                let arguments = json!({ "tool_calls": [{ "index": place, "function": { "arguments": piece } }] });
                let text = std::mem::take(&mut begins) + &delta(index, arguments, Value::Null, Value::Null);
                content.push(Content { text, tokens });
            }
        }
        content
    };
    let finish = |(index, said): (usize, &Said)| delta(index, json!({}), Value::Null, json!(reason(&said.finish)));
    Stream {
        opening: said.iter().enumerate().map(opening).collect(),
        content: interleaved(said.iter().enumerate().map(content).collect()),
        finish: said.iter().enumerate().map(finish).collect(),
        usage: if asked.usage_wanted { event(json!([]), usage(asked, said)) } else { String::new() },
        done: "data: [DONE]\n\n".into(),
        none: event(json!([]), Value::Null),
    }
}

/// A call whose arguments are to come.
fn begun(number: u64, choice: usize, place: usize, name: &str) -> Value {
    json!({ "index": place, "id": call_id(number, choice, place), "type": "function", "function": { "name": name, "arguments": "" } })
}

/// The pieces of all choices, one of each in turn.
fn interleaved(choices: Vec<Vec<Content>>) -> Vec<Content> {
    let mut choices: Vec<_> = choices.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(choices.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}

/// The error object of a status.
pub fn error(status: &Status) -> Value {
    let (text, kind, usual): (&str, &str, Option<&str>) = match status.code {
        400 => ("The request is not valid.", "invalid_request_error", None),
        401 => ("Incorrect API key provided.", "invalid_request_error", Some("invalid_api_key")),
        402 => ("Payment is required.", "billing_error", Some("billing_hard_limit_reached")),
        403 => ("You are not allowed to use this model.", "invalid_request_error", None),
        404 => ("The model does not exist or you do not have access to it.", "invalid_request_error", Some("model_not_found")),
        408 => ("The request timed out.", "server_error", None),
        409 => ("The request conflicts with another.", "invalid_request_error", None),
        422 => ("The request cannot be processed.", "invalid_request_error", None),
        429 => ("Rate limit reached.", "requests", Some("rate_limit_exceeded")),
        503 => ("The server is overloaded.", "server_error", None),
        code if code >= 500 => ("The server had an error.", "server_error", None),
        _ => ("The request failed.", "invalid_request_error", None),
    };
    let message = status.message.as_deref().unwrap_or(text);
    let kind = status.error_type.as_deref().unwrap_or(kind);
    let code = status.error_code.as_deref().or(usual);
    json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
}

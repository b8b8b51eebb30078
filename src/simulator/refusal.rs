//! What is wrong with a request, in the words of its API.

use super::faults::Status;
use super::route::{Protocol, Route, What};
use hyper::header::HeaderMap;
use serde_json::{Map, Value};

type Refused = Result<(), Box<Status>>;

/// Roles of OpenAI's messages.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
/// Inputs of one embeddings request.
const INPUTS: usize = 2048;

fn wrong(message: impl AsRef<str>) -> Box<Status> {
    Box::new(Status::of(400, message.as_ref(), None))
}

/// What is wrong with a request whose path and key are right.
pub fn refusal(route: &Route, protocol: Protocol, headers: &HeaderMap, body: Option<&Map<String, Value>>, model: Option<&str>) -> Refused {
    if protocol == Protocol::Anthropic && !headers.contains_key("anthropic-version") {
        return Err(wrong("anthropic-version: header is required"));
    }
    if matches!(route.what, What::Models | What::Model(_)) {
        return Ok(());
    }
    let body = body.ok_or_else(|| wrong("We could not parse the JSON body of your request."))?;
    if protocol == Protocol::Anthropic {
        return messages(&route.what, body, model);
    }
    if model.is_none() {
        return Err(wrong("you must provide a model parameter"));
    }
    let needs = if matches!(route.what, What::Embeddings) { "input" } else { "messages" };
    let given = body.get(needs).ok_or_else(|| wrong(format!("Missing required parameter: '{needs}'.")))?;
    match route.what {
        What::Embeddings if embeddable(given) => Ok(()),
        What::Embeddings => Err(wrong("'$.input' is invalid. Please check the API reference.")),
        _ => chat(given, body),
    }
}

/// A text, texts, tokens, or lists of tokens.
fn embeddable(input: &Value) -> bool {
    let tokens = |value: &Value| value.as_array().is_some_and(|t| !t.is_empty() && t.iter().all(Value::is_u64));
    let items = || input.as_array().filter(|i| !i.is_empty() && i.len() <= INPUTS);
    input.is_string() || tokens(input) || items().is_some_and(|i| i.iter().all(Value::is_string) || i.iter().all(tokens))
}

fn chat(messages: &Value, body: &Map<String, Value>) -> Refused {
    let messages = messages.as_array().filter(|m| !m.is_empty() && m.iter().all(Value::is_object));
    let messages = messages.ok_or_else(|| wrong("Invalid value for 'messages': expected an array of objects with at least one."))?;
    let mut open: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let role = message.get("role").and_then(Value::as_str).unwrap_or("");
        if !ROLES.contains(&role) {
            return Err(wrong(format!("Invalid value for 'messages[{at}].role': '{role}'. Supported values are: {}.", ROLES.join(", "))));
        }
        if role == "tool" {
            // Servers that are only compatible want no id.
            let Some(id) = message.get("tool_call_id").and_then(Value::as_str) else { continue };
            let Some(place) = open.iter().position(|o| *o == id) else {
                return Err(wrong(format!(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls' \
                     (messages[{at}].tool_call_id '{id}')."
                )));
            };
            open.remove(place);
            continue;
        }
        unanswered(&open)?;
        let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
        open = calls.filter_map(|call| call.get("id")?.as_str()).collect();
    }
    unanswered(&open)?;
    parameters(body)
}

fn unanswered(open: &[&str]) -> Refused {
    match open {
        [] => Ok(()),
        ids => Err(wrong(format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following \
             tool_call_ids did not have response messages: {}",
            ids.join(", ")
        ))),
    }
}

fn parameters(body: &Map<String, Value>) -> Refused {
    let given = |name: &str| body.get(name).filter(|v| !v.is_null());
    let tools = given("tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let name = |tool: &Value| tool.get("function").and_then(|f| f.get("name")?.as_str()).map(str::to_owned);
    if let Some(at) = tools.iter().position(|tool| name(tool).is_none()) {
        return Err(wrong(format!("Missing required parameter: 'tools[{at}].function.name'.")));
    }
    if let Some(choice) = given("tool_choice") {
        let named = choice.get("function").and_then(|f| f.get("name")?.as_str());
        if tools.is_empty() && choice != "none" {
            return Err(wrong("Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."));
        }
        if let Some(missing) = named.filter(|n| !tools.iter().any(|tool| name(tool).as_deref() == Some(*n))) {
            return Err(wrong(format!("Tool choice '{missing}' not found in 'tools' parameter.")));
        }
    }
    if given("n").is_some_and(|n| !n.as_u64().is_some_and(|n| (1..=128).contains(&n))) {
        return Err(wrong("Invalid value for 'n': expected an integer from 1 to 128."));
    }
    if let Some(top) = given("top_logprobs") {
        if given("logprobs") != Some(&Value::Bool(true)) {
            return Err(wrong("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."));
        }
        if top.as_u64().is_none_or(|n| n > 20) {
            return Err(wrong("Invalid value for 'top_logprobs': expected an integer from 0 to 20."));
        }
    }
    Ok(())
}

/// A request of Anthropic's.
fn messages(what: &What, body: &Map<String, Value>, model: Option<&str>) -> Refused {
    if model.is_none() {
        return Err(wrong("model: Field required"));
    }
    if matches!(what, What::Chat) && body.get("max_tokens").and_then(Value::as_u64).unwrap_or(0) == 0 {
        return Err(wrong(match body.get("max_tokens") {
            None => "max_tokens: Field required",
            Some(_) => "max_tokens: must be greater than or equal to 1",
        }));
    }
    let messages = body.get("messages").and_then(Value::as_array).ok_or_else(|| wrong("messages: Field required"))?;
    if messages.is_empty() {
        return Err(wrong("messages: at least one message is required"));
    }
    for (at, message) in messages.iter().enumerate() {
        let role = message.get("role").and_then(Value::as_str).unwrap_or("");
        if !matches!(role, "user" | "assistant") {
            return Err(wrong(format!("messages.{at}.role: Input should be 'user' or 'assistant'")));
        }
        let blocks = |name: &str, id: &str| -> Vec<String> {
            let blocks = message.get("content").and_then(Value::as_array).into_iter().flatten();
            blocks.filter(|b| b.get("type") == Some(&name.into())).filter_map(|b| b.get(id)?.as_str().map(str::to_owned)).collect()
        };
        let answered = messages.get(at + 1).and_then(|m| m.get("content")).and_then(Value::as_array).into_iter().flatten();
        let answered: Vec<&str> = answered.filter_map(|b| b.get("tool_use_id")?.as_str()).collect();
        if let Some(id) = blocks("tool_use", "id").iter().find(|id| !answered.contains(&id.as_str())) {
            return Err(wrong(format!("messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {id}.")));
        }
    }
    Ok(())
}

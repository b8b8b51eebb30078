//! What a chat request asks for, whichever protocol says it.

use super::said::tokens;
use serde_json::{Map, Value};

/// A tool that may be called.
#[derive(Clone, Copy)]
pub struct Tool<'a> {
    pub name: &'a str,
    /// The schema of its arguments.
    pub parameters: &'a Value,
}

/// Whether tools are to be called.
pub enum Choice<'a> {
    Auto,
    Never,
    Any,
    Named(&'a str),
}

/// The form of the answer's text.
pub enum Format<'a> {
    Text,
    Json,
    Schema(&'a Value),
}

/// A chat request.
pub struct Asked<'a> {
    pub model: &'a str,
    /// The user's last text.
    pub question: String,
    /// What tools have answered since.
    pub results: Vec<String>,
    pub prompt_tokens: usize,
    pub tools: Vec<Tool<'a>>,
    pub choice: Choice<'a>,
    /// More than one tool may be called at once.
    pub parallel: bool,
    pub stop: Vec<&'a str>,
    /// The most tokens of the answer.
    pub limit: Option<usize>,
    pub format: Format<'a>,
    /// How many answers.
    pub choices: usize,
    pub seed: Option<i64>,
    /// So many likely tokens beside each one said; `None`: no logarithms of probabilities at all.
    pub logprobs: Option<usize>,
    /// Whether the model is to show how it thinks.
    pub thinking: bool,
    /// A stream tells its usage at the end.
    pub usage_wanted: bool,
}

static NOTHING: Value = Value::Null;

/// The text of a message's content.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|p| p.get("text")?.as_str()).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or("")
}

fn content(message: &Value) -> &Value {
    message.get("content").unwrap_or(&NOTHING)
}

fn list<'a>(body: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    body.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn number(body: &Map<String, Value>, name: &str) -> Option<usize> {
    body.get(name).and_then(Value::as_u64).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

fn flag(body: &Map<String, Value>, name: &str) -> Option<bool> {
    body.get(name).and_then(Value::as_bool)
}

fn thinking(body: &Map<String, Value>) -> bool {
    body.get("thinking").and_then(|t| t.get("type")?.as_str()).is_some_and(|kind| kind != "disabled")
}

/// A text, or each of a list.
fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A request of OpenAI's chat completions.
pub fn openai<'a>(body: &'a Map<String, Value>, model: &'a str) -> Asked<'a> {
    let messages = list(body, "messages");
    let asked = messages.iter().rposition(|m| role(m) == "user");
    let since = &messages[asked.map_or(0, |at| at + 1)..];
    let format = match body.get("response_format").and_then(|f| Some((f.get("type")?.as_str()?, f.get("json_schema")))) {
        Some(("json_object", _)) => Format::Json,
        Some(("json_schema", Some(named))) => Format::Schema(named.get("schema").unwrap_or(&NOTHING)),
        _ => Format::Text,
    };
    let choice = match body.get("tool_choice") {
        Some(Value::String(choice)) if choice == "required" => Choice::Any,
        Some(Value::String(choice)) if choice == "none" => Choice::Never,
        Some(Value::Object(choice)) => choice.get("function").and_then(|f| f.get("name")?.as_str()).map_or(Choice::Auto, Choice::Named),
        _ => Choice::Auto,
    };
    let tools = list(body, "tools").iter().filter_map(|tool| {
        let function = tool.get("function")?;
        Some(Tool { name: function.get("name")?.as_str()?, parameters: function.get("parameters").unwrap_or(&NOTHING) })
    });
    Asked {
        model,
        question: asked.map(|at| text_of(content(&messages[at]))).unwrap_or_default(),
        results: since.iter().filter(|m| role(m) == "tool").map(|m| text_of(content(m))).collect(),
        prompt_tokens: messages.iter().map(|m| 4 + tokens(&text_of(content(m)))).sum(),
        tools: tools.collect(),
        choice,
        parallel: flag(body, "parallel_tool_calls").unwrap_or(true),
        stop: texts(body.get("stop")),
        limit: number(body, "max_completion_tokens").or_else(|| number(body, "max_tokens")),
        format,
        choices: number(body, "n").unwrap_or(1).clamp(1, 128),
        seed: body.get("seed").and_then(Value::as_i64),
        logprobs: flag(body, "logprobs").filter(|wanted| *wanted).map(|_| number(body, "top_logprobs").unwrap_or(0).min(20)),
        thinking: thinking(body),
        usage_wanted: body.get("stream_options").and_then(Value::as_object).and_then(|o| flag(o, "include_usage")).unwrap_or(false),
    }
}

/// What a content block of a tool's result says.
fn result(block: &Value) -> Option<String> {
    (block.get("type")?.as_str()? == "tool_result").then(|| text_of(content(block)))
}

/// A request of Anthropic's messages.
pub fn anthropic<'a>(body: &'a Map<String, Value>, model: &'a str) -> Asked<'a> {
    let messages = list(body, "messages");
    let results = |message: &Value| content(message).as_array().into_iter().flatten().filter_map(result).collect::<Vec<_>>();
    let question = messages.iter().rev().filter(|m| role(m) == "user").map(|m| text_of(content(m))).find(|text| !text.is_empty());
    let said = |message: &Value| tokens(&text_of(content(message))) + results(message).iter().map(|r| tokens(r)).sum::<usize>();
    let chosen = body.get("tool_choice");
    let choice = match chosen.and_then(|c| c.get("type")?.as_str()) {
        Some("any") => Choice::Any,
        Some("none") => Choice::Never,
        Some("tool") => chosen.and_then(|c| c.get("name")?.as_str()).map_or(Choice::Any, Choice::Named),
        _ => Choice::Auto,
    };
    let tools = list(body, "tools")
        .iter()
        .filter_map(|tool| Some(Tool { name: tool.get("name")?.as_str()?, parameters: tool.get("input_schema").unwrap_or(&NOTHING) }));
    Asked {
        model,
        question: question.unwrap_or_default(),
        results: messages.last().map(results).unwrap_or_default(),
        prompt_tokens: body.get("system").map_or(0, |s| tokens(&text_of(s))) + messages.iter().map(|m| 4 + said(m)).sum::<usize>(),
        tools: tools.collect(),
        choice,
        parallel: !chosen.and_then(|c| c.get("disable_parallel_tool_use")?.as_bool()).unwrap_or(false),
        stop: texts(body.get("stop_sequences")),
        limit: number(body, "max_tokens"),
        format: match body.get("output_config").and_then(|o| o.get("format")?.get("schema")) {
            Some(schema) => Format::Schema(schema),
            None => Format::Text,
        },
        choices: 1,
        seed: None,
        logprobs: None,
        thinking: thinking(body),
        usage_wanted: true,
    }
}

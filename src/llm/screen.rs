//! Guardrails around chats: which texts of a request and of an answer they look at, whole and in pieces, and what they leave.

use super::chat::{self, ChatReply, Choice};
use super::client::RawReply;
use super::delta::{Delta, ToolCallDelta};
use super::error::{Again, ApiError, ErrorKind};
use super::runtime::on_a_thread;
use crate::guardrails::{Filter, Rails, Refusal, Stop, Tally, Text, Vault};
use bytes::Bytes;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// An answer longer than this is looked at on another thread, as is one that Python looks at.
pub(super) const LONG: usize = 64 * 1024;

/// A text of an answer, in a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Content,
    Reasoning,
    Refusal,
    /// Of a tool call, by its place.
    Arguments(usize),
}

impl Field {
    fn place(self, choice: u32) -> String {
        let of = if choice == 0 { String::new() } else { format!("choices[{choice}].") };
        match self {
            Field::Content => format!("{of}content"),
            Field::Reasoning => format!("{of}reasoning"),
            Field::Refusal => format!("{of}refusal"),
            Field::Arguments(at) => format!("{of}tool_calls[{at}].arguments"),
        }
    }

    /// Puts a text in place of the one that a message, or a piece of one, has there.
    fn put(self, message: &mut Value, text: &str) {
        let slot = match self {
            Field::Content => message.get_mut("content"),
            Field::Reasoning if message.get("reasoning_content").is_some_and(|kept| !kept.is_null()) => {
                message.get_mut("reasoning_content")
            }
            Field::Reasoning => message.get_mut("reasoning"),
            Field::Refusal => message.get_mut("refusal"),
            Field::Arguments(at) => message
                .get_mut("tool_calls")
                .and_then(|calls| calls.get_mut(at))
                .and_then(|call| call.get_mut("function"))
                .and_then(|function| function.get_mut("arguments")),
        };
        if let Some(slot) = slot {
            *slot = text.into();
        }
    }
}

/// The texts of messages, or of the input of an embeddings model: all that a model reads as such.
fn texts(content: &mut Value) -> Vec<(String, &mut String)> {
    fn of_parts<'a>(place: &str, parts: &'a mut Value, found: &mut Vec<(String, &'a mut String)>) {
        match parts {
            Value::String(text) => found.push((place.to_owned(), text)),
            Value::Array(parts) => {
                for (at, part) in parts.iter_mut().enumerate() {
                    let place = format!("{place}[{at}]");
                    match part {
                        Value::String(text) => found.push((place, text)),
                        Value::Object(part) => {
                            for (name, value) in part.iter_mut() {
                                match (&**name, value) {
                                    ("text" | "refusal" | "thinking" | "input_text", Value::String(text)) => {
                                        found.push((format!("{place}.{name}"), text))
                                    }
                                    ("content", inner) => of_parts(&format!("{place}.content"), inner, found),
                                    _ => {}
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    let Value::Array(messages) = content else {
        of_parts("input", content, &mut found);
        return found;
    };
    for (at, message) in messages.iter_mut().enumerate() {
        let place = format!("messages[{at}]");
        match message {
            Value::String(text) => found.push((format!("input[{at}]"), text)),
            Value::Object(message) => {
                for (name, value) in message.iter_mut() {
                    match (&**name, value) {
                        ("content" | "refusal" | "reasoning" | "reasoning_content", inner) => {
                            of_parts(&format!("{place}.{name}"), inner, &mut found)
                        }
                        ("tool_calls", Value::Array(calls)) => {
                            for (at, call) in calls.iter_mut().enumerate() {
                                if let Some(Value::String(text)) =
                                    call.get_mut("function").and_then(|function| function.get_mut("arguments"))
                                {
                                    found.push((format!("{place}.tool_calls[{at}].arguments"), text));
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// What is asked, if guardrails have changed it, as JSON; and what they have done to it.
pub type Asked = (Option<Box<[u8]>>, Tally);

/// What is asked as the guardrails leave it: `messages` or `input`, as JSON.
pub fn asked(content: &[u8], rails: &Rails) -> Result<Asked, Stop> {
    // Written by ourselves, it is JSON.
    let mut value: Value = serde_json::from_slice(content).unwrap_or_default();
    let mut found = texts(&mut value);
    let mut looked: Vec<Text<'_>> =
        found.iter().map(|(place, text)| Text { place: place.clone(), text: Cow::Owned((**text).clone()) }).collect();
    let tally = rails.check(&mut looked)?;
    if tally.redactions() == 0 {
        return Ok((None, tally));
    }
    for ((_, slot), text) in found.iter_mut().zip(looked) {
        **slot = text.text.into_owned();
    }
    let written = serde_json::to_vec(&value).unwrap_or_default();
    Ok((Some(written.into_boxed_slice()), tally))
}

/// The messages with what was answered to them and refused, and why.
pub(super) fn with_exchange(messages: &[u8], again: &Again) -> Option<Vec<u8>> {
    let mut all: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(messages).ok()?;
    for (role, content) in [("assistant", &again.said), ("user", &again.told)] {
        all.push(serde_json::value::to_raw_value(&json!({ "role": role, "content": content })).ok()?);
    }
    serde_json::to_vec(&all).ok()
}

/// What a refused answer fails with; `asked`: how often it was asked for again already.
fn refused(refusal: Refusal, asked: u32, said: &str) -> ApiError {
    let kind = if refusal.is_shape { ErrorKind::OutputShape } else { ErrorKind::OutputRefused };
    let message = format!("the answer was refused by the guardrail \"{}\" ({}): {}", refusal.rule, refusal.place, refusal.why);
    let mut error = ApiError::new(kind, message);
    (error.code, error.param) = (Some(refusal.rule.to_string()), Some(refusal.place));
    if refusal.is_shape {
        error.again = refusal.again.filter(|(_, most)| asked < *most).map(|(told, _)| Again { said: said.to_owned(), told });
        error.should_retry = Some(error.again.is_some());
    }
    error
}

fn stopped(stop: Stop, asked: u32, said: &str) -> ApiError {
    match stop {
        Stop::Refused(refusal) => refused(refusal, asked, said),
        Stop::Interrupted(raised) => {
            let mut error = ApiError::new(ErrorKind::OutputRefused, "the answer was refused: a guardrail failed in a way of its own");
            error.raised = Some(raised);
            error
        }
    }
}

fn choice_texts(choice: &Choice) -> impl Iterator<Item = (Field, &str)> {
    let fixed = [
        (Field::Content, Some(&*choice.content)),
        (Field::Reasoning, choice.reasoning.as_deref()),
        (Field::Refusal, choice.refusal.as_deref()),
    ];
    let calls = choice.tool_calls.iter().enumerate().map(|(at, call)| (Field::Arguments(at), &*call.arguments));
    fixed.into_iter().filter_map(|(field, text)| Some((field, text?))).filter(|(_, text)| !text.is_empty()).chain(calls)
}

/// Why an answer cannot be of any shape, if it cannot; nothing at all where it is a call of a tool.
fn unfit(is_refused: bool, calls: bool, content: &str, finish_reason: Option<&str>) -> Option<Option<&'static str>> {
    match finish_reason {
        Some("length") => Some(Some("it was cut short (finish_reason \"length\"): allow more tokens")),
        _ if content.is_empty() && is_refused => Some(Some("the model refused")),
        _ if content.is_empty() && calls => None,
        _ => Some(None),
    }
}

/// A whole answer as the guardrails leave it; `asked`: how often it was asked for again already; `vault`: what will be put back.
pub(super) fn answered(reply: RawReply, rails: &Rails, asked: u32, vault: &Vault) -> Result<ChatReply, ApiError> {
    let mut read = chat::parse_reply(reply.clone())?;
    let mut tally = Tally::default();
    let mut changed: Vec<(usize, Field, String)> = Vec::new();
    for (number, choice) in read.choices().enumerate() {
        let mut content = Cow::Borrowed(&*choice.content);
        for (field, text) in choice_texts(choice) {
            let mut looked = [Text { place: field.place(choice.index), text: Cow::Borrowed(text) }];
            tally.add(rails.check(&mut looked).map_err(|stop| stopped(stop, asked, ""))?);
            let [Text { text: Cow::Owned(text), .. }] = looked else { continue };
            if field == Field::Content {
                content = Cow::Owned(text.clone());
            }
            changed.push((choice.place, field, text));
        }
        if let Some(unfit) = unfit(choice.refusal.is_some(), !choice.tool_calls.is_empty(), &content, choice.finish_reason.as_deref()) {
            let place = Field::Content.place(choice.index);
            let (mended, mut of_shape) = rails.fit(&place, &content, unfit, vault).map_err(|stop| stopped(stop, asked, &content))?;
            if number > 0 || !vault.is_empty() {
                of_shape.parsed = None; // what the reply is read as is its first choice, and in a cache of nobody's
            }
            tally.add(of_shape);
            changed.extend(mended.map(|text| (choice.place, Field::Content, text)));
        }
    }
    if !changed.is_empty() {
        let mut body: Value = serde_json::from_slice(super::wire::without_mark(&reply.body)).unwrap_or_default();
        for (place, field, text) in changed {
            rewrite(&mut body, place, &[(field, &text)]);
        }
        let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
        read = chat::parse_reply(RawReply { body, ..reply })?;
    }
    read.screened = tally;
    Ok(read)
}

/// An answer with what was taken out of its question put back, and what its shape reads in it then.
pub fn restored(reply: &ChatReply, rails: Option<&Rails>, vault: &Vault) -> ChatReply {
    let mut changed: Vec<(usize, Field, String)> = Vec::new();
    for choice in reply.choices() {
        for (field, text) in choice_texts(choice) {
            let is_json = matches!(field, Field::Arguments(_)) || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            if let Cow::Owned(text) = vault.restored(text, is_json) {
                changed.push((choice.place, field, text));
            }
        }
    }
    let mut body: Value = serde_json::from_slice(super::wire::without_mark(&reply.raw)).unwrap_or_default();
    for (place, field, text) in &changed {
        rewrite(&mut body, *place, &[(*field, text)]);
    }
    let body = (!changed.is_empty()).then(|| Bytes::from(serde_json::to_vec(&body).unwrap_or_default()));
    let mut restored = body.and_then(|body| reply.with_body(body)).unwrap_or_else(|| reply.clone());
    let first = &reply.first;
    if let Some(rails) = rails
        && let Some(None) = unfit(first.refusal.is_some(), !first.tool_calls.is_empty(), &first.content, first.finish_reason.as_deref())
        && let Ok((_, read)) = rails.fit("content", &first.content, None, vault)
    {
        restored.screened.parsed = read.parsed;
    }
    restored
}

/// Puts texts into a choice of a body or an event. Its tokens' probabilities spell the text, and go.
fn rewrite(body: &mut Value, place: usize, texts: &[(Field, &str)]) {
    let Some(choice) = body.get_mut("choices").and_then(|choices| choices.get_mut(place)) else { return };
    if let Some(choice) = choice.as_object_mut() {
        choice.remove("logprobs");
    }
    let said = if choice.get("delta").is_some() { "delta" } else { "message" };
    if let Some(message) = choice.get_mut(said) {
        texts.iter().for_each(|(field, text)| field.put(message, text));
    }
}

/// The guardrails of one answer that comes in pieces.
pub struct Screen {
    rails: Arc<Rails>,
    /// What will be put back.
    vault: Vault,
    /// Rules for texts that are JSON, where these are others.
    in_json: Option<Arc<Rails>>,
    filters: Vec<(u32, Field, Filter)>,
    /// What each choice has said, for its shape: its text, and whether it called tools or refused.
    said: Vec<(u32, String, bool, bool)>,
    /// What comes with or after a choice's end, and is given out behind what is held back.
    tail: Vec<Delta>,
}

fn fields(delta: &mut Delta) -> Vec<(Field, &mut String)> {
    let mut found = vec![(Field::Content, &mut delta.content)];
    found.extend(delta.reasoning.as_mut().map(|text| (Field::Reasoning, text)));
    found.extend(delta.refusal.as_mut().map(|text| (Field::Refusal, text)));
    found.extend(delta.tool_calls.iter_mut().map(|call| (Field::Arguments(call.index as usize), &mut call.arguments)));
    found
}

impl Screen {
    pub fn new(rails: Arc<Rails>, vault: Vault) -> Screen {
        Screen { rails, vault, in_json: None, filters: Vec::new(), said: Vec::new(), tail: Vec::new() }
    }

    /// One that puts back what was taken out of the question.
    pub fn restoring(vault: &Vault) -> Screen {
        let in_json = Some(Arc::new(vault.rails(true)));
        Screen { in_json, ..Screen::new(Arc::new(vault.rails(false)), Vault::default()) }
    }

    /// The pieces of an event; those that may be given out now.
    pub fn take(&mut self, mut deltas: Vec<Delta>) -> Result<Vec<Delta>, ApiError> {
        let mut changed = false;
        for delta in &mut deltas {
            let index = delta.index;
            let said = match self.said.iter().position(|said| said.0 == index) {
                Some(at) => at,
                None => {
                    self.said.push((index, String::new(), false, false));
                    self.said.len() - 1
                }
            };
            self.said[said].2 |= !delta.tool_calls.is_empty();
            self.said[said].3 |= delta.refusal.as_ref().is_some_and(|text| !text.is_empty());
            for (field, text) in fields(delta) {
                if text.is_empty() {
                    continue;
                }
                let at = match self.filters.iter().position(|(of, which, _)| (*of, *which) == (index, field)) {
                    Some(at) => at,
                    None => {
                        let rails = self.in_json.as_ref().filter(|_| matches!(field, Field::Arguments(_))).unwrap_or(&self.rails);
                        self.filters.push((index, field, rails.filter(field.place(index))));
                        self.filters.len() - 1
                    }
                };
                let clean = self.filters[at].2.push(text).map_err(|refusal| refused(refusal, u32::MAX, ""))?;
                changed |= clean != *text;
                *text = clean;
                if field == Field::Content {
                    self.said[said].1.push_str(text);
                }
            }
        }
        if changed {
            rewrite_event(&mut deltas);
        }
        let mut now = Vec::with_capacity(deltas.len());
        for mut delta in deltas {
            if delta.finish_reason.is_none() && (delta.has_content() || self.tail.is_empty()) {
                now.push(delta);
                continue;
            }
            // The end of a choice comes behind what is held back of it, and what is said with the end before that.
            if delta.has_content() {
                now.push(Delta { finish_reason: None, usage: None, ..delta.clone() });
                Self::empty(&mut delta);
            }
            self.tail.push(delta);
        }
        Ok(now)
    }

    /// What belongs to no choice.
    pub fn aside(&mut self, delta: Delta) -> Option<Delta> {
        if self.tail.is_empty() {
            return Some(delta);
        }
        self.tail.push(delta);
        None
    }

    /// Leaves nothing of a piece but its end.
    fn empty(delta: &mut Delta) {
        fields(delta).into_iter().for_each(|(_, text)| text.clear());
        rewrite_event(std::slice::from_mut(delta));
        (delta.reasoning, delta.refusal) = (None, None);
        delta.tool_calls.clear();
    }

    /// The answer is over: what was held back of it, and what came behind.
    pub async fn end(mut self: Box<Self>) -> Result<(Vec<Delta>, Tally), ApiError> {
        if self.rails.asks() { on_a_thread(move || self.finish()).await } else { self.finish() }
    }

    /// The same, here and now.
    pub fn finish(&mut self) -> Result<(Vec<Delta>, Tally), ApiError> {
        let (mut tally, mut rest) = (Tally::default(), Vec::new());
        for (index, field, filter) in &mut self.filters {
            let text = filter.end().map_err(|stop| stopped(stop, u32::MAX, ""))?;
            tally.add(std::mem::take(&mut filter.tally));
            if text.is_empty() {
                continue;
            }
            if *field == Field::Content
                && let Some(said) = self.said.iter_mut().find(|said| said.0 == *index)
            {
                said.1.push_str(&text);
            }
            rest.push(piece(*index, *field, text, self.tail.first()));
        }
        for (index, said, calls, is_refused) in &self.said {
            let reason = self.tail.iter().find(|delta| delta.index == *index && delta.finish_reason.is_some());
            let reason = reason.and_then(|delta| delta.finish_reason.as_deref());
            if let Some(unfit) = unfit(*is_refused, *calls, said, reason) {
                // What was given out cannot be mended any more.
                let (mended, fitted) =
                    self.rails.fit(&Field::Content.place(*index), said, unfit, &self.vault).map_err(|stop| stopped(stop, u32::MAX, ""))?;
                if let Some(rule) = fitted.repaired.first().filter(|_| mended.is_some()) {
                    let why = "it is nearly JSON, and what was streamed cannot be mended".to_owned();
                    let refusal = Refusal { rule: rule.clone(), place: Field::Content.place(*index), why, again: None, is_shape: true };
                    return Err(refused(refusal, u32::MAX, ""));
                }
            }
        }
        rest.append(&mut self.tail);
        Ok((rest, tally))
    }
}

/// The event that pieces share, as they are now.
fn rewrite_event(deltas: &mut [Delta]) {
    let Some(Ok(mut event)) = deltas.first().map(|delta| serde_json::from_slice::<Value>(&delta.raw)) else { return };
    for delta in deltas.iter_mut() {
        let place = delta.place;
        let mut texts: Vec<(Field, String)> = fields(delta)
            .into_iter()
            .filter(|(field, _)| !matches!(field, Field::Arguments(_)))
            .map(|(field, text)| (field, text.clone()))
            .collect();
        // In an event they are numbered by where they stand.
        texts.extend(delta.tool_calls.iter().enumerate().map(|(at, call)| (Field::Arguments(at), call.arguments.clone())));
        let texts: Vec<(Field, &str)> = texts.iter().map(|(field, text)| (*field, &**text)).collect();
        rewrite(&mut event, place, &texts);
    }
    let raw = Bytes::from(serde_json::to_vec(&event).unwrap_or_default());
    deltas.iter_mut().for_each(|delta| delta.raw = raw.clone());
}

/// A piece with other texts in the places of its own: its content, reasoning, refusal, and the arguments of its tool calls in order.
pub fn with_texts(delta: &Delta, content: String, reasoning: Option<String>, refusal: Option<String>, arguments: Vec<String>) -> Delta {
    let mut changed = Delta { content, reasoning, refusal, ..delta.clone() };
    for (call, arguments) in changed.tool_calls.iter_mut().zip(arguments) {
        call.arguments = arguments;
    }
    rewrite_event(std::slice::from_mut(&mut changed));
    changed
}

/// A piece that no event brought.
fn piece(index: u32, field: Field, text: String, beside: Option<&Delta>) -> Delta {
    let mut delta = Delta { index, attempt: 1, source: beside.map(|delta| delta.source.clone()).unwrap_or_default(), ..Delta::default() };
    let said = match field {
        Field::Content => json!({ "content": text }),
        Field::Reasoning => json!({ "reasoning_content": text }),
        Field::Refusal => json!({ "refusal": text }),
        Field::Arguments(at) => json!({ "tool_calls": [{ "index": at, "function": { "arguments": text } }] }),
    };
    let event = json!({
        "id": delta.source.id, "object": "chat.completion.chunk", "model": delta.source.model, "created": delta.source.created,
        "choices": [{ "index": index, "delta": said, "finish_reason": null }],
    });
    delta.raw = Bytes::from(event.to_string());
    match field {
        Field::Content => delta.content = text,
        Field::Reasoning => delta.reasoning = Some(text),
        Field::Refusal => delta.refusal = Some(text),
        Field::Arguments(at) => delta.tool_calls.push(ToolCallDelta { index: at as u32, id: None, name: None, arguments: text }),
    }
    delta
}

#[cfg(test)]
mod tests {
    use super::super::chat::ToolCall;
    use super::*;
    use crate::guardrails::pattern::{Pattern, Patterns};
    use crate::guardrails::{Check, MAX_HELD, Rule};

    fn rails() -> Arc<Rails> {
        let pattern = Pattern { label: "".into(), text: "secret".into(), replacement: "[x]".into(), closer: None };
        let check = Check::Redact { patterns: Arc::new(Patterns::new(vec![pattern]).unwrap()), restore: false };
        Arc::new(Rails { rules: vec![Arc::new(Rule { name: "r".into(), check })], max_held: MAX_HELD })
    }

    fn delta(index: u32, content: &str, finish_reason: Option<&str>) -> Delta {
        let raw =
            json!({ "choices": [{ "index": index, "delta": { "content": content }, "logprobs": {}, "finish_reason": finish_reason }] });
        let (content, finish_reason) = (content.to_owned(), finish_reason.map(str::to_owned));
        Delta { index, content, finish_reason, raw: Bytes::from(raw.to_string()), ..Delta::default() }
    }

    /// What comes out of these pieces, each an event: by choice the text and where its end came.
    fn out(pieces: Vec<Delta>) -> (Vec<(u32, String, Option<String>)>, String) {
        let mut screen = Screen::new(rails(), Vault::default());
        let mut given: Vec<Delta> = pieces.into_iter().flat_map(|piece| screen.take(vec![piece]).unwrap()).collect();
        given.extend(screen.finish().unwrap().0);
        let raw = given.iter().map(|delta| String::from_utf8_lossy(&delta.raw).into_owned()).collect();
        (given.into_iter().map(|delta| (delta.index, delta.content, delta.finish_reason)).collect(), raw)
    }

    #[test]
    fn what_is_said_with_an_end_comes_before_what_was_held_back_and_the_end_behind() {
        let (given, raw) = out(vec![delta(0, "a sec", None), delta(0, "ret, a secr", Some("stop"))]);
        let text: String = given.iter().map(|(_, text, _)| &**text).collect();
        assert_eq!(text, "a [x], a secr");
        assert_eq!(given.iter().position(|(_, _, end)| end.is_some()), Some(given.len() - 1));
        assert!(!raw.contains("secret") && !raw.contains("ret, a"), "{raw}");
    }

    #[test]
    fn a_choice_that_is_over_holds_up_no_other() {
        let (given, _) =
            out(vec![delta(0, "x", Some("stop")), delta(1, "one secr", None), delta(1, "et two", None), delta(1, "", Some("stop"))]);
        let of = |wanted: u32| given.iter().filter(|(index, ..)| *index == wanted).map(|(_, text, _)| &**text).collect::<String>();
        assert_eq!((of(0), of(1)), ("x".to_owned(), "one [x] two".to_owned()));
        assert!(given.iter().rev().take(2).all(|(_, _, end)| end.is_some()));
    }

    #[test]
    fn all_texts_of_messages_are_found_and_nothing_else() {
        let content = json!([
            { "role": "user", "name": "secret", "content": [{ "type": "text", "text": "a secret" }, { "type": "image_url", "image_url": { "url": "secret" } }] },
            { "role": "assistant", "content": null, "tool_calls": [{ "id": "secret", "function": { "name": "secret", "arguments": "{\"a\": \"secret\"}" } }] },
            { "role": "tool", "content": "secret" },
        ]);
        let (changed, tally) = asked(content.to_string().as_bytes(), &rails()).ok().unwrap();
        assert_eq!(tally.redactions(), 3);
        let changed = String::from_utf8(changed.unwrap().into_vec()).unwrap();
        assert_eq!(changed.matches("secret").count(), 4, "{changed}");
        assert!(asked(b"[{\"role\":\"user\",\"content\":\"x\"}]", &rails()).ok().unwrap().0.is_none());
    }

    #[test]
    fn what_no_shape_can_be_held_against_is_not() {
        assert_eq!(unfit(false, true, "", Some("tool_calls")), None);
        assert_eq!(unfit(false, false, "{}", Some("stop")), Some(None));
        assert!(unfit(false, false, "{}", Some("length")).unwrap().is_some());
        assert!(unfit(true, false, "", None).unwrap().is_some());
        let call = ToolCall { id: None, name: "f".into(), arguments: "{}".into() };
        let choice = Choice { content: "x".into(), tool_calls: vec![call], ..Choice::default() };
        assert_eq!(choice_texts(&choice).map(|(field, _)| field).collect::<Vec<_>>(), [Field::Content, Field::Arguments(0)]);
    }
}

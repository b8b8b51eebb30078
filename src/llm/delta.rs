//! One event of a chat stream, as pieces of an answer.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::chat::{ChatReply, Choice, WireCompletion, WireSaid};
use super::interrupt::Mark;
use super::usage::{Usage, WireUsage};
use super::wire::{MOST, is_failure, lenient_number, lenient_text, real_error};

/// A piece of an answer. What is not here is in `raw`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// The next text of this choice.
    pub content: String,
    /// The next piece of reasoning, where the server shows it.
    pub reasoning: Option<String>,
    /// The next piece of a refusal.
    pub refusal: Option<String>,
    /// Pieces of tool calls.
    pub tool_calls: Vec<ToolCallDelta>,
    /// Comes with the first piece, as a rule.
    pub role: Option<String>,
    /// `stop`, `length`, `tool_calls`, …; comes with a choice's last piece.
    pub finish_reason: Option<String>,
    /// The tokens used up to here, if the server says; the last one counts.
    pub usage: Option<Box<Usage>>,
    /// Who answers; the pieces of an answer share it.
    pub source: Arc<Source>,
    /// Which choice this belongs to.
    pub index: u32,
    /// Which attempt of the call gave it, from 1 on.
    pub attempt: u32,
    /// What it is to the pieces before it.
    pub mark: Mark,
    /// Where its choice stands in the event's list.
    pub place: usize,
    /// The event's data as it came.
    pub raw: Bytes,
}

/// Which answer a piece belongs to, as its own event says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The completion's id.
    pub id: Option<String>,
    /// The model that answers, as the server names it.
    pub model: Option<String>,
    /// When, in seconds since 1970.
    pub created: Option<u64>,
    /// The backend's configuration.
    pub system_fingerprint: Option<String>,
    /// The service tier used.
    pub service_tier: Option<String>,
}

/// A piece of a tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCallDelta {
    /// Which of the choice's calls this belongs to.
    pub index: u32,
    /// The call's id; in its first piece.
    pub id: Option<String>,
    /// The tool's name; in its first piece.
    pub name: Option<String>,
    /// The next piece of the arguments' text.
    pub arguments: String,
}

impl Delta {
    /// Whether it is text of the first choice and no more: what a model can be asked to go on with.
    pub(super) fn is_plain(&self) -> bool {
        let silent = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        self.index == 0 && self.tool_calls.is_empty() && silent(&self.reasoning) && silent(&self.refusal)
    }

    /// The same in memory of its own: its event came in a part of a buffer.
    pub(super) fn on_its_own(&self) -> Delta {
        Delta { raw: Bytes::copy_from_slice(&self.raw), ..self.clone() }
    }

    /// About how many bytes it takes up.
    pub(super) fn size(&self) -> usize {
        size_of::<Delta>() + self.raw.len() + self.content.len()
    }

    /// Whether it holds something of the answer. A role, a finish reason and a count of tokens are nothing of it.
    pub fn has_content(&self) -> bool {
        let said = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        !self.content.is_empty() || !self.tool_calls.is_empty() || said(&self.reasoning) || said(&self.refusal)
    }

    /// A whole reply as one piece for each choice, from servers that answer a request for a stream with plain JSON.
    pub(super) fn whole(reply: ChatReply) -> Vec<Delta> {
        let ChatReply { id, model, created, system_fingerprint, service_tier, first, others, mut usage, raw, .. } = reply;
        let source = Arc::new(Source { id, model, created, system_fingerprint, service_tier });
        let piece = |choice: Choice| Delta {
            content: choice.content,
            reasoning: choice.reasoning,
            refusal: choice.refusal,
            tool_calls: choice
                .tool_calls
                .into_iter()
                .zip(0..)
                .map(|(call, index)| ToolCallDelta { index, id: call.id, name: Some(call.name), arguments: call.arguments })
                .collect(),
            role: Some("assistant".to_owned()),
            finish_reason: choice.finish_reason,
            usage: None,
            source: source.clone(),
            index: choice.index,
            place: choice.place,
            raw: raw.clone(),
            attempt: 1,
            mark: Mark::Next,
        };
        let mut pieces: Vec<Delta> = std::iter::once(first).chain(others).map(piece).collect();
        if let Some(last) = pieces.last_mut() {
            last.usage = usage.take().map(Box::new);
        }
        pieces
    }
}

#[derive(Deserialize)]
struct WireChoice<'a> {
    #[serde(default, deserialize_with = "lenient_number")]
    index: Option<u32>,
    #[serde(default, borrow)]
    delta: Option<WireSaid<'a>>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

/// What one event holds.
#[derive(Debug)]
pub(super) enum Piece {
    /// One delta for each choice in it.
    Choices(Vec<Delta>),
    /// An event without choices: usage and the like.
    Aside(Box<Delta>),
    /// An error object.
    Error(serde_json::Value),
    /// A choice that ended with a finish_reason that means a failure, and says no more.
    EndedInError(String),
}

/// What a stream remembers from one event to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    tools: ToolIndexes,
    source: Arc<Source>,
}

/// Reads one event's data.
pub(super) fn read(data: &Bytes, memory: &mut Memory) -> Result<Piece, serde_json::Error> {
    // Text is looked through once; what is none fails where it is.
    let mut wire: WireCompletion<'_, WireChoice<'_>> = match std::str::from_utf8(data) {
        Ok(text) => serde_json::from_str(text)?,
        Err(_) => serde_json::from_slice(data)?,
    };
    let mut choices = wire.choices.take().unwrap_or_default();
    let error = real_error(wire.error).or_else(|| choices.iter().find_map(|choice| real_error(choice.error)));
    if let Some(error) = error {
        return Ok(Piece::Error(serde_json::from_str(error.get())?));
    }
    if let Some(reason) = choices.iter().find_map(|choice| choice.finish_reason.as_deref().filter(|reason| is_failure(reason))) {
        return Ok(Piece::EndedInError(reason.to_owned()));
    }
    let mut usage = wire.usage.take().and_then(WireUsage::into_usage).map(Box::new);
    if choices.is_empty() {
        return Ok(Piece::Aside(Box::new(Delta { usage, source: memory.source(&wire), raw: data.clone(), ..Delta::default() })));
    }
    // Usage belongs to the event: it goes with the last of its deltas, once.
    let source = memory.source(&wire);
    let mut deltas = Vec::with_capacity(choices.len());
    while let Some(choice) = choices.pop() {
        let said = choice.delta.unwrap_or_default();
        let mut delta = Delta {
            content: said.content.unwrap_or_default(),
            reasoning: said.reasoning_content.or(said.reasoning).map(Cow::into_owned),
            refusal: said.refusal.map(Cow::into_owned),
            tool_calls: Vec::new(),
            role: said.role.map(Cow::into_owned),
            finish_reason: choice.finish_reason.map(Cow::into_owned),
            usage: usage.take(),
            source: source.clone(),
            index: choice.index.unwrap_or(0),
            place: choices.len(),
            raw: data.clone(),
            attempt: 1,
            mark: Mark::Next,
        };
        for call in said.tool_calls.unwrap_or_default() {
            let given = call.index;
            let (id, name, arguments) = call.into_parts()?;
            let index = memory.tools.place(delta.index, given, id.as_deref(), name.is_some());
            if memory.tools.calls.len() > MOST {
                return Err(serde::de::Error::custom(format_args!("more than {MOST} tool calls")));
            }
            delta.tool_calls.push(ToolCallDelta { index, id, name, arguments });
        }
        deltas.push(delta);
    }
    deltas.reverse();
    Ok(Piece::Choices(deltas))
}

impl Memory {
    /// What the event says of its answer: as a rule the same as the event before it.
    fn source(&mut self, wire: &WireCompletion<'_, WireChoice<'_>>) -> Arc<Source> {
        let last = &*self.source;
        let pairs = [
            (&wire.id, &last.id),
            (&wire.model, &last.model),
            (&wire.system_fingerprint, &last.system_fingerprint),
            (&wire.service_tier, &last.service_tier),
        ];
        if last.created != wire.created || pairs.iter().any(|(new, old)| new.as_deref() != old.as_deref()) {
            let owned = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
            self.source = Arc::new(Source {
                id: owned(&wire.id),
                model: owned(&wire.model),
                created: wire.created,
                system_fingerprint: owned(&wire.system_fingerprint),
                service_tier: owned(&wire.service_tier),
            });
        }
        self.source.clone()
    }
}

/// Which tool call a piece belongs to. Some servers leave the index out, or call all of them 0: pieces joined by it
/// would make one wrong call out of two.
#[derive(Debug, Default)]
pub(super) struct ToolIndexes {
    /// Choice, id of the call, index given out.
    calls: Vec<(u32, String, u32)>,
}

impl ToolIndexes {
    fn place(&mut self, choice: u32, given: Option<u32>, id: Option<&str>, begins: bool) -> u32 {
        let id = id.unwrap_or_default();
        let of_choice = || self.calls.iter().filter(move |call| call.0 == choice);
        let known = of_choice().find(|call| !id.is_empty() && call.1 == id).map(|call| call.2);
        let last = of_choice().next_back().map(|call| call.2);
        let next = of_choice().map(|call| call.2 + 1).max().unwrap_or(0);
        let taken = |index: u32| of_choice().any(|call| call.2 == index && !call.1.is_empty() && call.1 != id);
        let index = match (given, known) {
            (_, Some(known)) => known,
            (Some(given), None) if begins && !id.is_empty() && taken(given) => next,
            (Some(given), None) => given,
            (None, None) if begins => next,
            (None, None) => last.unwrap_or(0),
        };
        if !of_choice().any(|call| call.2 == index) {
            self.calls.push((choice, id.to_owned(), index));
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deltas(json: &str, memory: &mut Memory) -> Vec<Delta> {
        match read(&Bytes::copy_from_slice(json.as_bytes()), memory).unwrap() {
            Piece::Choices(deltas) => deltas,
            Piece::Aside(delta) => vec![*delta],
            other => panic!("{other:?}"),
        }
    }

    fn one(json: &str) -> Delta {
        let mut all = deltas(json, &mut Memory::default());
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn roles_finish_reasons_and_usage_are_no_content() {
        for empty in [
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{"role":"assistant","content":null,"refusal":null,"reasoning_content":""}}],"obfuscation":"x"}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"finish_reason":"stop"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":1}}"#,
            r#"{"choices":null,"error":null}"#,
            r#"{}"#,
        ] {
            assert!(!one(empty).has_content(), "{empty}");
        }
        for full in [
            r#"{"choices":[{"delta":{"content":" "}}]}"#,
            r#"{"choices":[{"delta":{"content":[{"type":"text","text":"x"}]}}]}"#,
            r#"{"choices":[{"delta":{"reasoning_content":"x"}}]}"#,
            r#"{"choices":[{"delta":{"reasoning":"x"}}]}"#,
            r#"{"choices":[{"delta":{"refusal":"x"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":""}}]}}]}"#,
        ] {
            assert!(one(full).has_content(), "{full}");
        }
    }

    #[test]
    fn each_choice_has_its_delta_and_usage_comes_once() {
        let json = r#"{"id":"c","model":"m","usage":{"prompt_tokens":7},
                       "choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"},"finish_reason":"length"}]}"#;
        let all = deltas(json, &mut Memory::default());
        assert_eq!(all.iter().map(|delta| (delta.index, &*delta.content)).collect::<Vec<_>>(), [(0, "a"), (1, "b")]);
        assert_eq!(all.iter().filter_map(|delta| delta.usage.as_ref()).count(), 1);
        assert_eq!(all[1].finish_reason.as_deref(), Some("length"));
        assert!(all.iter().all(|delta| delta.source.id.as_deref() == Some("c") && delta.raw == json.as_bytes()));
    }

    #[test]
    fn errors_are_found_at_the_top_and_in_a_choice() {
        for json in [
            r#"{"error":{"message":"m"}}"#,
            r#"{"error":"m"}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"error","error":{"message":"m"}}]}"#,
        ] {
            let piece = read(&Bytes::from_static(json.as_bytes()), &mut Memory::default()).unwrap();
            assert!(matches!(piece, Piece::Error(_)), "{json}");
        }
        let json = br#"{"choices":[{"delta":{},"finish_reason":"error"}]}"#;
        assert!(
            matches!(read(&Bytes::from_static(json), &mut Memory::default()).unwrap(), Piece::EndedInError(reason) if reason == "error")
        );
    }

    fn joined(events: &[&str]) -> Vec<(u32, String, String)> {
        let mut memory = Memory::default();
        let mut calls: Vec<(u32, String, String)> = Vec::new();
        for calls_json in events {
            let json = format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{calls_json}]}}}}]}}"#);
            for piece in deltas(&json, &mut memory).remove(0).tool_calls {
                match calls.iter_mut().find(|call| call.0 == piece.index) {
                    Some(call) => call.2.push_str(&piece.arguments),
                    None => calls.push((piece.index, piece.name.unwrap_or_default(), piece.arguments)),
                }
            }
        }
        calls
    }

    #[test]
    fn pieces_of_tool_calls_are_joined_as_they_were_meant() {
        let expected = vec![(0, "f".to_owned(), "{1}".to_owned()), (1, "g".to_owned(), "{2}".to_owned())];
        let standard = joined(&[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#,
            r#"{"index":0,"function":{"arguments":"{1"}}"#,
            r#"{"index":0,"function":{"arguments":"}"}}"#,
            r#"{"index":1,"id":"b","function":{"name":"g","arguments":"{2"}},{"index":1,"function":{"arguments":"}"}}"#,
        ]);
        assert_eq!(standard, expected);
        let without_index = joined(&[
            r#"{"id":"a","function":{"name":"f","arguments":"{1"}}"#,
            r#"{"function":{"arguments":"}"}}"#,
            r#"{"id":"b","function":{"name":"g","arguments":"{2}"}}"#,
        ]);
        assert_eq!(without_index, expected);
        let all_zero = joined(&[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{1}"}}"#,
            r#"{"index":0,"id":"b","function":{"name":"g","arguments":"{2}"}}"#,
        ]);
        assert_eq!(all_zero, expected);
        let new_id_in_each_piece = joined(&[
            r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{1"}}"#,
            r#"{"index":0,"id":"a2","function":{"arguments":"}"}}"#,
            r#"{"index":1,"id":"b","function":{"name":"g","arguments":"{2}"}}"#,
        ]);
        assert_eq!(new_id_in_each_piece, expected);
        let without_ids = joined(&[r#"{"function":{"name":"f","arguments":"{1}"}},{"function":{"name":"g","arguments":"{2}"}}"#]);
        assert_eq!(without_ids, expected);
    }

    #[test]
    fn arguments_that_are_an_object_become_its_text() {
        let call = &one(r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":{"x":1}}}]}}]}"#)
            .tool_calls[0];
        assert_eq!(call.arguments, r#"{"x":1}"#);
    }
}

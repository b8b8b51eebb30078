//! Reading a chat completion.

use std::borrow::Cow;

use crate::guardrails::Tally;
use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::RawReply;
use super::error::{ApiError, shown_headers};
use super::secret::Secrets;
use super::usage::{Usage, WireUsage};
use super::wire::{WireToolCall, few, first_byte, is_failure, lenient, lenient_number, lenient_text, real_error, text, without_mark};

/// A chat completion. What is not here is in `raw`.
#[derive(Clone, Debug)]
pub struct ChatReply {
    /// The completion's id.
    pub id: Option<String>,
    /// The model that answered, as the server names it.
    pub model: Option<String>,
    /// When, in seconds since 1970.
    pub created: Option<u64>,
    /// The first choice, by index.
    pub first: Choice,
    /// The other choices, in the order of their indexes.
    pub others: Vec<Choice>,
    /// The tokens used, if the server says.
    pub usage: Option<Usage>,
    /// The backend's configuration.
    pub system_fingerprint: Option<String>,
    /// The service tier used.
    pub service_tier: Option<String>,
    /// The provider's id for the request.
    pub request_id: Option<String>,
    headers: HeaderMap,
    secrets: Secrets,
    /// What guardrails have done to it.
    pub screened: Tally,
    /// The whole body as it came.
    pub raw: Bytes,
}

/// One of the answers in a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Its number among the choices.
    pub index: u32,
    /// Where it stands in the body's list.
    pub place: usize,
    /// The text; empty if there is none.
    pub content: String,
    /// What a reasoning model thought, where the server shows it.
    pub reasoning: Option<String>,
    /// The model's refusal, if it refused.
    pub refusal: Option<String>,
    /// The tools that the model wants called.
    pub tool_calls: Vec<ToolCall>,
    /// `stop`, `length`, `tool_calls`, …
    pub finish_reason: Option<String>,
}

/// A tool that the model wants called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The call's id, to be given back with the result.
    pub id: Option<String>,
    /// The tool's name.
    pub name: String,
    /// The arguments as the model wrote them: JSON, most often, but nobody promises.
    pub arguments: String,
}

/// A chat completion, or one event of its stream: what is around the choices.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a, C: Deserialize<'de>"))]
pub(super) struct WireCompletion<'a, C> {
    #[serde(default, borrow)]
    pub error: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "few")]
    pub choices: Option<Vec<C>>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    pub id: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    pub model: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient_number")]
    pub created: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    pub usage: Option<WireUsage>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    pub system_fingerprint: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    pub service_tier: Option<Cow<'a, str>>,
}

/// What a choice says: a message, or a piece of one.
#[derive(Default, Deserialize)]
pub(super) struct WireSaid<'a> {
    #[serde(default, deserialize_with = "text")]
    pub content: Option<String>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    pub role: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    pub reasoning_content: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    pub reasoning: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    pub refusal: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "few")]
    pub tool_calls: Option<Vec<WireToolCall<'a>>>,
}

#[derive(Deserialize)]
struct WireChoice<'a> {
    #[serde(default, deserialize_with = "lenient_number")]
    index: Option<u32>,
    #[serde(default, borrow)]
    message: Option<WireSaid<'a>>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    finish_reason: Option<Cow<'a, str>>,
    /// OpenRouter puts a provider's failure here, in a success.
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

/// Reads a reply. An error object in it is that error; what is no chat completion is a malformed response.
pub fn parse_reply(reply: RawReply) -> Result<ChatReply, ApiError> {
    let wire: WireCompletion<'_, WireChoice<'_>> = object(&reply)?;
    if let Some(error) = real_error(wire.error) {
        return Err(error_in(&reply, error));
    }
    let mut choices = Vec::new();
    for (place, choice) in wire.choices.unwrap_or_default().into_iter().enumerate() {
        choices.push(said(&reply, choice, place)?);
    }
    choices.sort_by_key(|choice| choice.index);
    if choices.windows(2).any(|pair| pair[0].index == pair[1].index) {
        // Servers that number none of them, or all of them 0, mean their order.
        choices.sort_by_key(|choice| choice.place);
        choices.iter_mut().zip(0..).for_each(|(choice, index)| choice.index = index);
    }
    let mut choices = choices.into_iter();
    let Some(first) = choices.next() else {
        return Err(reply.malformed(&format!("no choices: {}", reply.excerpt(&reply.body))));
    };
    Ok(ChatReply {
        id: wire.id.map(Cow::into_owned),
        model: wire.model.map(Cow::into_owned),
        created: wire.created,
        first,
        others: choices.collect(),
        usage: wire.usage.and_then(WireUsage::into_usage),
        system_fingerprint: wire.system_fingerprint.map(Cow::into_owned),
        service_tier: wire.service_tier.map(Cow::into_owned),
        request_id: reply.request_id.clone(),
        raw: reply.body.clone(),
        headers: reply.headers,
        screened: Tally::default(),
        secrets: reply.origin.map(|origin| origin.secrets).unwrap_or_default(),
    })
}

/// What a choice says.
fn said(reply: &RawReply, choice: WireChoice<'_>, place: usize) -> Result<Choice, ApiError> {
    if let Some(error) = real_error(choice.error) {
        return Err(error_in(reply, error));
    }
    if let Some(reason) = choice.finish_reason.as_deref().filter(|reason| is_failure(reason)) {
        return Err(reply.ended_in_error(reason));
    }
    let Some(message) = choice.message else {
        return Err(reply.malformed(&format!("a choice without a message: {}", reply.excerpt(&reply.body))));
    };
    let mut tool_calls = Vec::new();
    for call in message.tool_calls.unwrap_or_default() {
        match call.into_parts() {
            Ok((id, Some(name), arguments)) => tool_calls.push(ToolCall { id, name, arguments }),
            _ => return Err(reply.malformed(&format!("a tool call that names no tool: {}", reply.excerpt(&reply.body)))),
        }
    }
    Ok(Choice {
        index: choice.index.unwrap_or(place as u32),
        place,
        content: message.content.unwrap_or_default(),
        reasoning: message.reasoning_content.or(message.reasoning).map(Cow::into_owned),
        refusal: message.refusal.map(Cow::into_owned),
        tool_calls,
        finish_reason: choice.finish_reason.map(Cow::into_owned),
    })
}

impl ChatReply {
    /// All choices, in the order of their indexes.
    pub fn choices(&self) -> impl Iterator<Item = &Choice> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The response's headers, names in lower case, without `set-cookie` and secrets.
    pub fn headers(&self) -> Vec<(String, String)> {
        shown_headers(&self.headers, &self.secrets)
    }

    /// The same answer with another body; nothing where that is none.
    pub(super) fn with_body(&self, body: Bytes) -> Option<ChatReply> {
        let read = parse_reply(RawReply::new(200, self.headers.clone(), body)).ok()?;
        let (request_id, secrets, screened) = (self.request_id.clone(), self.secrets.clone(), self.screened.clone());
        Some(ChatReply { request_id, secrets, screened, ..read })
    }

    /// The body, without a key that the server may have repeated.
    pub(super) fn raw_without_secrets(&self) -> Cow<'_, [u8]> {
        match std::str::from_utf8(&self.raw).map(|text| self.secrets.scrub(text)) {
            Ok(Cow::Owned(clean)) => Cow::Owned(clean.into_bytes()),
            _ => Cow::Borrowed(&self.raw),
        }
    }

    pub(super) fn head(&self) -> &HeaderMap {
        &self.headers
    }
}

/// The body as a JSON object of that shape, or the error that says what it is instead.
pub(super) fn object<'a, T: Deserialize<'a>>(reply: &'a RawReply) -> Result<T, ApiError> {
    let body = without_mark(&reply.body);
    let what = match first_byte(body) {
        None => "an empty body".to_owned(),
        Some(b'{') => match serde_json::from_slice(body) {
            Ok(read) => return Ok(read),
            Err(error) => format!("broken or unexpected JSON ({error}): {}", reply.excerpt(body)),
        },
        Some(b'<') => format!("an HTML page: {}; is base_url right?", reply.excerpt(body)),
        Some(_) => format!("something that is no JSON object: {}", reply.excerpt(body)),
    };
    Err(reply.malformed(&what))
}

/// The error that an error object in a success stands for.
pub(super) fn error_in(reply: &RawReply, object: &RawValue) -> ApiError {
    match serde_json::from_str(object.get()) {
        Ok(object) => reply.error_object(&object),
        Err(error) => reply.malformed(&format!("an error object that cannot be read ({error})")),
    }
}

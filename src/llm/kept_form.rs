//! Answers as they are in a cache's file: the server's own JSON, and a stream piece by piece.

use super::chat;
use super::client::RawReply;
use super::delta::{Delta, Source, ToolCallDelta};
use super::embeddings::EmbeddingsReply;
use super::interrupt::Mark;
use super::kept::Kept;
use super::secret::Secrets;
use super::usage::Usage;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// Another form of any of these is another version of the file (`cache_file::VERSION`).
#[derive(Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
enum Form<'a> {
    Chat {
        headers: Vec<(String, String)>,
        #[serde(borrow)]
        body: Cow<'a, str>,
    },
    Embeddings {
        model: Option<String>,
        usage: Option<[u64; 3]>,
        request_id: Option<String>,
        /// Little-endian floats in base64.
        vectors: Vec<String>,
    },
    Stream {
        pieces: Vec<Piece>,
    },
}

#[derive(Serialize, Deserialize)]
struct Piece {
    content: String,
    reasoning: Option<String>,
    refusal: Option<String>,
    role: Option<String>,
    finish_reason: Option<String>,
    /// Index, id, name, arguments.
    tool_calls: Vec<(u32, Option<String>, Option<String>, String)>,
    usage: Option<([u64; 3], Option<u64>, Option<u64>)>,
    /// Id, model, fingerprint, tier.
    source: [Option<String>; 4],
    created: Option<u64>,
    index: u32,
    attempt: u32,
    place: usize,
    /// Empty where it is that of the piece before.
    raw: Option<String>,
}

/// An answer as bytes; `None` for one that holds a secret, or what is no text.
pub(super) fn written(kept: &Kept, secrets: &Secrets) -> Option<Vec<u8>> {
    let form = match kept {
        Kept::Chat(reply) => Form::Chat { headers: reply.headers(), body: Cow::Borrowed(std::str::from_utf8(&reply.raw).ok()?) },
        Kept::Embeddings(reply) => Form::Embeddings {
            model: reply.model.clone(),
            usage: reply.usage.map(counts),
            request_id: reply.request_id.clone(),
            vectors: reply
                .vectors
                .iter()
                .map(|vector| STANDARD.encode(vector.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<_>>()))
                .collect(),
        },
        Kept::Stream(pieces) => {
            let mut before: Option<&Bytes> = None;
            let piece = |delta| Piece::of(delta, &mut before);
            Form::Stream { pieces: pieces.iter().map(piece).collect::<Option<_>>()? }
        }
    };
    let text = serde_json::to_string(&form).ok()?;
    matches!(secrets.scrub(&text), Cow::Borrowed(_)).then(|| text.into_bytes())
}

/// The answer that these bytes are, if they are one.
pub(super) fn read(bytes: &[u8]) -> Option<Kept> {
    Some(match serde_json::from_slice(bytes).ok()? {
        Form::Chat { headers, body } => {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(&value).ok()?);
            }
            Kept::Chat(Arc::new(chat::parse_reply(RawReply::new(200, map, body.into_owned())).ok()?))
        }
        Form::Embeddings { model, usage, request_id, vectors } => {
            let floats = |text: String| {
                let bytes = STANDARD.decode(text).ok()?;
                let (floats, rest) = bytes.as_chunks::<4>();
                rest.is_empty().then(|| floats.iter().map(|float| f32::from_le_bytes(*float)).collect())
            };
            let vectors = vectors.into_iter().map(floats).collect::<Option<_>>()?;
            Kept::Embeddings(Arc::new(EmbeddingsReply {
                vectors,
                model,
                usage: usage.map(|counts| usage_of(counts, None, None)),
                request_id,
            }))
        }
        Form::Stream { pieces } => {
            let mut before = (Bytes::new(), Arc::new(Source::default()));
            Kept::Stream(pieces.into_iter().map(|piece| piece.delta(&mut before)).collect())
        }
    })
}

fn counts(usage: Usage) -> [u64; 3] {
    [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens]
}

fn usage_of(
    [prompt_tokens, completion_tokens, total_tokens]: [u64; 3],
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
) -> Usage {
    Usage { prompt_tokens, completion_tokens, total_tokens, cached_tokens, reasoning_tokens }
}

impl Piece {
    fn of<'a>(delta: &'a Delta, before: &mut Option<&'a Bytes>) -> Option<Piece> {
        let raw =
            if before.is_some_and(|before| *before == delta.raw) { None } else { Some(std::str::from_utf8(&delta.raw).ok()?.to_owned()) };
        *before = Some(&delta.raw);
        let source = &delta.source;
        Some(Piece {
            content: delta.content.clone(),
            reasoning: delta.reasoning.clone(),
            refusal: delta.refusal.clone(),
            role: delta.role.clone(),
            finish_reason: delta.finish_reason.clone(),
            tool_calls: delta
                .tool_calls
                .iter()
                .map(|call| (call.index, call.id.clone(), call.name.clone(), call.arguments.clone()))
                .collect(),
            usage: delta.usage.as_deref().map(|usage| (counts(*usage), usage.cached_tokens, usage.reasoning_tokens)),
            source: [source.id.clone(), source.model.clone(), source.system_fingerprint.clone(), source.service_tier.clone()],
            created: source.created,
            index: delta.index,
            attempt: delta.attempt,
            place: delta.place,
            raw,
        })
    }

    fn delta(self, (raw, shared): &mut (Bytes, Arc<Source>)) -> Delta {
        if let Some(own) = self.raw {
            *raw = Bytes::from(own);
        }
        let [id, model, system_fingerprint, service_tier] = self.source;
        let source = Source { id, model, created: self.created, system_fingerprint, service_tier };
        if **shared != source {
            *shared = Arc::new(source);
        }
        Delta {
            content: self.content,
            reasoning: self.reasoning,
            refusal: self.refusal,
            tool_calls: self
                .tool_calls
                .into_iter()
                .map(|(index, id, name, arguments)| ToolCallDelta { index, id, name, arguments })
                .collect(),
            role: self.role,
            finish_reason: self.finish_reason,
            usage: self.usage.map(|(counts, cached, reasoning)| Box::new(usage_of(counts, cached, reasoning))),
            source: shared.clone(),
            index: self.index,
            attempt: self.attempt,
            // What was restarted or gone on from is never kept.
            mark: Mark::Next,
            place: self.place,
            raw: raw.clone(),
        }
    }
}

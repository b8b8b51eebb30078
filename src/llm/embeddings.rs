//! Reading embeddings.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::chat::{error_in, object};
use super::client::RawReply;
use super::error::ApiError;
use super::usage::{Usage, WireUsage};
use super::wire::{lenient, lenient_text, real_error};
use crate::policies::class::Class;

/// The vectors of one request, in the order of its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingsReply {
    /// One vector for each input.
    pub vectors: Vec<Vec<f32>>,
    /// The model that answered, as the server names it.
    pub model: Option<String>,
    /// The tokens used, if the server says.
    pub usage: Option<Usage>,
    /// The provider's id for the request.
    pub request_id: Option<String>,
}

#[derive(serde::Deserialize)]
struct WireReply<'a> {
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default)]
    data: Option<Vec<WireEmbedding>>,
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    model: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "lenient")]
    usage: Option<WireUsage>,
}

#[derive(serde::Deserialize)]
struct WireEmbedding {
    #[serde(default)]
    index: Option<usize>,
    embedding: Vector,
}

/// A vector as a list of numbers or as the base64 of little-endian floats.
struct Vector(Vec<f32>);

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Vector, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Vector;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of numbers or base64")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vector, A::Error> {
                let mut vector = Vec::with_capacity(1536);
                while let Some(number) = list.next_element()? {
                    vector.push(number);
                }
                vector.shrink_to_fit();
                Ok(Vector(vector))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Vector, E> {
                let bytes = STANDARD.decode(text).map_err(|error| E::custom(format!("no base64: {error}")))?;
                let (floats, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(E::custom(format!("base64 of {} bytes, which is no whole number of floats", bytes.len())));
                }
                Ok(Vector(floats.iter().map(|float| f32::from_le_bytes(*float)).collect()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads the reply to a request of so many inputs, and of vectors of so many dimensions where it asked for that. Anything
/// but one sound vector for each is a malformed response.
pub fn parse_reply(reply: RawReply, inputs: usize, dimensions: Option<usize>) -> Result<EmbeddingsReply, ApiError> {
    let wire: WireReply<'_> = object(&reply)?;
    if let Some(error) = real_error(wire.error) {
        return Err(error_in(&reply, error));
    }
    let data = wire.data.unwrap_or_default();
    if data.len() != inputs {
        return Err(reply.malformed(&format!("{} embeddings for {inputs} inputs", data.len())));
    }
    let mut vectors = vec![Vec::new(); inputs];
    for (position, item) in data.into_iter().enumerate() {
        let index = item.index.unwrap_or(position);
        let Vector(vector) = item.embedding;
        if vector.is_empty() || vector.iter().any(|number| !number.is_finite()) {
            return Err(reply.malformed(&format!("an embedding (index {index}) that is empty or holds what is no finite number")));
        }
        match vectors.get_mut(index) {
            Some(place) if place.is_empty() => *place = vector,
            Some(_) => return Err(reply.malformed(&format!("two embeddings of index {index}"))),
            None => return Err(reply.malformed(&format!("an embedding of index {index} for {inputs} inputs"))),
        }
    }
    if let Some(odd) = vectors.iter().find(|vector| vector.len() != vectors[0].len()) {
        return Err(reply.malformed(&format!("embeddings of different lengths ({} and {})", vectors[0].len(), odd.len())));
    }
    if let (Some(asked), Some(vector)) = (dimensions, vectors.first())
        && vector.len() != asked
    {
        let what = format!("vectors of {} numbers where dimensions={asked} was asked for: this model has no choice of it", vector.len());
        // It would say the same again.
        return Err(reply.malformed(&what).with_class(Class::Permanent));
    }
    let usage = wire.usage.and_then(WireUsage::into_usage);
    Ok(EmbeddingsReply { vectors, model: wire.model.map(Cow::into_owned), usage, request_id: reply.request_id })
}

#[cfg(test)]
mod tests {
    use super::super::error::ErrorKind;
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::HeaderMap;
    use serde_json::json;

    fn parse(body: String, inputs: usize) -> Result<EmbeddingsReply, ApiError> {
        parse_reply(RawReply::new(200, HeaderMap::new(), body), inputs, None)
    }

    fn base64(floats: &[f32]) -> String {
        STANDARD.encode(floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn both_encodings_are_read_and_ordered_by_index() {
        let body = json!({"model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3}, "data": [
            {"index": 1, "embedding": [0.5, -2, 3e-3]},
            {"index": 0, "embedding": base64(&[1.0, 0.1, -7.25])},
        ]});
        let reply = parse(body.to_string(), 2).unwrap();
        assert_eq!(reply.vectors, [[1.0, 0.1, -7.25], [0.5, -2.0, 3e-3]]);
        assert_eq!(reply.usage.unwrap().prompt_tokens, 3);
        assert_eq!(reply.model.as_deref(), Some("m"));
        let unnumbered = json!({"data": [{"embedding": [1]}, {"embedding": [2]}]});
        assert_eq!(parse(unnumbered.to_string(), 2).unwrap().vectors, [[1.0], [2.0]]);
    }

    #[test]
    fn anything_but_one_sound_vector_for_each_input_is_malformed() {
        for data in [
            json!([{"index": 0, "embedding": [1]}]),
            json!([{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]),
            json!([{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [1]}]),
            json!([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": []}]),
            json!([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]),
            json!([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [null]}]),
            json!([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": "####"}]),
            json!([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": "AAAAAAA="}]),
            json!([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": base64(&[f32::NAN])}]),
            json!([{"index": 0, "embedding": [1]}, {"index": 1, "embedding": null}]),
            json!([{"index": 0, "embedding": [1]}, {"index": 1}]),
            json!(null),
            json!("x"),
        ] {
            let error = parse(json!({ "data": data }).to_string(), 2).unwrap_err();
            assert_eq!(error.kind, ErrorKind::MalformedResponse, "{data}");
        }
        let twice = json!({"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]});
        assert!(parse(twice.to_string(), 2).unwrap_err().message.contains("two embeddings of index 0"));
        assert_eq!(parse(r#"{"error":{"code":400,"message":"m"}}"#.into(), 2).unwrap_err().kind, ErrorKind::BadRequest);
    }

    #[test]
    fn vectors_of_another_length_than_asked_for_are_an_error_that_no_retry_mends() {
        let reply = |dimensions| {
            let body = json!({"data": [{"index": 0, "embedding": [1, 2, 3]}]});
            parse_reply(RawReply::new(200, HeaderMap::new(), body.to_string()), 1, dimensions)
        };
        let error = reply(Some(2)).unwrap_err();
        assert!(error.message.contains("vectors of 3 numbers where dimensions=2 was asked for"), "{error}");
        assert_eq!((error.kind, error.class()), (ErrorKind::MalformedResponse, Class::Permanent));
        assert!(reply(Some(3)).is_ok() && reply(None).is_ok());
    }

    proptest! {
        #[test]
        fn floats_survive_base64(floats in proptest::collection::vec(proptest::num::f32::NORMAL, 1..50)) {
            let body = json!({"data": [{"index": 0, "embedding": base64(&floats)}]});
            prop_assert_eq!(&parse(body.to_string(), 1).unwrap().vectors[0], &floats);
        }
    }
}

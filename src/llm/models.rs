//! Reading the list of a service's models.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::chat::{error_in, object};
use super::client::RawReply;
use super::error::ApiError;
use super::wire::{first_byte, lenient_text, real_error, without_mark};

/// The models that a service offers.
#[derive(Clone, Debug)]
pub struct ModelsReply {
    /// Each as the server describes it, a JSON object with a text `id`, in its order.
    pub models: Vec<Bytes>,
    /// The provider's id for the request.
    pub request_id: Option<String>,
}

#[derive(Deserialize)]
struct WireReply<'a> {
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    #[serde(default, borrow)]
    data: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct WireModel<'a> {
    #[serde(default, borrow, deserialize_with = "lenient_text")]
    id: Option<Cow<'a, str>>,
}

/// Reads a list of models: the API's, or (some servers) a bare one.
pub fn parse_reply(reply: RawReply) -> Result<ModelsReply, ApiError> {
    let body = without_mark(&reply.body);
    let bare = if first_byte(body) == Some(b'[') { serde_json::from_slice(body).ok() } else { None };
    let data: Vec<&RawValue> = match bare {
        Some(bare) => bare,
        None => {
            let wire: WireReply<'_> = object(&reply)?;
            if let Some(error) = real_error(wire.error) {
                return Err(error_in(&reply, error));
            }
            // A server without models says so with null.
            wire.data.unwrap_or_default()
        }
    };
    let mut models = Vec::with_capacity(data.len());
    for model in data {
        match serde_json::from_str(model.get()) {
            Ok(WireModel { id: Some(_) }) => models.push(reply.body.slice_ref(model.get().as_bytes())),
            _ => return Err(reply.malformed(&format!("a model without an id: {}", reply.excerpt(model.get().as_bytes())))),
        }
    }
    Ok(ModelsReply { models, request_id: reply.request_id })
}

#[cfg(test)]
mod tests {
    use super::super::error::ErrorKind;
    use super::*;
    use reqwest::header::HeaderMap;

    fn parse(body: &str) -> Result<Vec<String>, ApiError> {
        let reply = parse_reply(RawReply::new(200, HeaderMap::new(), body.to_owned()))?;
        Ok(reply.models.iter().map(|model| String::from_utf8_lossy(model).into_owned()).collect())
    }

    #[test]
    fn lists_are_read_in_the_forms_that_servers_have() {
        assert_eq!(parse(r#"{"object":"list","data":[{"id":"a","x":1},{"id":"b"}]}"#).unwrap(), [r#"{"id":"a","x":1}"#, r#"{"id":"b"}"#]);
        assert_eq!(parse("\u{feff} [{\"id\":\"a\"}]").unwrap(), [r#"{"id":"a"}"#]);
        assert!(parse(r#"{"object":"list","data":null}"#).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list_of_models_is_malformed() {
        for body in ["", "[1]", "[", r#"{"data":[{}]}"#, r#"{"data":["a"]}"#, r#"{"data":{}}"#, "<html>", "[{\"id\":null}]"] {
            assert_eq!(parse(body).unwrap_err().kind, ErrorKind::MalformedResponse, "{body}");
        }
        assert_eq!(parse(r#"{"error":{"code":401,"message":"m"}}"#).unwrap_err().kind, ErrorKind::Authentication);
    }
}

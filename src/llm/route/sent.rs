//! What an attempt sends: the question, with what was said since it was asked first.

use super::Flight;
use crate::engine::Target;
use crate::llm::client::Request;
use crate::llm::endpoint::is_credential;
use crate::llm::interrupt::{Beginning, Mark, OnInterrupt, with_answer};
use crate::llm::order::Task;
use crate::llm::screen::with_exchange;
use bytes::Bytes;

impl Flight {
    /// How the stream of an attempt that begins now is to be read.
    pub(super) fn beginning(&self) -> Beginning {
        let attempt = u32::try_from(self.attempts.len()).unwrap_or(u32::MAX);
        match (&self.given, self.order.on_interrupt) {
            (None, _) | (_, OnInterrupt::Error) => Beginning { attempt, ..Beginning::default() },
            (Some(_), OnInterrupt::Restart) => Beginning { attempt, mark: Mark::Restarted, text: String::new() },
            (Some(text), OnInterrupt::Continue) => Beginning { attempt, mark: Mark::Continued, text: text.clone() },
        }
    }

    /// The request of an attempt.
    pub(super) fn request(&mut self, target: Target) -> Request {
        let path = match self.order.task {
            Task::Models => return self.dressed(target, Request::get("models")),
            Task::Embeddings => "embeddings",
            Task::Chat | Task::Stream => "chat/completions",
        };
        let request = Request::new(path, self.body(target)).for_model(self.route.legs[target.0].model.clone());
        self.dressed(target, request)
    }

    /// The request with what the call sends beside its body.
    fn dressed(&self, target: Target, mut request: Request) -> Request {
        let (extras, leg) = (&self.order.extras, &self.route.legs[target.0]);
        request.max_response_bytes = leg.max_response_bytes;
        if !extras.headers.is_empty() || !extras.query.is_empty() {
            let is_trusted = leg.endpoint.has_origin_of(&self.route.legs[0].endpoint);
            let headers = extras.headers.iter().filter(|(_, value)| is_trusted || !value.is_sensitive());
            request.headers.extend(headers.map(|(name, value)| (name.clone(), value.clone())));
            request.query.extend(extras.query.iter().filter(|(name, _)| is_trusted || !is_credential(name)).cloned());
        }
        for (name, value) in self.order.trace.iter().flat_map(|trace| trace.headers()) {
            request.headers.entry(name).or_insert_with(|| value.clone());
        }
        if let Some(key) = &extras.idempotency_key {
            // Another model's answer is not the same: the same key would have a server refuse it, or give the old one.
            let mut key = if target.0 == 0 { key.to_string() } else { format!("{key}-{}", target.0) };
            if let (OnInterrupt::Continue, Some(text)) = (self.order.on_interrupt, &self.given) {
                key.push_str(&format!("-after-{}", text.len())); // nor is a question that holds half of its answer
            }
            match self.asked_again(target) {
                0 => {}
                times => key.push_str(&format!("-again-{times}")), // it holds an answer that was refused
            }
            if let Ok(key) = key.parse() {
                request.headers.insert("idempotency-key", key);
            }
        }
        request
    }

    /// How often a target was told why its answer was refused.
    pub(super) fn asked_again(&self, target: Target) -> u32 {
        self.refused.iter().filter(|(by, _)| *by == target).count() as u32
    }

    fn body(&mut self, target: Target) -> Bytes {
        let at = target.0;
        if let (OnInterrupt::Continue, Some(text)) = (self.order.on_interrupt, &self.given)
            && let Some(content) = with_answer(&self.order.content, text)
        {
            return self.written(at, &content);
        }
        let mut exchanges = self.refused.iter().filter(|(by, _)| *by == target).map(|(_, again)| again).peekable();
        if exchanges.peek().is_some() {
            let mut content = self.order.content.to_vec();
            for again in exchanges {
                content = with_exchange(&content, again).unwrap_or(content);
            }
            return self.written(at, &content);
        }
        if let Some(body) = &self.bodies[at] {
            return body.clone();
        }
        let body = self.written(at, &self.order.content);
        self.bodies[at] = Some(body.clone());
        body
    }

    fn written(&self, at: usize, content: &[u8]) -> Bytes {
        let (leg, order) = (&self.route.legs[at], &self.order);
        let mut body = Vec::with_capacity(content.len() + 256);
        body.extend_from_slice(b"{\"model\":");
        // Writing texts to memory cannot fail.
        let _ = serde_json::to_writer(&mut body, &*leg.model);
        body.extend_from_slice(if order.task == Task::Embeddings { b",\"input\":" } else { b",\"messages\":" });
        body.extend_from_slice(content);
        for (name, value) in order.params_at(leg) {
            body.push(b',');
            let _ = serde_json::to_writer(&mut body, name);
            body.push(b':');
            body.extend_from_slice(value);
        }
        body.push(b'}');
        Bytes::from(body)
    }
}

//! What a model answered: whole, and in pieces.

use super::json;
use super::route::Story;
use crate::llm::chat::{ChatReply, parse_reply};
use crate::llm::client::RawReply;
use crate::llm::delta::Delta;
use crate::llm::interrupt::Mark;
use crate::llm::usage::Usage;
use crate::python::convert::quoted;
use crate::python::errors::configuration;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use std::sync::Arc;

fn usage_dict<'py>(py: Python<'py>, usage: Option<&Usage>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(usage) = usage else { return Ok(None) };
    let dict = PyDict::new(py);
    dict.set_item("prompt_tokens", usage.prompt_tokens)?;
    dict.set_item("completion_tokens", usage.completion_tokens)?;
    dict.set_item("total_tokens", usage.total_tokens)?;
    if let Some(cached) = usage.cached_tokens {
        dict.set_item("cached_tokens", cached)?;
    }
    if let Some(reasoning) = usage.reasoning_tokens {
        dict.set_item("reasoning_tokens", reasoning)?;
    }
    Ok(Some(dict))
}

/// A model's whole answer.
#[pyclass(frozen, module = "seawall.llm")]
pub struct Reply {
    pub reply: ChatReply,
    pub story: Story,
    pub asked_model: Arc<str>,
}

#[pymethods]
impl Reply {
    /// The attempts made, in order; compares with a number as their count.
    #[getter]
    fn attempts(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        self.story.attempts(py)
    }

    /// Seconds from the call to the answer, retries and waits included.
    #[getter]
    fn seconds(&self) -> f64 {
        self.story.seconds
    }

    /// Which alternative answered: 0 is the primary.
    #[getter]
    fn alternative(&self) -> u16 {
        self.story.alternative
    }

    /// The model that was asked; `model` is what the server says.
    #[getter]
    fn asked_model(&self) -> &str {
        &self.asked_model
    }

    /// The text.
    #[getter]
    fn content(&self) -> &str {
        &self.reply.content
    }

    /// What the model says of its reasoning, where it does.
    #[getter]
    fn reasoning(&self) -> Option<&str> {
        self.reply.reasoning.as_deref()
    }

    /// The model's refusal, where it refused.
    #[getter]
    fn refusal(&self) -> Option<&str> {
        self.reply.refusal.as_deref()
    }

    /// The model that answered, as the server names it.
    #[getter]
    fn model(&self) -> &str {
        self.reply.model.as_deref().unwrap_or(&self.asked_model)
    }

    /// The answer's id.
    #[getter]
    fn id(&self) -> Option<&str> {
        self.reply.id.as_deref()
    }

    /// The provider's id of the request.
    #[getter]
    fn request_id(&self) -> Option<&str> {
        self.reply.request_id.as_deref()
    }

    /// `stop`, `length`, `tool_calls`, `content_filter`, …
    #[getter]
    fn finish_reason(&self) -> Option<&str> {
        self.reply.finish_reason.as_deref()
    }

    #[getter]
    fn system_fingerprint(&self) -> Option<&str> {
        self.reply.system_fingerprint.as_deref()
    }

    #[getter]
    fn service_tier(&self) -> Option<&str> {
        self.reply.service_tier.as_deref()
    }

    /// Tokens: `prompt_tokens`, `completion_tokens`, `total_tokens`, and `cached_tokens` and `reasoning_tokens` if told.
    #[getter]
    fn usage<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        usage_dict(py, self.reply.usage.as_ref())
    }

    /// How many choices the server sent; `content` is that of the first.
    #[getter]
    fn choices(&self) -> usize {
        self.reply.choices_count
    }

    /// The tool calls: `(id, name, arguments)` each, arguments as the JSON text that the model wrote.
    #[getter]
    fn tool_calls(&self) -> Vec<(Option<String>, String, String)> {
        self.reply.tool_calls.iter().map(|c| (c.id.clone(), c.name.clone(), c.arguments.clone())).collect()
    }

    /// The response's headers, names in lower case.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in self.reply.headers() {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    /// The whole body, parsed: everything that the server said.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::parsed(py, &self.reply.raw)
    }

    /// As it was, from what `__reduce__` gives.
    #[staticmethod]
    fn _restored(
        py: Python<'_>,
        raw: Vec<u8>,
        headers: Vec<(String, String)>,
        attempts: Py<PyAny>,
        seconds: f64,
        alternative: u16,
        asked_model: String,
    ) -> PyResult<Reply> {
        let named = headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        let reply = parse_reply(RawReply::new(200, named.collect(), raw)).map_err(|e| configuration(py, &e.message))?;
        Ok(Reply { reply, story: Story::retold(attempts, alternative, seconds), asked_model: asked_model.into() })
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let (py, this) = (slf.py(), slf.get());
        let parts = (
            PyBytes::new(py, &this.reply.raw),
            this.reply.headers(),
            this.story.attempts(py)?,
            this.story.seconds,
            this.story.alternative,
            &*this.asked_model,
        );
        (slf.get_type().getattr("_restored")?, parts).into_pyobject(py)
    }

    /// It never changes, so a copy of it is itself.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __str__(&self) -> &str {
        &self.reply.content
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text: String = self.reply.content.chars().take(60).collect();
        let attempts = self.story.attempts(py)?.bind(py).len()?;
        Ok(format!(
            "<Reply {} from {} in {:.2} s, {attempts} attempt{}>",
            quoted(py, &text),
            self.model(),
            self.story.seconds,
            if attempts == 1 { "" } else { "s" }
        ))
    }
}

/// A piece of a streamed answer.
#[pyclass(frozen, module = "seawall.llm")]
pub struct Chunk {
    pub delta: Delta,
}

#[pymethods]
impl Chunk {
    /// The text of this piece; may be empty.
    #[getter]
    fn content(&self) -> &str {
        &self.delta.content
    }

    #[getter]
    fn reasoning(&self) -> Option<&str> {
        self.delta.reasoning.as_deref()
    }

    #[getter]
    fn refusal(&self) -> Option<&str> {
        self.delta.refusal.as_deref()
    }

    #[getter]
    fn role(&self) -> Option<&str> {
        self.delta.role.as_deref()
    }

    #[getter]
    fn model(&self) -> Option<&str> {
        self.delta.source.model.as_deref()
    }

    #[getter]
    fn id(&self) -> Option<&str> {
        self.delta.source.id.as_deref()
    }

    /// Set on the last piece: `stop`, `length`, …
    #[getter]
    fn finish_reason(&self) -> Option<&str> {
        self.delta.finish_reason.as_deref()
    }

    #[getter]
    fn system_fingerprint(&self) -> Option<&str> {
        self.delta.source.system_fingerprint.as_deref()
    }

    #[getter]
    fn service_tier(&self) -> Option<&str> {
        self.delta.source.service_tier.as_deref()
    }

    /// Which choice it belongs to.
    #[getter]
    fn index(&self) -> u32 {
        self.delta.index
    }

    /// Which attempt gave it: its place among the stream's `attempts`, from 1 on.
    #[getter]
    fn attempt(&self) -> u32 {
        self.delta.attempt
    }

    /// Whether the answer begins anew with this piece (`on_interrupt="restart"`): the pieces before it are void.
    #[getter]
    fn restarted(&self) -> bool {
        self.delta.mark == Mark::Restarted
    }

    /// Whether another attempt goes on with this piece (`on_interrupt="continue"`): it follows those before it.
    #[getter]
    fn continued(&self) -> bool {
        self.delta.mark == Mark::Continued
    }

    /// Tokens, on the piece that tells them: those of its own attempt's request.
    #[getter]
    fn usage<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        usage_dict(py, self.delta.usage.as_ref())
    }

    /// Pieces of tool calls: `(index, id, name, arguments)` each.
    #[getter]
    fn tool_calls(&self) -> Vec<(u32, Option<String>, Option<String>, String)> {
        self.delta.tool_calls.iter().map(|c| (c.index, c.id.clone(), c.name.clone(), c.arguments.clone())).collect()
    }

    /// The event, parsed.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::parsed(py, &self.delta.raw)
    }

    fn __str__(&self) -> &str {
        &self.delta.content
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<Chunk {}>", quoted(py, &self.delta.content))
    }
}

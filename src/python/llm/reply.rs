//! What a model answered: whole, and in pieces.

use super::json;
use super::story::Story;
use crate::guardrails::Tally;
use crate::llm::chat::{self, ChatReply, parse_reply};
use crate::llm::client::RawReply;
use crate::llm::delta::Delta;
use crate::llm::interrupt::Mark;
use crate::llm::screen;
use crate::llm::usage::Usage;
use crate::python::convert::quoted;
use crate::python::errors::{configuration, picture, unless_interrupted};
use crate::python::guardrails;
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::intern;
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

/// The beginning of a text, marked where it is not all of it.
fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A tool call: id, name, arguments.
type Call = (Option<String>, String, String);

fn tool_calls(choice: &chat::Choice) -> Vec<Call> {
    choice.tool_calls.iter().map(|c| (c.id.clone(), c.name.clone(), c.arguments.clone())).collect()
}

/// A choice as it stands in a body or an event; nothing if it is none.
fn choice_in<'py>(py: Python<'py>, raw: &[u8], place: usize) -> PyResult<Option<Bound<'py, PyDict>>> {
    let body = json::parsed(py, raw)?;
    let choices = body.cast_into::<PyDict>().ok().and_then(|body| body.get_item(intern!(py, "choices")).ok().flatten());
    let choice = choices.and_then(|choices| choices.get_item(place).ok());
    Ok(choice.and_then(|choice| choice.cast_into::<PyDict>().ok()))
}

fn message<'py>(py: Python<'py>, raw: &[u8], place: usize) -> PyResult<Bound<'py, PyAny>> {
    let message = match choice_in(py, raw, place)? {
        Some(choice) => choice.get_item(intern!(py, "message"))?,
        None => None,
    };
    let message = message.unwrap_or_else(|| PyDict::new(py).into_any());
    // Some servers leave out what every request needs.
    if let Ok(dict) = message.cast::<PyDict>()
        && !dict.contains(intern!(py, "role"))?
    {
        dict.set_item(intern!(py, "role"), intern!(py, "assistant"))?;
    }
    Ok(message)
}

fn logprobs<'py>(py: Python<'py>, raw: &[u8], place: usize) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(choice) = choice_in(py, raw, place)? else { return Ok(None) };
    Ok(choice.get_item(intern!(py, "logprobs"))?.and_then(|found| found.cast_into::<PyDict>().ok()))
}

fn parsed<'py>(py: Python<'py>, choice: &chat::Choice) -> PyResult<Bound<'py, PyAny>> {
    if let Some(parsed) = unless_interrupted(py, json::parsed(py, choice.content.as_bytes()))? {
        return Ok(parsed);
    }
    // The parser's own error would hold the text.
    let what = match (&choice.refusal, choice.finish_reason.as_deref()) {
        (Some(_), _) => "the model refused (see .refusal)".to_owned(),
        (None, Some("length")) => "it was cut short (finish_reason \"length\"): allow more max_completion_tokens".to_owned(),
        (None, Some(reason)) => format!("finish_reason is {reason:?}; was response_format given?"),
        (None, None) => "was response_format given?".to_owned(),
    };
    Err(PyValueError::new_err(format!("the answer is no JSON: {what}")))
}

/// One of a reply's answers.
#[pyclass(frozen, module = "seawall.llm")]
pub struct Choice {
    reply: Py<Reply>,
    at: usize,
}

impl Choice {
    fn of(&self) -> &chat::Choice {
        let reply = &self.reply.get().reply;
        if self.at == 0 { &reply.first } else { &reply.others[self.at - 1] }
    }
}

#[pymethods]
impl Choice {
    /// Its number.
    #[getter]
    fn index(&self) -> u32 {
        self.of().index
    }

    /// The text.
    #[getter]
    fn content(&self) -> &str {
        &self.of().content
    }

    /// What the model says of its reasoning, where it does.
    #[getter]
    fn reasoning(&self) -> Option<&str> {
        self.of().reasoning.as_deref()
    }

    /// The model's refusal, where it refused.
    #[getter]
    fn refusal(&self) -> Option<&str> {
        self.of().refusal.as_deref()
    }

    /// `stop`, `length`, `tool_calls`, `content_filter`, …
    #[getter]
    fn finish_reason(&self) -> Option<&str> {
        self.of().finish_reason.as_deref()
    }

    /// The tool calls, as a reply has them.
    #[getter]
    fn tool_calls(&self) -> Vec<Call> {
        tool_calls(self.of())
    }

    /// The message as the server sent it.
    #[getter]
    fn message<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        message(py, &self.reply.get().reply.raw, self.of().place)
    }

    /// The tokens' log probabilities, as the server sent them.
    #[getter]
    fn logprobs<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        logprobs(py, &self.reply.get().reply.raw, self.of().place)
    }

    /// What the text says as JSON, or a ValueError.
    fn parsed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        parsed(py, self.of())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        (self.reply.bind(py).getattr(intern!(py, "_choice"))?, (self.at,)).into_pyobject(py)
    }

    fn __str__(&self) -> &str {
        self.content()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<Choice {} {}>", self.index(), quoted(py, &short(self.content(), 60)))
    }
}

/// A model's whole answer.
#[pyclass(frozen, module = "seawall.llm")]
pub struct Reply {
    pub reply: Arc<ChatReply>,
    /// The same where what was taken out of the question is not put back: all that leaves the process of it.
    pub kept: Option<Arc<ChatReply>>,
    pub story: Story,
    pub asked_model: Arc<str>,
    /// What guardrails have done to what was asked.
    pub input: Tally,
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

    /// Whether it came from a cache: no request was made for it, and no tokens were used.
    #[getter]
    fn cached(&self) -> bool {
        self.story.cached
    }

    /// Which alternative answered: 0 is the primary.
    #[getter]
    fn alternative(&self) -> usize {
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
        &self.reply.first.content
    }

    /// What the model says of its reasoning, where it does.
    #[getter]
    fn reasoning(&self) -> Option<&str> {
        self.reply.first.reasoning.as_deref()
    }

    /// The model's refusal, where it refused.
    #[getter]
    fn refusal(&self) -> Option<&str> {
        self.reply.first.refusal.as_deref()
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
        self.reply.first.finish_reason.as_deref()
    }

    /// The server's mark of the setup that answered, where it gives one.
    #[getter]
    fn system_fingerprint(&self) -> Option<&str> {
        self.reply.system_fingerprint.as_deref()
    }

    /// The tier that served it, where the server says.
    #[getter]
    fn service_tier(&self) -> Option<&str> {
        self.reply.service_tier.as_deref()
    }

    /// Tokens: `prompt_tokens`, `completion_tokens`, `total_tokens`, and `cached_tokens` and `reasoning_tokens` if told.
    #[getter]
    fn usage<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        usage_dict(py, self.reply.usage.as_ref())
    }

    /// What policies did in the call's course, in order.
    #[getter]
    fn story(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        self.story.steps(py)
    }

    /// All answers, in the order of their indexes; `content` and the like are those of the first.
    #[getter]
    fn choices(slf: &Bound<'_, Self>) -> Vec<Choice> {
        let count = slf.get().reply.choices().count();
        (0..count).map(|at| Choice { reply: slf.clone().unbind(), at }).collect()
    }

    /// One of `choices`.
    fn _choice(slf: &Bound<'_, Self>, at: usize) -> PyResult<Choice> {
        match slf.get().reply.choices().nth(at) {
            Some(_) => Ok(Choice { reply: slf.clone().unbind(), at }),
            None => Err(PyIndexError::new_err("there is no such choice")),
        }
    }

    /// The message as the server sent it, to go into the next request's messages.
    #[getter]
    fn message<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        message(py, &self.reply.raw, self.reply.first.place)
    }

    /// The tokens' log probabilities, as the server sent them; `None` if they were not asked for.
    #[getter]
    fn logprobs<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        logprobs(py, &self.reply.raw, self.reply.first.place)
    }

    /// What guardrails have done to the question and to this answer, in order: what ("redacted", "repaired"), to which ("input",
    /// "output"), which rule, how often.
    #[getter]
    fn guardrails<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        guardrails::applied(py, [&self.input, &self.reply.screened])
    }

    /// What a `Shape` of the guardrails has read; else what the text says as JSON (`response_format`).
    ///
    /// Raises ValueError if it is no JSON: cut short, a refusal, or prose.
    fn parsed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match guardrails::parsed(py, &self.reply.screened) {
            Some(parsed) => Ok(parsed.into_bound(py)),
            None => parsed(py, &self.reply.first),
        }
    }

    /// The tool calls: `(id, name, arguments)` each, arguments as the JSON text that the model wrote.
    #[getter]
    fn tool_calls(&self) -> Vec<Call> {
        tool_calls(&self.reply.first)
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
    #[allow(clippy::too_many_arguments)] // one per part
    fn _restored(
        py: Python<'_>,
        raw: Vec<u8>,
        headers: Vec<(String, String)>,
        attempts: Py<PyAny>,
        seconds: f64,
        alternative: usize,
        asked_model: String,
        story: Py<PyAny>,
        cached: bool,
        done: guardrails::Done,
    ) -> PyResult<Reply> {
        let named = headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        let mut reply = parse_reply(RawReply::new(200, named.collect(), raw)).map_err(|e| configuration(py, &e.message))?;
        let input = guardrails::redone(py, done, &mut reply.screened)?;
        let story = Story::retold(attempts, story, alternative, seconds, cached);
        Ok(Reply { reply: Arc::new(reply), kept: None, story, asked_model: asked_model.into(), input })
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let (py, this) = (slf.py(), slf.get());
        let kept = this.kept.as_ref().unwrap_or(&this.reply);
        let parts = (
            PyBytes::new(py, &kept.raw),
            this.reply.headers(),
            this.story.attempts(py)?,
            this.story.seconds,
            this.story.alternative,
            &*this.asked_model,
            this.story.steps(py)?,
            this.story.cached,
            guardrails::done(py, &this.input, &kept.screened)?,
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
        &self.reply.first.content
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let first = &self.reply.first;
        let said = match (first.content.is_empty(), first.tool_calls.as_slice()) {
            (true, [call, ..]) => format!("that calls {}", quoted(py, &call.name)),
            _ => quoted(py, &short(&first.content, 60)),
        };
        let attempts = self.story.attempts(py)?.bind(py).len()?;
        let plural = if attempts == 1 { "" } else { "s" };
        let mut facts = format!("from {} in {:.2} s, {attempts} attempt{plural}", self.model(), self.story.seconds);
        if self.story.cached {
            facts += ", from the cache";
        }
        if self.story.alternative > 0 {
            facts += &format!(", alternative {}", self.story.alternative);
        }
        if first.finish_reason.as_deref() == Some("length") {
            facts += ", cut short by its length limit";
        }
        Ok(format!("<Reply {said} {facts}>"))
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        picture(slf, "reply")
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

    /// What the model says of its reasoning, where it does.
    #[getter]
    fn reasoning(&self) -> Option<&str> {
        self.delta.reasoning.as_deref()
    }

    /// The model's refusal, where it refused.
    #[getter]
    fn refusal(&self) -> Option<&str> {
        self.delta.refusal.as_deref()
    }

    /// Whose words these are, where the piece says; most do not.
    #[getter]
    fn role(&self) -> Option<&str> {
        self.delta.role.as_deref()
    }

    /// The model that answered, as the server names it.
    #[getter]
    fn model(&self) -> Option<&str> {
        self.delta.source.model.as_deref()
    }

    /// The answer's id.
    #[getter]
    fn id(&self) -> Option<&str> {
        self.delta.source.id.as_deref()
    }

    /// Set on the last piece: `stop`, `length`, …
    #[getter]
    fn finish_reason(&self) -> Option<&str> {
        self.delta.finish_reason.as_deref()
    }

    /// The server's mark of the setup that answered, where it gives one.
    #[getter]
    fn system_fingerprint(&self) -> Option<&str> {
        self.delta.source.system_fingerprint.as_deref()
    }

    /// The tier that served it, where the server says.
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
        usage_dict(py, self.delta.usage.as_deref())
    }

    /// Pieces of tool calls: `(index, id, name, arguments)` each.
    #[getter]
    fn tool_calls(&self) -> Vec<(u32, Option<String>, Option<String>, String)> {
        self.delta.tool_calls.iter().map(|c| (c.index, c.id.clone(), c.name.clone(), c.arguments.clone())).collect()
    }

    /// Its tokens' log probabilities, as the server sent them; `None` if they were not asked for.
    #[getter]
    fn logprobs<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        logprobs(py, &self.delta.raw, self.delta.place)
    }

    /// The same with other texts: the content, the reasoning, the refusal, and the arguments of its tool calls.
    fn _with(&self, content: String, reasoning: Option<String>, refusal: Option<String>, arguments: Vec<String>) -> Chunk {
        Chunk { delta: screen::with_texts(&self.delta, content, reasoning, refusal, arguments) }
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

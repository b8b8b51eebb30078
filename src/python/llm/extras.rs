//! What a call sends beside its body, from Python.

use super::raise;
use crate::llm::endpoint::{header, note_credentials};
use crate::llm::order::{Extras, fresh_key};
use crate::llm::secret::Secrets;
use crate::policies::cache::Caching;
use pyo3::prelude::*;
use reqwest::header::HeaderMap;

/// Headers, query parameters, the idempotency key (`None` for none, empty for a new one in each call), and whether a cache is gone
/// past (`False`) or given the answer anew (`True`).
pub type Given = (Vec<(String, String)>, Vec<(String, String)>, Option<String>, Option<bool>);

/// The same, checked.
#[derive(Clone)]
pub struct Checked {
    extras: Extras,
    is_fresh: bool,
}

impl Checked {
    pub fn new(py: Python<'_>, table: &Py<PyAny>, given: Option<Given>) -> PyResult<Checked> {
        let Some((named, query, idempotency_key, anew)) = given else {
            return Ok(Checked { extras: Extras::default(), is_fresh: false });
        };
        let wrong = |error| raise::api(py, &error, table.bind(py), None);
        let mut headers = HeaderMap::with_capacity(named.len());
        for (name, value) in named {
            let (name, mut value) = header(&name, &value).map_err(wrong)?;
            // Marks the value; the secret itself is noted when it is sent.
            note_credentials(&name, &mut value, &mut Secrets::default());
            headers.insert(name, value);
        }
        let is_fresh = idempotency_key.as_deref() == Some("");
        if let Some(key) = &idempotency_key {
            header("idempotency-key", key).map_err(wrong)?;
        }
        let idempotency_key = idempotency_key.map(String::into_boxed_str);
        let caching = match anew {
            None => Caching::Usual,
            Some(false) => Caching::Bypass,
            Some(true) => Caching::Refresh,
        };
        Ok(Checked { extras: Extras { headers, query, idempotency_key, caching }, is_fresh })
    }

    /// Those of one call.
    pub fn of_a_call(self) -> Extras {
        let mut extras = self.extras;
        if self.is_fresh {
            extras.idempotency_key = Some(fresh_key().into());
        }
        extras
    }

    /// Those of one call among several: a key that was given has to be another one for each.
    pub fn of_call(&self, at: usize) -> Extras {
        let mut extras = self.clone().of_a_call();
        if let (Some(key), false) = (&extras.idempotency_key, self.is_fresh) {
            extras.idempotency_key = Some(format!("{key}.{at}").into());
        }
        extras
    }
}

//! Documents as Python reads them.

use crate::document::{self, Item, Place, Value};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A problem: its place, what is wrong, and whether it is about one value alone.
type Told = (Place, String, bool);

/// A text's values with their places, and what is no TOML in it: `((line, column, width), value)`, a table's keys each with `(place, item)`.
/// `None` is a value that could not be read.
#[pyfunction]
pub fn read_toml<'py>(py: Python<'py>, text: &str) -> PyResult<(Bound<'py, PyAny>, Vec<Told>)> {
    let read = py.detach(|| document::parse(text));
    Ok((item(py, read.root)?, read.problems.into_iter().map(|problem| (problem.place, problem.message, problem.confined)).collect()))
}

fn item(py: Python<'_>, item: Item) -> PyResult<Bound<'_, PyAny>> {
    let value = match item.value {
        Value::Text(text) => text.into_bound_py_any(py)?,
        Value::Whole(number) => number.into_bound_py_any(py)?,
        Value::Number(number) => number.into_bound_py_any(py)?,
        Value::Flag(flag) => flag.into_bound_py_any(py)?,
        Value::List(items) => items.into_iter().map(|each| self::item(py, each)).collect::<PyResult<Vec<_>>>()?.into_bound_py_any(py)?,
        Value::Table(fields) => {
            let table = PyDict::new(py);
            for (key, place, value) in fields {
                let pair: (Place, Bound<'_, PyAny>) = (place, self::item(py, value)?);
                table.set_item(key, pair)?;
            }
            table.into_any()
        }
        Value::Unread => py.None().into_bound(py),
    };
    (item.place, value).into_bound_py_any(py)
}

//! Values that fit a JSON schema.

use serde_json::{Map, Value, json};

/// How deep a schema that refers to itself is followed.
const DEPTH: usize = 8;
/// How many values are made at most: such a schema may also be wide.
const VALUES: usize = 2000;

/// A value that fits the schema: short texts, ones, one item per list, the first of each choice.
pub fn invent(schema: &Value) -> Value {
    Making { root: schema, left: VALUES }.fitting(schema, DEPTH)
}

struct Making<'a> {
    root: &'a Value,
    left: usize,
}

impl Making<'_> {
    fn fitting(&mut self, schema: &Value, depth: usize) -> Value {
        if depth == 0 || self.left == 0 {
            return Value::Null;
        }
        self.left -= 1;
        if let Some(named) = schema.get("$ref").and_then(Value::as_str) {
            let part = named.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return part.map_or(Value::Null, |part| self.fitting(part, depth - 1));
        }
        if let Some(fixed) = schema.get("const").or_else(|| schema.get("enum")?.get(0)) {
            return fixed.clone();
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            let mut whole = Map::new();
            for part in parts {
                match self.fitting(part, depth - 1) {
                    Value::Object(fields) => whole.extend(fields),
                    other => return other,
                }
            }
            return Value::Object(whole);
        }
        if let Some(choices) = ["anyOf", "oneOf"].iter().find_map(|name| schema.get(*name)?.as_array()) {
            let is_null = |choice: &&Value| choice.get("type").and_then(Value::as_str) == Some("null");
            let chosen = choices.iter().find(|choice| !is_null(choice)).or_else(|| choices.first());
            return chosen.map_or(Value::Null, |choice| self.fitting(choice, depth - 1));
        }
        self.of_type(schema, depth)
    }

    fn of_type(&mut self, schema: &Value, depth: usize) -> Value {
        let kind = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|k| *k != "null"),
            Some(Value::String(kind)) => Some(kind.as_str()),
            _ => None,
        };
        let size = |name: &str| schema.get(name).and_then(Value::as_u64).unwrap_or(1).clamp(1, 100) as usize;
        match kind {
            Some("string") => json!("text".repeat(size("minLength").div_ceil(4))),
            Some("integer") => json!(number(schema) as i64),
            Some("number") => json!(number(schema)),
            Some("boolean") => json!(true),
            Some("array") => match schema.get("items") {
                Some(items) => (0..size("minItems")).map(|_| self.fitting(items, depth - 1)).collect(),
                None => json!([]),
            },
            Some("null") => Value::Null,
            _ => {
                let fields = schema.get("properties").and_then(Value::as_object);
                let made = fields.into_iter().flatten().map(|(name, part)| (name.clone(), self.fitting(part, depth - 1)));
                Value::Object(made.collect())
            }
        }
    }
}

/// One, or what is nearest to it within the limits.
fn number(schema: &Value) -> f64 {
    let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
    let least = limit("minimum").or_else(|| limit("exclusiveMinimum").map(|l| l + 1.0)).unwrap_or(f64::MIN);
    let most = limit("maximum").or_else(|| limit("exclusiveMaximum").map(|m| m - 1.0)).unwrap_or(f64::MAX);
    1f64.min(most).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_invented_has_the_schemas_shape() {
        let schema = json!({
            "type": "object",
            "$defs": { "node": { "type": "object", "properties": { "next": { "$ref": "#/$defs/node" }, "name": { "type": "string" } } } },
            "properties": {
                "kind": { "enum": ["b", "a"] },
                "count": { "type": "integer", "minimum": 3 },
                "ratio": { "anyOf": [{ "type": "null" }, { "type": "number" }] },
                "tags": { "type": "array", "items": { "type": "string" } },
                "maybe": { "type": ["null", "boolean"] },
                "node": { "$ref": "#/$defs/node" },
            },
        });
        let made = invent(&schema);
        assert_eq!(made["kind"], "b");
        assert_eq!(made["count"], 3);
        assert_eq!(made["ratio"], 1.0);
        assert_eq!(made["tags"], json!(["text"]));
        assert_eq!(made["maybe"], true);
        assert_eq!(made["node"]["next"]["name"], "text");
        assert_eq!(invent(&json!({ "type": "integer", "maximum": 0 })), 0);
        assert_eq!(invent(&json!({ "type": "array", "minItems": 2, "items": { "type": "null" } })), json!([null, null]));
        assert_eq!(invent(&Value::Null), json!({}));
        assert_eq!(invent(&json!({ "$ref": "#/nowhere" })), Value::Null);
    }

    #[test]
    fn a_wide_schema_that_refers_to_itself_comes_to_an_end() {
        let fields: Map<String, Value> = (0..60).map(|n| (format!("f{n}"), json!({ "$ref": "#" }))).collect();
        assert!(invent(&json!({ "type": "object", "properties": fields })).to_string().len() < 100_000);
    }
}

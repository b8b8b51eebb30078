//! Values that fit a JSON schema.

use serde_json::{Map, Value, json};

/// How deep a schema that refers to itself is followed.
const DEPTH: usize = 8;

/// A value that fits the schema: short texts, ones, one item per list, the first of each choice.
pub fn invent(schema: &Value) -> Value {
    fitting(schema, schema, DEPTH)
}

fn fitting(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    let deeper = |part: &Value| fitting(part, root, depth - 1);
    if let Some(named) = schema.get("$ref").and_then(Value::as_str) {
        return named.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).map_or(Value::Null, deeper);
    }
    if let Some(fixed) = schema.get("const").or_else(|| schema.get("enum")?.get(0)) {
        return fixed.clone();
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        let mut whole = Map::new();
        for part in parts {
            match deeper(part) {
                Value::Object(fields) => whole.extend(fields),
                other => return other,
            }
        }
        return Value::Object(whole);
    }
    if let Some(choices) = ["anyOf", "oneOf"].iter().find_map(|name| schema.get(*name)?.as_array()) {
        let kind = |choice: &Value| choice.get("type").and_then(Value::as_str).map(str::to_owned);
        let chosen = choices.iter().find(|choice| kind(choice).as_deref() != Some("null")).or_else(|| choices.first());
        return chosen.map_or(Value::Null, deeper);
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|k| *k != "null"),
        Some(Value::String(kind)) => Some(kind.as_str()),
        _ if schema.get("properties").is_some() => Some("object"),
        _ => None,
    };
    let least = || schema.get("minimum").cloned().filter(|least| least.as_f64().is_some_and(|l| l > 1.0));
    match kind {
        Some("string") => json!("text"),
        Some("integer") => least().unwrap_or(json!(1)),
        Some("number") => least().unwrap_or(json!(1.0)),
        Some("boolean") => json!(true),
        Some("array") => schema.get("items").map_or_else(|| json!([]), |items| json!([deeper(items)])),
        Some("object") | None => {
            let fields = schema.get("properties").and_then(Value::as_object);
            Value::Object(fields.map(|f| f.iter().map(|(name, part)| (name.clone(), deeper(part))).collect()).unwrap_or_default())
        }
        Some(_) => Value::Null,
    }
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
        assert_eq!(invent(&Value::Null), json!({}));
        assert_eq!(invent(&json!({ "$ref": "#/nowhere" })), Value::Null);
    }
}

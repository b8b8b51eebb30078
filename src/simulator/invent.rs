//! Values that fit a JSON schema.

use super::hints::Hints;
use serde_json::{Map, Value, json};

/// How deep a schema that refers to itself is followed.
const DEPTH: usize = 8;
/// How many values are made at most: such a schema may also be wide.
const VALUES: usize = 2000;
/// Characters of a text.
const LONGEST: usize = 100;
/// A text of each format.
const FORMATS: [(&str, &str); 7] = [
    ("date", "2024-01-31"),
    ("date-time", "2024-01-31T12:00:00Z"),
    ("time", "12:00:00Z"),
    ("duration", "PT1H"),
    ("email", "ann@example.com"),
    ("uri", "https://example.com"),
    ("uuid", "00000000-0000-4000-8000-000000000000"),
];

/// A value that fits the schema: what the question says; else short texts, ones, one item per list, the first of each choice.
pub fn invent(schema: &Value, hints: &mut Hints) -> Value {
    Making { root: schema, left: VALUES, hints }.fitting(schema, DEPTH)
}

struct Making<'a> {
    root: &'a Value,
    hints: &'a mut Hints,
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
        if let Some(fixed) = schema.get("const") {
            return fixed.clone();
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array).filter(|v| !v.is_empty()) {
            return self.hints.mentioned(values).unwrap_or(&values[0]).clone();
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
            Some("string") => json!(self.text(schema)),
            Some("integer") => json!(self.number(schema, true) as i64),
            Some("number") => json!(self.number(schema, false)),
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

    fn text(&mut self, schema: &Value) -> String {
        let format = schema.get("format").and_then(Value::as_str);
        if let Some((_, example)) = FORMATS.iter().find(|(name, _)| Some(*name) == format) {
            return (*example).to_owned();
        }
        let length = |name: &str, usual: usize| schema.get(name).and_then(Value::as_u64).map_or(usual, |n| n as usize).min(LONGEST);
        let (least, most) = (length("minLength", 0), length("maxLength", LONGEST));
        let said = self.hints.text().filter(|text| (least..=most).contains(&text.chars().count()));
        said.unwrap_or_else(|| "text".repeat(least.max(1).div_ceil(4)).chars().take(most).collect())
    }

    /// A number of the question, or one, or what is nearest to it within the limits.
    fn number(&mut self, schema: &Value, whole: bool) -> f64 {
        let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
        let (least, above) = (limit("minimum").unwrap_or(f64::MIN), limit("exclusiveMinimum").unwrap_or(f64::NEG_INFINITY));
        let (most, below) = (limit("maximum").unwrap_or(f64::MAX), limit("exclusiveMaximum").unwrap_or(f64::INFINITY));
        let fits = |n: f64| n >= least && n > above && n <= most && n < below && (!whole || n.fract() == 0.0);
        let (low, high) = (least.max(above), most.min(below));
        // Where no number fits, one all the same: the schema is the caller's.
        let near = if high <= 1.0 { [high.floor(), high.ceil() - 1.0, high] } else { [low.ceil(), low.floor() + 1.0, low] };
        let tried = [1.0, near[0], near[1], low / 2.0 + high / 2.0, near[2]];
        self.hints.number(fits).or_else(|| tried.into_iter().find(|n| fits(*n))).unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invent(schema: &Value) -> Value {
        super::invent(schema, &mut Hints::default())
    }

    #[test]
    fn a_number_keeps_all_its_limits() {
        for (schema, fits) in [
            (json!({ "type": "integer", "minimum": 1.5 }), 2.0..=2.0),
            (json!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 }), 0.1..=0.9),
            (json!({ "type": "integer", "exclusiveMinimum": 4, "maximum": 5 }), 5.0..=5.0),
            (json!({ "type": "integer", "exclusiveMaximum": 0 }), -1.0..=-1.0),
            (json!({ "type": "number", "maximum": -2.5 }), -3.0..=-2.5),
            (json!({ "type": "integer", "minimum": -3, "maximum": -3 }), -3.0..=-3.0),
        ] {
            let number = invent(&schema).as_f64().unwrap();
            assert!(fits.contains(&number), "{schema}: {number}");
        }
    }

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

    #[test]
    fn a_question_fills_what_it_speaks_of() {
        let schema = json!({
            "type": "object",
            "properties": {
                "city": { "type": "string" },
                "days": { "type": "integer", "maximum": 14 },
                "unit": { "enum": ["celsius", "fahrenheit"] },
                "day": { "type": "string", "format": "date" },
                "more": { "type": "string", "maxLength": 2 },
            },
        });
        let made = super::invent(&schema, &mut Hints::of("The weather in New York, 30 or 3 days, in Fahrenheit"));
        assert_eq!(made, json!({ "city": "New York", "days": 3, "unit": "fahrenheit", "day": "2024-01-31", "more": "te" }));
    }
}

//! Embeddings: the same text always gets the same vector, and texts that share characters near ones.

use super::said::{hash, tokens};
use base64::Engine;
use serde_json::{Map, Value, json};

/// An embeddings reply; `None` if the input is none.
pub fn embeddings(body: &Map<String, Value>, model: &str) -> Option<Value> {
    let inputs = inputs(body)?;
    let size = body.get("dimensions").and_then(Value::as_u64).unwrap_or(256).clamp(1, 4096) as usize;
    let encoded = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = embed(text, size);
            let shown = if encoded {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                json!(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({ "object": "embedding", "index": index, "embedding": shown })
        })
        .collect();
    let count: usize = inputs.iter().map(|i| tokens(i)).sum();
    let usage = json!({ "prompt_tokens": count, "total_tokens": count });
    Some(json!({ "object": "list", "data": data, "model": model, "usage": usage }))
}

fn inputs(body: &Map<String, Value>) -> Option<Vec<String>> {
    Some(match body.get("input")? {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) if items.is_empty() => return None,
        // One text as tokens.
        Value::Array(items) if items.iter().all(Value::is_number) => vec![Value::Array(items.clone()).to_string()],
        Value::Array(items) => items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned)).collect(),
        _ => return None,
    })
}

/// The tokens of what is to be embedded.
pub fn input_tokens(body: &Map<String, Value>) -> usize {
    inputs(body).unwrap_or_default().iter().map(|i| tokens(i)).sum()
}

/// A unit vector in which texts that share characters, and runs of two and three, are near.
pub fn embed(text: &str, size: usize) -> Vec<f32> {
    let mut vector = vec![0f32; size];
    let chars: Vec<char> = text.to_lowercase().chars().filter(|c| !c.is_whitespace()).collect();
    for (run, weight) in [(1usize, 1.0f32), (2, 1.5), (3, 2.0)] {
        for window in chars.windows(run) {
            let part: String = window.iter().collect();
            let hash = hash(&[part.as_bytes()]);
            let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
            vector[(hash % size as u64) as usize] += sign * weight;
        }
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length == 0.0 {
        vector[0] = 1.0;
    } else {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearness(a: &str, b: &str) -> f32 {
        embed(a, 256).iter().zip(embed(b, 256)).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn similar_texts_are_near() {
        assert!((nearness("什么是LangChain？", "什么是LangChain？") - 1.0).abs() < 1e-5);
        assert!(nearness("什么是LangChain？", "LangChain是什么") > nearness("什么是LangChain？", "今天天气很好") + 0.2);
        assert!(nearness("how do retries work", "how do the retries work") > nearness("how do retries work", "a recipe for soup") + 0.2);
        assert!((embed("", 8).iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}

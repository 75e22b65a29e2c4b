//! As much of JSON Schema as the OpenAPI document uses, and the check of an answer against it.

use serde_json::Value;

use crate::support::Reply;

/// Checks that the document has the answer's operation, status and body. A path that is not in the
/// document may only be answered 404, a method that is not there only 405.
#[track_caller]
pub fn check_reply(document: &Value, method: &str, path: &str, reply: &Reply) {
    let Some(template) = template(document, path) else {
        assert_eq!(reply.status.as_u16(), 404, "{path} is not in the document");
        return;
    };
    let operation = &document["paths"][template][method.to_ascii_lowercase()];
    if operation.is_null() {
        assert_eq!(reply.status.as_u16(), 405, "{method} {template}");
        return;
    }
    let answer = &operation["responses"][reply.status.as_str()];
    assert!(
        answer.is_object(),
        "{method} {template} answers {}, which the document does not have",
        reply.status
    );
    let content = answer["content"].as_object().expect("content");
    let sent = reply.header("content-type").expect("a content type");
    let (media_type, content) = content
        .iter()
        .find(|(media_type, _)| sent.starts_with(media_type.as_str()))
        .unwrap_or_else(|| panic!("{method} {template} sends {sent}"));
    let value = if media_type == "application/json" {
        reply.json.clone()
    } else {
        Value::String(reply.text.clone())
    };
    if let Err(fault) = validate(document, &content["schema"], &value, "$") {
        panic!(
            "{method} {template} {}: {fault}\n{}",
            reply.status, reply.text
        );
    }
}

/// The document's path for a request's path: the one with the fewest parameters that fits.
pub fn template<'a>(document: &'a Value, path: &str) -> Option<&'a str> {
    let given: Vec<&str> = path.split('/').collect();
    document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .filter(|template| {
            let segments: Vec<&str> = template.split('/').collect();
            segments.len() == given.len()
                && segments.iter().zip(&given).all(|(segment, text)| {
                    segment == text || (segment.starts_with('{') && !text.is_empty())
                })
        })
        .min_by_key(|template| template.matches('{').count())
}

fn validate(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document
            .pointer(reference.trim_start_matches('#'))
            .ok_or_else(|| format!("{at}: {reference} is not in the document"))?;
        return validate(document, target, value, at);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(schemas) = schema[choice].as_array() {
            return schemas
                .iter()
                .any(|schema| validate(document, schema, value, at).is_ok())
                .then_some(())
                .ok_or_else(|| format!("{at}: none of {choice} fits"));
        }
    }
    let is_allowed = match &schema["type"] {
        Value::Null => true,
        Value::String(kind) => is_a(kind, value),
        Value::Array(kinds) => kinds
            .iter()
            .any(|kind| is_a(kind.as_str().unwrap_or_default(), value)),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(format!("{at}: odd type"));
        }
    };
    if !is_allowed {
        return Err(format!("{at}: {value} is no {}", schema["type"]));
    }
    if let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    {
        for required in schema["required"].as_array().into_iter().flatten() {
            let name = required.as_str().unwrap_or_default();
            if !object.contains_key(name) {
                return Err(format!("{at}: {name} is missing"));
            }
        }
        // Stricter than JSON Schema: what is not described is not sent.
        for (name, value) in object {
            let property = properties
                .get(name)
                .ok_or_else(|| format!("{at}: {name} is not in the document"))?;
            validate(document, property, value, &format!("{at}.{name}"))?;
        }
    }
    if let Some(entries) = value.as_array() {
        for (index, entry) in entries.iter().enumerate() {
            validate(document, &schema["items"], entry, &format!("{at}[{index}]"))?;
        }
    }
    Ok(())
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

//! The check behind `Callflow::parse`: JSON to actions, with the path of the first fault.

use serde_json::{Map, Value};

use super::{Action, Callflow, CallflowFault, SayAndCapture};
use crate::msisdn::Msisdn;

type Checked<T> = Result<T, CallflowFault>;

pub(super) fn callflow(body: &[u8]) -> Checked<Callflow> {
    if body.len() > Callflow::MAX_BYTES {
        return Err(fault(
            "$",
            format!("is above {} bytes", Callflow::MAX_BYTES),
        ));
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        // The parser's own text could quote the answer.
        let (line, column) = (error.line(), error.column());
        fault("$", format!("is not JSON (line {line}, column {column})"))
    })?;
    let root = Object {
        path: "$",
        fields: object("$", &value)?,
    };
    let client_action_id = root
        .optional("clientActionId", |path, value| {
            text(path, value, Callflow::MAX_NAME_CHARS)
        })?
        .map(str::to_owned);
    let path = root.path_of("callflow");
    let list = match root.field("callflow") {
        None => return Err(fault(&path, "is missing")),
        Some(value) => value
            .as_array()
            .ok_or_else(|| expected(&path, "an array of actions", value))?,
    };
    if list.len() > Callflow::MAX_ACTIONS {
        return Err(fault(
            &path,
            format!(
                "has {} actions, at most {} are allowed",
                list.len(),
                Callflow::MAX_ACTIONS
            ),
        ));
    }
    let actions = list
        .iter()
        .enumerate()
        .map(|(index, value)| action(&format!("{path}[{index}]"), value))
        .collect::<Checked<Vec<Action>>>()?;
    Ok(Callflow {
        client_action_id,
        actions,
    })
}

fn action(path: &str, value: &Value) -> Checked<Action> {
    let outer = Object {
        path,
        fields: object(path, value)?,
    };
    let name = outer.required("action", |path, value| {
        value
            .as_str()
            .ok_or_else(|| expected(path, "a string", value))
    })?;
    let params_path = outer.path_of("params");
    let none = Map::new();
    let params = Object {
        path: &params_path,
        fields: match outer.field("params") {
            None => &none,
            Some(value) => object(&params_path, value)?,
        },
    };
    match name {
        "makeCall" => make_call(&params),
        "say" => say(&params),
        "playFile" => play_file(&params),
        "sayAndCapture" => say_and_capture(&params),
        "hangup" => Ok(Action::Hangup),
        _ => Err(fault(
            &outer.path_of("action"),
            "is none of makeCall, say, playFile, sayAndCapture, hangup",
        )),
    }
}

fn make_call(params: &Object<'_>) -> Checked<Action> {
    Ok(Action::MakeCall {
        source: params.required("source", number)?,
        destination: params.required("destination", number)?,
        call_recording: params.optional("callRecording", flag)?.unwrap_or(false),
    })
}

fn say(params: &Object<'_>) -> Checked<Action> {
    Ok(Action::Say {
        text: params.required("text", spoken)?,
        voice_profile: params.required("voiceProfile", voice_profile)?,
        repetition: params.optional("repetition", repetition)?.unwrap_or(1),
        speed: params.optional("speed", speed)?.unwrap_or(1.0),
    })
}

fn play_file(params: &Object<'_>) -> Checked<Action> {
    Ok(Action::PlayFile {
        file_url: params.required("fileUrl", file_url)?,
        repetition: params.optional("repetition", repetition)?.unwrap_or(1),
    })
}

fn say_and_capture(params: &Object<'_>) -> Checked<Action> {
    let capture = SayAndCapture {
        prompt_message: params.required("promptMessage", spoken)?,
        voice_profile: params.required("voiceProfile", voice_profile)?,
        success_message: params.optional("successMessage", message)?.flatten(),
        failure_message: params.optional("failureMessage", message)?.flatten(),
        speed: params.optional("speed", speed)?.unwrap_or(1.0),
        min_digits: params.optional("minDigits", digits)?,
        max_digits: params.optional("maxDigits", digits)?,
        digit_timeout_ms: params.optional("digitTimeout", milliseconds)?,
        overall_timeout_ms: params.optional("overallTimeout", milliseconds)?,
        complete_on_hash: params.optional("completeOnHash", flag)?.unwrap_or(true),
        no_of_tries: params
            .optional("noOfTries", |path, value| whole(path, value, 1, u8::MAX))?
            .unwrap_or(3),
    };
    // The callflows API refuses `minDigits` alone too (its code -1003): one document, one verdict.
    match (capture.min_digits, capture.max_digits) {
        (Some(_), None) => return Err(fault(&params.path_of("minDigits"), "needs maxDigits")),
        (Some(min), Some(max)) if min > max => {
            return Err(fault(&params.path_of("minDigits"), "is above maxDigits"));
        }
        (Some(_) | None, Some(_)) | (None, None) => {}
    }
    match (capture.digit_timeout_ms, capture.overall_timeout_ms) {
        (Some(_), None) => {
            return Err(fault(
                &params.path_of("digitTimeout"),
                "needs overallTimeout",
            ));
        }
        (Some(digit), Some(overall)) if digit >= overall => {
            return Err(fault(
                &params.path_of("digitTimeout"),
                "is not below overallTimeout",
            ));
        }
        (Some(_) | None, Some(_)) | (None, None) => {}
    }
    if !capture.complete_on_hash && capture.max_digits.is_none() {
        return Err(fault(
            &params.path_of("completeOnHash"),
            "is false, which needs maxDigits",
        ));
    }
    Ok(Action::SayAndCapture(Box::new(capture)))
}

/// A JSON object and where it stands.
struct Object<'a> {
    path: &'a str,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    fn path_of(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// The field, unless it is absent or null.
    fn field(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str, &'a Value) -> Checked<T>,
    ) -> Checked<Option<T>> {
        self.field(name)
            .map(|value| read(&self.path_of(name), value))
            .transpose()
    }

    fn required<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str, &'a Value) -> Checked<T>,
    ) -> Checked<T> {
        self.optional(name, read)?
            .ok_or_else(|| fault(&self.path_of(name), "is missing"))
    }
}

fn number(path: &str, value: &Value) -> Checked<Msisdn> {
    let text = value
        .as_str()
        .ok_or_else(|| expected(path, "a string with an MSISDN", value))?;
    Msisdn::parse(text).map_err(|error| fault(path, error.to_string()))
}

fn flag(path: &str, value: &Value) -> Checked<bool> {
    value
        .as_bool()
        .ok_or_else(|| expected(path, "true or false", value))
}

fn text<'a>(path: &str, value: &'a Value, max_chars: usize) -> Checked<&'a str> {
    let text = value
        .as_str()
        .ok_or_else(|| expected(path, "a string", value))?;
    let chars = text.chars().count();
    if chars > max_chars {
        return Err(fault(
            path,
            format!("has {chars} characters, at most {max_chars} are allowed"),
        ));
    }
    Ok(text)
}

fn filled(path: &str, value: &Value, max_chars: usize) -> Checked<String> {
    let text = text(path, value, max_chars)?;
    if text.trim().is_empty() {
        return Err(fault(path, "is empty"));
    }
    Ok(text.to_owned())
}

fn spoken(path: &str, value: &Value) -> Checked<String> {
    filled(path, value, Callflow::MAX_TEXT_CHARS)
}

fn voice_profile(path: &str, value: &Value) -> Checked<String> {
    filled(path, value, Callflow::MAX_NAME_CHARS)
}

/// A message that may be left out: an empty one is.
fn message(path: &str, value: &Value) -> Checked<Option<String>> {
    let text = text(path, value, Callflow::MAX_TEXT_CHARS)?;
    Ok((!text.trim().is_empty()).then(|| text.to_owned()))
}

fn repetition(path: &str, value: &Value) -> Checked<u8> {
    whole(path, value, 1, 3)
}

fn digits(path: &str, value: &Value) -> Checked<u8> {
    whole(path, value, 1, Callflow::MAX_DIGITS)
}

fn milliseconds(path: &str, value: &Value) -> Checked<u32> {
    whole(path, value, 1, u32::MAX)
}

fn whole<T>(path: &str, value: &Value, min: T, max: T) -> Checked<T>
where
    T: Copy + Into<u64> + TryFrom<u64>,
{
    let (low, high): (u64, u64) = (min.into(), max.into());
    value
        .as_u64()
        .or_else(|| whole_float(value))
        .filter(|number| (low..=high).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| expected(path, &format!("a whole number, {low} to {high}"), value))
}

/// JSON knows one kind of number: `2.0` is `2`.
fn whole_float(value: &Value) -> Option<u64> {
    let number = value.as_f64()?;
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    // In range and whole, so the conversion is exact.
    fits.then_some(number as u64)
}

fn speed(path: &str, value: &Value) -> Checked<f32> {
    value
        .as_f64()
        .filter(|speed| (0.5..=2.0).contains(speed))
        // Between 0.5 and 2.0 only precision is lost.
        .map(|speed| speed as f32)
        .ok_or_else(|| expected(path, "a number, 0.5 to 2.0", value))
}

/// An absolute http or https URL with a host. Whether the host may be asked is decided where the
/// file is fetched.
fn file_url(path: &str, value: &Value) -> Checked<String> {
    let wrong = || expected(path, "an http or https URL", value);
    let url = value.as_str().ok_or_else(wrong)?;
    if url.len() > Callflow::MAX_URL_BYTES {
        return Err(fault(
            path,
            format!("is above {} bytes", Callflow::MAX_URL_BYTES),
        ));
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let clean = url.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if !known || !clean || authority.is_empty() || authority.starts_with(':') {
        return Err(wrong());
    }
    Ok(url.to_owned())
}

fn object<'a>(path: &str, value: &'a Value) -> Checked<&'a Map<String, Value>> {
    value
        .as_object()
        .ok_or_else(|| expected(path, "an object", value))
}

/// Says what was expected and what kind of value is there, never the value: it may be a number.
fn expected(path: &str, what: &str, found: &Value) -> CallflowFault {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "another number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    fault(path, format!("should be {what}, but is {kind}"))
}

fn fault(path: &str, reason: impl Into<String>) -> CallflowFault {
    CallflowFault {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;

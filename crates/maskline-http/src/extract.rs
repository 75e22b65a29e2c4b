//! Reading the parts of a request: path parameters and bounded JSON bodies.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::response::IntoResponse;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::error::ApiError;
use crate::state::ApiState;

/// The longest request body, bytes.
pub(crate) const LONGEST_BODY: usize = 64 * 1024;

/// A path parameter, percent-decoded. One that is no UTF-8 names nothing: 404.
pub(crate) async fn path_parameter(parts: &mut Parts, name: &str) -> Result<String, ApiError> {
    RawPathParams::from_request_parts(parts, &())
        .await
        .ok()
        .and_then(|parameters| {
            parameters
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        })
        .ok_or(ApiError::NotFound("The resource"))
}

/// The parameters after the `?`. Unknown ones are left alone.
pub(crate) struct QueryOf<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &ApiState) -> Result<Self, ApiError> {
        let query = Query::try_from_uri(&parts.uri);
        query
            .map(|Query(it)| Self(it))
            .map_err(|_twice| ApiError::field("query", "a parameter is there twice or broken"))
    }
}

/// A JSON object as the request's body, whatever its `Content-Type` says.
///
/// What is no JSON object is [`ApiError::InvalidJson`]; an object with a missing or wrong field is
/// [`ApiError::Field`], which names it.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<ApiState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &ApiState) -> Result<Self, ApiError> {
        let bytes = bounded(request.into_body()).await?;
        parse(&bytes).map(Self)
    }
}

async fn bounded(body: Body) -> Result<axum::body::Bytes, ApiError> {
    // A declared length above the limit is refused before anything is read.
    if hyper::body::Body::size_hint(&body).lower() > LONGEST_BODY as u64 {
        return Err(ApiError::BodyTooLarge);
    }
    match Limited::new(body, LONGEST_BODY).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::BodyTooLarge),
        Err(_broken) => Err(ApiError::BodyIncomplete),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // A derived struct would also be read from an array.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::InvalidJson);
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        match inner.classify() {
            Category::Io | Category::Syntax | Category::Eof => ApiError::InvalidJson,
            Category::Data => {
                // serde_json ends its message with a position that says nothing beside the path.
                let text = inner.to_string();
                let reason = text
                    .rsplit_once(" at line ")
                    .map_or(text.as_str(), |(reason, _position)| reason);
                match path.as_str() {
                    "." => ApiError::field("body", reason),
                    path => ApiError::field(path, reason),
                }
            }
        }
    })?;
    json.end().map_err(|_trailing| ApiError::InvalidJson)?;
    Ok(value)
}

/// What a path that does not exist answers.
pub(crate) async fn unknown_path() -> impl IntoResponse {
    ApiError::NotFound("The path")
}

/// What a path answers that exists, but not with this method.
pub(crate) async fn unknown_method() -> impl IntoResponse {
    ApiError::MethodNotAllowed
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        name: String,
        #[serde(default, alias = "active")]
        enabled: Option<bool>,
    }

    fn fault(bytes: &[u8]) -> String {
        let error = parse::<Sample>(bytes).unwrap_err();
        if let ApiError::Field { field, reason } = error {
            return format!("{field}: {reason}");
        }
        assert!(matches!(error, ApiError::InvalidJson), "{error:?}");
        "invalid".to_owned()
    }

    #[test]
    fn an_object_is_read_and_unknown_fields_are_left_alone() {
        let sample: Sample = parse(br#" {"name":"x","active":true,"more":{"a":[1]}} "#).unwrap();
        assert_eq!((sample.name.as_str(), sample.enabled), ("x", Some(true)));
    }

    #[test]
    fn what_is_no_json_object_is_invalid_and_a_bad_field_is_named() {
        let deep = [b"{\"name\":".as_slice(), &[b'['; 60_000]].concat();
        for bytes in [
            &b""[..],
            b"null",
            b"[\"x\",true]",
            b"\"x\"",
            b"{",
            b"{\"name\":\"x\"} x",
            b"{\"name\":\"x\"}{}",
            b"{\"name\":\"\xff\"}",
            b"\xef\xbb\xbf{\"name\":\"x\"}",
            b"name=x",
        ] {
            assert_eq!(fault(bytes), "invalid", "{}", bytes.escape_ascii());
        }
        assert_eq!(fault(b"{}"), "body: missing field `name`");
        assert_eq!(
            fault(b"{\"name\":1}"),
            "name: invalid type: integer `1`, expected a string"
        );
        assert_eq!(
            fault(b"{\"name\":\"x\",\"active\":\"yes\"}"),
            "active: invalid type: string \"yes\", expected a boolean"
        );
        assert!(fault(b"{\"name\":\"x\",\"enabled\":true,\"active\":true}").contains("duplicate"));
        assert!(fault(&deep).starts_with("name: ") || fault(&deep) == "invalid");
    }
}

//! Reading the parts of a request: path parameters and bounded JSON bodies.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::response::IntoResponse;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use crate::error::ApiError;
use crate::state::ApiState;

/// The longest request body, bytes.
pub(crate) const LONGEST_BODY: usize = 64 * 1024;

/// The longest body that may hold a list, bytes.
pub(crate) const LONGEST_LIST: usize = 1024 * 1024;

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
        query.map(|Query(it)| Self(it)).map_err(|_twice| {
            ApiError::field("query", "a parameter is unknown, there twice, or broken")
        })
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
        let bytes = bounded(request.into_body(), LONGEST_BODY).await?;
        parse(&bytes).map(Self)
    }
}

async fn bounded(body: Body, limit: usize) -> Result<axum::body::Bytes, ApiError> {
    // A declared length above the limit is refused before anything is read.
    if hyper::body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(too_large(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Err(_broken) => Err(ApiError::BodyIncomplete),
    }
}

const fn too_large(limit: usize) -> ApiError {
    ApiError::BodyTooLarge(limit / 1024)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // A derived struct would also be read from an array.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::InvalidJson);
    }
    read(bytes)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
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

/// One JSON object, or an array of 1 to `MOST` of them, as the request's body of at most
/// [`LONGEST_LIST`].
pub(crate) struct OneOrMany<T, const MOST: usize> {
    pub(crate) items: Vec<T>,
    /// Whether it was an array: faults then name the index.
    pub(crate) is_list: bool,
}

impl<T: DeserializeOwned, const MOST: usize> FromRequest<ApiState> for OneOrMany<T, MOST> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &ApiState) -> Result<Self, ApiError> {
        let bytes = bounded(request.into_body(), LONGEST_LIST).await?;
        Self::parse(&bytes)
    }
}

impl<T: DeserializeOwned, const MOST: usize> OneOrMany<T, MOST> {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if !bytes.trim_ascii_start().starts_with(b"[") {
            return Ok(Self {
                items: vec![parse(bytes)?],
                is_list: false,
            });
        }
        let items: Vec<Object<T>> = read(bytes)?;
        if !(1..=MOST).contains(&items.len()) {
            let reason = format!("an array holds 1 to {MOST} objects");
            return Err(ApiError::field("body", reason));
        }
        Ok(Self {
            items: items.into_iter().map(|Object(item)| item).collect(),
            is_list: true,
        })
    }
}

/// A value that is read from an object and from nothing else: a derived struct takes an array too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData))
    }
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
    fn a_list_is_bounded_and_holds_objects_alone_and_its_faults_have_their_path() {
        type Samples = OneOrMany<Sample, 2>;
        let names = |bytes: &[u8]| {
            let read = Samples::parse(bytes).unwrap();
            let names: Vec<_> = read.items.into_iter().map(|it| it.name).collect();
            (names.join(","), read.is_list)
        };
        assert_eq!(names(b"{\"name\":\"x\"}"), ("x".to_owned(), false));
        assert_eq!(
            names(b" [{\"name\":\"x\"},{\"name\":\"y\",\"more\":[1]}]"),
            ("x,y".to_owned(), true)
        );
        let fault = |bytes: &[u8]| {
            let error = Samples::parse(bytes).err().unwrap();
            if let ApiError::Field { field, reason } = error {
                return format!("{field}: {reason}");
            }
            assert!(matches!(error, ApiError::InvalidJson), "{error:?}");
            "Invalid JSON request body".to_owned()
        };
        assert_eq!(fault(b"[]"), "body: an array holds 1 to 2 objects");
        let three = b"[{\"name\":\"x\"},{\"name\":\"y\"},{\"name\":\"z\"}]";
        assert_eq!(fault(three), "body: an array holds 1 to 2 objects");
        assert_eq!(
            fault(b"[{\"name\":\"x\"},{\"name\":1}]"),
            "[1].name: invalid type: integer `1`, expected a string"
        );
        assert_eq!(fault(b"[{}]"), "[0]: missing field `name`");
        assert_eq!(
            fault(b"[[\"x\",true]]"),
            "[0]: invalid type: sequence, expected an object"
        );
        for bytes in [&b"[{\"name\":\"x\"}"[..], b"[{\"name\":\"x\"}] 1", b"null"] {
            assert_eq!(fault(bytes), "Invalid JSON request body");
        }
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

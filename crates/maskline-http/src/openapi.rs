//! All routes with their description: the router and the OpenAPI 3.1 document come from one list.

use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use crate::error::ErrorBody;
use crate::state::ApiState;
use crate::{
    admin, call_events, endpoint_settings, event_parameters, events, media, number_change, numbers,
    replays, system, traces, trunks, webhooks,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Maskline",
        description = "Number masking: webhooks, numbers and administration. Secrets are shown once, when they are made.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "webhooks", description = "Where a sub-account hears of its calls"),
        (name = "numbers", description = "A sub-account's virtual numbers"),
        (name = "call events", description = "Calls that another switch handles"),
        (name = "events", description = "What a sub-account was told: looked back at, and sent once more"),
        (name = "administration", description = "Sub-accounts, keys, numbers: with the admin key"),
        (name = "operations", description = "How calls went: with the admin key"),
        (name = "system", description = "Health, metrics, this document: without a key")
    ),
    components(schemas(ErrorBody))
)]
struct Base;

/// Every route with its description.
pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Base::openapi())
        .merge(webhooks::routes())
        .merge(endpoint_settings::routes())
        .merge(events::routes())
        .merge(replays::routes())
        .merge(event_parameters::routes())
        .merge(numbers::routes())
        .merge(call_events::routes())
        .merge(admin::routes())
        .merge(number_change::routes())
        .merge(trunks::routes())
        .merge(traces::routes())
        .merge(media::routes())
        .merge(system::routes())
}

/// The OpenAPI document of this version, as `/openapi.json` answers it.
#[must_use]
pub fn openapi_json() -> String {
    let (_routes, mut document) = routes().split_for_parts();
    let components = document
        .components
        .take()
        .map_or_else(ComponentsBuilder::new, ComponentsBuilder::from);
    let bearer = |description: &str| {
        SecurityScheme::Http({
            let mut scheme = Http::new(HttpAuthScheme::Bearer);
            scheme.description = Some(description.to_owned());
            scheme
        })
    };
    document.components = Some(
        components
            .security_scheme(
                "apiKey",
                bearer("A sub-account's key, bound to it, or the admin key"),
            )
            .security_scheme("adminKey", bearer("The admin key"))
            .build(),
    );
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            describe_faults(operation);
        }
    }
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.post,
        &mut item.put,
        &mut item.patch,
        &mut item.delete,
    ]
    .into_iter()
    .flatten()
}

/// What every operation of a kind can answer is said once, here.
fn describe_faults(operation: &mut Operation) {
    let has_key = operation.security.is_some();
    let has_parameter = operation.parameters.is_some();
    let has_body = operation.request_body.is_some();
    let always = [
        (408, "The request took longer than 15 s"),
        (500, "Internal error"),
    ];
    let with_key = [
        (401, "The key is missing or unknown"),
        (403, "The key has no right to this"),
        (
            429,
            "Too many failed authentications from this address; see `Retry-After`",
        ),
    ];
    let with_body = [
        (400, "The body ended early"),
        (413, "The body is above 64 kB"),
        (
            422,
            "The body is no JSON object, or a field is missing or wrong",
        ),
    ];
    let with_parameter = (404, "There is no such thing");
    let faults = always
        .into_iter()
        .chain(has_parameter.then_some(with_parameter))
        .chain(with_key.into_iter().filter(|_| has_key))
        .chain(with_body.into_iter().filter(|_| has_body));
    for (status, description) in faults {
        operation
            .responses
            .responses
            .entry(status.to_string())
            .or_insert_with(|| {
                RefOr::T(
                    ResponseBuilder::new()
                        .description(description)
                        .content(
                            "application/json",
                            ContentBuilder::new()
                                .schema(Some(Ref::from_schema_name("ErrorBody")))
                                .build(),
                        )
                        .build(),
                )
            });
    }
}

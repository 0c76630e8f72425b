//! Answers and refusals in Marathon's own shape.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use scheduler::plan::Plan;
use scheduler::words::{self, Change, Refusal, Violation};
use scheduler::{Input, View};
use serde_json::Value;

use super::{Call, Context};
use crate::driver::Stopped;
use crate::json::{Json, Reading};

/// What every route gives back.
pub(crate) type Answer = Result<Response, ApiError>;

/// A refusal.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Vec<u8>,
    realm: Option<String>,
}

/// How often a change is made anew because what it was made from has changed.
const ATTEMPTS: usize = 16;

/// `{"message": ...}`.
pub(crate) fn error(status: StatusCode, message: impl AsRef<str>) -> ApiError {
    let body = Json::bytes(|json| json.object(|json| json.text_field("message", message.as_ref())));
    ApiError { status, body, realm: None }
}

/// 404.
pub(crate) fn not_found(message: impl AsRef<str>) -> ApiError {
    error(StatusCode::NOT_FOUND, message)
}

/// 422.
pub(crate) fn unprocessable(message: impl AsRef<str>) -> ApiError {
    error(StatusCode::UNPROCESSABLE_ENTITY, message)
}

impl ApiError {
    pub(crate) fn no_route() -> ApiError {
        not_found("URI not found")
    }

    pub(crate) fn no_method() -> ApiError {
        error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
    }

    /// Whether the route is there, and the method is not among its own.
    pub(crate) fn is_of_method(&self) -> bool {
        self.status == StatusCode::METHOD_NOT_ALLOWED
    }

    pub(crate) fn unauthorized(realm: &str) -> ApiError {
        ApiError { realm: Some(realm.replace('"', "")), ..error(StatusCode::UNAUTHORIZED, "Unauthorized") }
    }

    /// `{"message": ..., "details": [{"path": ..., "errors": [...]}]}`, one entry per path.
    fn detailed(message: &str, violations: &[Violation]) -> ApiError {
        let mut paths: Vec<&str> = Vec::new();
        for it in violations {
            if !paths.contains(&it.path.as_str()) {
                paths.push(&it.path);
            }
        }
        let body = Json::bytes(|json| {
            json.object(|json| {
                json.text_field("message", message);
                json.array_field("details", &paths, |json, path| {
                    json.object(|json| {
                        json.text_field("path", path);
                        json.texts_field("errors", violations.iter().filter(|it| it.path == **path).map(|it| &it.message));
                    });
                });
            });
        });
        ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, body, realm: None }
    }

    pub(crate) fn invalid(violations: &[Violation]) -> ApiError {
        ApiError::detailed("Object is not valid", violations)
    }

    pub(crate) fn into_response(self) -> Response {
        let mut response = json(self.status, self.body);
        if let Some(realm) = self.realm
            && let Ok(value) = HeaderValue::from_str(&format!("Basic realm=\"{realm}\""))
        {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }
}

impl From<Stopped> for ApiError {
    fn from(stopped: Stopped) -> Self {
        error(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string())
    }
}

/// The refusals of the core.
impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Locked(ids) => {
                let message = "App is locked by one or more deployments. Override with the option '?force=true'. \
                               View details at '/v2/deployments/<DEPLOYMENT_ID>'.";
                let body = Json::bytes(|json| {
                    json.object(|json| {
                        json.text_field("message", message);
                        json.array_field("deployments", &ids, |json, id| json.object(|json| json.text_field("id", id)));
                    });
                });
                ApiError { status: StatusCode::CONFLICT, body, realm: None }
            }
            Refusal::TooManyDeployments(most) => error(
                StatusCode::FORBIDDEN,
                format!(
                    "Max number ({most}) of running deployments is achieved. Wait for existing deployments to complete or cancel one using force=true parameter."
                ),
            ),
            Refusal::TooManyApps(most) => unprocessable(format!("The maximum number of apps ({most}) is reached.")),
            Refusal::TooManyInstances(most) => ApiError::invalid(&[Violation::new(
                "/instances",
                format!("More than {most} instances would be wanted of everything together"),
            )]),
            Refusal::Invalid(violations) => ApiError::invalid(&violations),
            Refusal::AppExists(id) => error(StatusCode::CONFLICT, format!("An app with id [{id}] already exists.")),
            Refusal::PodExists(id) => error(StatusCode::CONFLICT, format!("A pod with id [{id}] already exists.")),
            Refusal::GroupExists(id) => {
                error(StatusCode::CONFLICT, format!("Group {id} is already created. Use PUT to change this group."))
            }
            Refusal::PathTaken(id) => error(StatusCode::CONFLICT, format!("An app with the path {id} already exists.")),
            Refusal::NoSpec(id) => not_found(format!("App '{id}' does not exist")),
            Refusal::NoGroup(id) => not_found(format!("Group '{id}' does not exist")),
            Refusal::NoDeployment(id) => not_found(format!("DeploymentPlan {id} does not exist")),
            Refusal::NotQueued(id) => not_found(format!("Application {id} not found in tasks queue.")),
            Refusal::PortsExhausted(from, until) => {
                error(StatusCode::INTERNAL_SERVER_ERROR, format!("All ports in the range [{from}-{until}) are already in use"))
            }
            Refusal::Stale => error(StatusCode::SERVICE_UNAVAILABLE, "The definition is being changed by others; try again"),
        }
    }
}

/// A body of JSON.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 200 with what `write` writes.
pub(crate) fn ok(write: impl FnOnce(&mut Json)) -> Answer {
    Ok(json(StatusCode::OK, Json::bytes(write)))
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Names the deployment that an answer has begun.
pub(crate) fn with_deployment(mut response: Response, plan: &Plan) -> Response {
    if let Ok(id) = HeaderValue::from_str(&plan.id) {
        response.headers_mut().insert("marathon-deployment-id", id);
    }
    response
}

/// Says where what was made is.
pub(crate) fn with_location(mut response: Response, call: &Call, place: &str) -> Response {
    let host = call.headers.get(header::HOST).and_then(|it| it.to_str().ok());
    let url = host.map_or_else(|| place.to_owned(), |host| format!("http://{host}{place}"));
    if let Ok(value) = HeaderValue::from_str(&url) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// `{"version": ..., "deploymentId": ...}`.
pub(crate) fn deployment_result(status: StatusCode, plan: &Plan) -> Response {
    let body = Json::bytes(|json| {
        json.object(|json| {
            json.time_field("version", plan.version);
            json.text_field("deploymentId", &plan.id);
        });
    });
    with_deployment(self::json(status, body), plan)
}

/// The body as JSON.
pub(crate) fn parse(call: &Call) -> Result<Value, ApiError> {
    let details = |message: &str, details: String| {
        let body = Json::bytes(|json| {
            json.object(|json| {
                json.text_field("message", message);
                json.text_field("details", &details);
            });
        });
        ApiError { status: StatusCode::BAD_REQUEST, body, realm: None }
    };
    if call.body.iter().all(u8::is_ascii_whitespace) {
        return Err(details("Please specify data in JSON format", "No content to map due to end-of-input".to_owned()));
    }
    serde_json::from_slice(&call.body).map_err(|error| details("Invalid JSON", error.to_string()))
}

/// What was found wrong while reading, the form before the meaning.
pub(crate) fn judge(reading: Reading) -> Result<(), ApiError> {
    let (form, meaning) = (reading.form.into_inner(), reading.meaning.into_inner());
    if !form.is_empty() {
        return Err(ApiError::detailed("Invalid JSON", &form));
    }
    if !meaning.is_empty() {
        return Err(ApiError::invalid(&meaning));
    }
    Ok(())
}

/// Makes a change out of what is defined now, and again when somebody else was faster.
pub(crate) async fn change(context: &Context, mut make: impl FnMut(&View) -> Result<Change, ApiError>) -> Result<Arc<Plan>, ApiError> {
    for _ in 0..ATTEMPTS {
        let change = make(&context.handle().view())?;
        match context.handle().ask(move |ticket| Input::Change { ticket, change }).await? {
            words::Answer::Planned(plan) => return Ok(plan),
            words::Answer::Refused(Refusal::Stale) => {}
            words::Answer::Refused(refusal) => return Err(refusal.into()),
            _ => return Err(error(StatusCode::INTERNAL_SERVER_ERROR, "an answer that does not belong to a change")),
        }
    }
    Err(Refusal::Stale.into())
}

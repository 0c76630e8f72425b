//! `/v2/autoscale` and `/v2/apps/{id}/autoscale`: how numbers of instances are decided, and what was decided.

use std::sync::Arc;

use http::{Method, StatusCode};
use scheduler::Input;
use scheduler::id::PathId;
use scheduler::words;

use super::answer::{Answer, ApiError, empty, error, judge, not_found, ok, parse, unprocessable};
use super::apps::{app_of, reads};
use super::{Call, Context};
use crate::autoscale::{LABEL, Status, carried_fields, policy_of};
use crate::json::autoscale::{decision_fields, parse_policy, read_policy, write_policy};
use crate::json::{Json, Reading};

pub(super) fn all(context: &Context, call: &Call) -> Answer {
    reads(call, || {
        let statuses = context.handle().autoscale().statuses().clone();
        ok(|json| {
            json.object(|json| {
                json.array_field("apps", &statuses, |json, (id, status)| write_status(json, id, status, 1));
            });
        })
    })
}

pub(super) async fn of_app(context: &Context, call: &Call, id: &PathId) -> Answer {
    match call.method {
        Method::GET | Method::HEAD => show(context, id),
        Method::PUT => {
            app_of(&context.handle().view(), id)?;
            let value = parse(call)?;
            let reading = Reading::default();
            let policy = read_policy(&value, &reading);
            judge(reading)?;
            let Some(policy) = policy else { return Err(unprocessable("Object is not valid")) };
            let text: Arc<str> = Json::text(|json| write_policy(json, &policy)).into();
            set(context, id, Some(text)).await?;
            ok(|json| {
                json.object(|json| {
                    json.text_field("appId", id.as_str());
                    json.key("policy");
                    write_policy(json, &policy);
                });
            })
        }
        Method::DELETE => {
            let view = context.handle().view();
            let app = app_of(&view, id)?;
            if !view.policies.contains_key(id) {
                if app.labels.contains_key(LABEL) {
                    return Err(error(
                        StatusCode::CONFLICT,
                        format!("The policy of '{id}' is its label {LABEL}: change the app to take it away"),
                    ));
                }
                return Err(no_policy(id));
            }
            set(context, id, None).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::no_method()),
    }
}

async fn set(context: &Context, id: &PathId, policy: Option<Arc<str>>) -> Result<(), ApiError> {
    let app = id.clone();
    match context.handle().ask(move |ticket| Input::SetPolicy { ticket, app, policy }).await? {
        words::Answer::Refused(refusal) => Err(refusal.into()),
        _ => Ok(()),
    }
}

fn no_policy(id: &PathId) -> ApiError {
    not_found(format!("App '{id}' has no autoscale policy"))
}

fn show(context: &Context, id: &PathId) -> Answer {
    let view = context.handle().view();
    let app = app_of(&view, id)?;
    let (origin, text) = policy_of(&view, app).ok_or_else(|| no_policy(id))?;
    // What was put a moment ago has not come to the loop yet.
    let status = context.handle().autoscale().statuses().get(id).cloned();
    let decisions = status.map(|it| it.decisions).unwrap_or_default();
    let status = Status { origin, policy: parse_policy(&text).map(Arc::new), decisions };
    ok(|json| write_status(json, id, &status, usize::MAX))
}

fn write_status(json: &mut Json, id: &PathId, status: &Status, most: usize) {
    json.object(|json| {
        json.text_field("appId", id.as_str());
        json.text_field("origin", status.origin.word());
        match &status.policy {
            Ok(policy) => {
                json.key("policy");
                write_policy(json, policy);
            }
            Err(problem) => json.text_field("problem", problem),
        }
        json.array_field("decisions", status.decisions.iter().take(most), |json, (decision, carried)| {
            json.object(|json| {
                decision_fields(json, decision);
                carried_fields(json, carried);
            });
        });
    });
}

//! Who leads, and giving it up.

use axum::extract::{Request, State};
use axum::response::Response;
use ha::Member;
use http::StatusCode;
use relay::Target;
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::http::Context;
use crate::http::foreign::{ADVICE, is_foreign};
use crate::http::reply::{json_value, problem};
use crate::http::scope::caller;
use crate::replicas::HandOverError;

/// Where the lead is given up.
pub(in crate::http) const YIELD_PATH: &str = "/api/v1/lead/yield";
/// The word for it in the record of who did what.
const CONTROL: &str = "yield_lead";

/// Who leads.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Leading {
    /// The control plane that leads.
    leader: Leader,
    /// How many others could take over; null when the one that answers has given up the lead, and does not know.
    #[schema(required)]
    others: Option<usize>,
}

/// A control plane.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Leader {
    /// Random per start.
    id: String,
    /// Its name or address, as `--advertise` has it.
    host: String,
    /// `host:port` of this API there; null where it does not say.
    #[schema(required)]
    http: Option<String>,
}

impl From<Member> for Leader {
    fn from(member: Member) -> Self {
        Leader { id: member.id, host: member.host_name, http: Some(member.addresses.http).filter(|it| !it.is_empty()) }
    }
}

const ALONE: &str = "this control plane shares no ensemble with others (--zk): it leads, and nobody could take over";

/// Which control plane leads.
#[utoipa::path(
    get,
    path = "/api/v1/lead",
    tag = "Platform",
    responses(
        (status = 200, description = "The one that leads; it is also the one that answers", body = Leading),
        (status = 404, description = "There is but one control plane", body = String, content_type = "application/json"),
        (status = 503, description = "Nobody leads right now", body = String, content_type = "application/json")
    )
)]
pub(crate) async fn lead(State(context): State<Context>) -> Response {
    let Some(lead) = &context.lead else { return problem(StatusCode::NOT_FOUND, ALONE) };
    let standing = lead.standing();
    let others = standing.leads().then_some(standing.others);
    match standing.leader {
        Some(leader) => json_value(StatusCode::OK, &Leading { leader: leader.into(), others }),
        None => problem(StatusCode::SERVICE_UNAVAILABLE, "no control plane leads at the moment; try again"),
    }
}

/// Gives up the lead, to the one that has stood for election for longest.
///
/// Requests that are under way are finished, new ones wait and go to the next one. The control plane that led ends then, to be started again by
/// whatever runs it, and stands for election behind the others. It is on record (`/api/v1/audit`).
#[utoipa::path(
    post,
    path = "/api/v1/lead/yield",
    tag = "Platform",
    responses(
        (status = 200, description = "It was given up: who leads now", body = Leading),
        (status = 403, description = "A page of another site asks for it", body = String, content_type = "application/json"),
        (status = 409, description = "It was not given up: there is nobody to take it", body = String, content_type = "application/json"),
        (status = 503, description = "It is being given up already, or it was and nobody has taken it yet", body = String, content_type = "application/json")
    )
)]
pub(crate) async fn give_up(State(context): State<Context>, request: Request) -> Response {
    if is_foreign(request.headers()) {
        return problem(StatusCode::FORBIDDEN, &format!("a page of another origin may not change anything here; {ADVICE}"));
    }
    let Some(lead) = context.lead.clone() else { return problem(StatusCode::CONFLICT, ALONE) };
    let caller = caller(&request);
    let (reply, answer) = oneshot::channel();
    let board = context.switchboard.clone();
    // Goes on when the client goes away: once begun it has to be brought to its end.
    context.supervisor.one_off("yield_lead", async move {
        let target = Target { control: CONTROL.to_owned(), ..Target::default() };
        let handed = board.record(&caller, target, lead.hand_over()).await;
        let must_end = match &handed {
            Ok(_) => true,
            Err(error) => *error == HandOverError::NobodyYet,
        };
        drop(reply.send(handed));
        if must_end {
            lead.give_up();
        }
    });
    match answer.await {
        Ok(Ok(next)) => json_value(StatusCode::OK, &Leading { leader: next.into(), others: None }),
        Ok(Err(error @ HandOverError::Alone)) => problem(StatusCode::CONFLICT, &error.to_string()),
        Ok(Err(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the control plane is about to stop"),
    }
}

//! A view of which only the nodes are shown that answer a query.

use topology::Query as Words;

use crate::http::query::Query;

/// Parameter of a view and of its WebSocket with the query, in the language of `/api/search`.
pub(crate) const PARAMETER: &str = "q";

/// The query of a request, if it has one.
pub(crate) fn of(query: &Query) -> Result<Option<Words>, String> {
    let words = query.first(PARAMETER).filter(|text| !text.is_empty());
    words.map(Words::parse).transpose().map_err(|error| error.to_string())
}

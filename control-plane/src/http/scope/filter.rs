//! A view of which only the nodes are shown that answer a query.

use topology::Query as Words;

use crate::http::query::Query;

/// Parameter of a view and of its WebSocket with the query, in the language of `/api/search`. What is said several times holds together.
pub(crate) const PARAMETER: &str = "q";

/// Queries of one request at most.
const QUERIES_MAX: usize = 32;

/// The query of a request, if it has one.
pub(crate) fn of(query: &Query) -> Result<Option<Words>, String> {
    let mut all = Vec::new();
    for text in query.every(PARAMETER).filter(|text| !text.is_empty()) {
        if all.len() == QUERIES_MAX {
            return Err(format!("there are more than {QUERIES_MAX} queries"));
        }
        all.push(Words::parse(text).map_err(|error| error.to_string())?);
    }
    Ok(Words::all(all))
}

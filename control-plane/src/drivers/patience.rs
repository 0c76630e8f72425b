//! How long a search may hold up what it is asked of.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

/// A search of the live map: reports, pictures and every other question wait meanwhile. Ten times what the slowest of common searches takes
/// over a hundred thousand processes.
pub(super) const SEARCH_FOR: Duration = Duration::from_millis(500);
/// A search of the past, which holds up nobody, but takes the place of others who look at it.
pub(crate) const PAST_SEARCH_FOR: Duration = Duration::from_secs(2);

/// Says for so long, from when it is asked first, that there is still time.
pub(crate) fn for_at_most(span: Duration) -> impl Fn() -> bool {
    let begun = OnceCell::new();
    move || begun.get_or_init(Instant::now).elapsed() < span
}

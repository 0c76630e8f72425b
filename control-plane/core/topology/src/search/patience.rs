//! How long a search may take. What keeps the map waits for it, so that it is asked between any two pieces of work.

/// A search was given up: what is asked for takes longer than whoever asked can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchTooLong;

impl std::fmt::Display for SearchTooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the query takes longer than a search may: fewer terms, or words in place of regular expressions, take less")
    }
}

impl std::error::Error for SearchTooLong {}

/// Whether a search may go on.
#[derive(Clone, Copy)]
pub(crate) struct Patience<'a>(pub(crate) &'a dyn Fn() -> bool);

impl Patience<'_> {
    /// Never ends.
    pub(super) const ENDLESS: Patience<'static> = Patience(&|| true);

    pub(super) fn is_over(self) -> bool {
        !(self.0)()
    }

    pub(super) fn check(self) -> Result<(), SearchTooLong> {
        if self.is_over() { Err(SearchTooLong) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Patience<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Patience")
    }
}

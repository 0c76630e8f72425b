//! What is done without a probe, and belongs into the record all the same.

use std::fmt::Display;
use std::time::Instant;

use super::{Caller, Switchboard, Target};
use crate::Outcome;
use crate::audit::Draft;

impl Switchboard {
    /// Does something that is the control plane's own, and writes it down as `target`, whose probe and node are empty.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn record<T, E: Display>(&self, caller: &Caller, target: Target, act: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let _under_way = self.0.under_way.token();
        let begun = Instant::now();
        let draft = Draft::new((self.0.wall)(), caller, &target);
        let result = act.await;
        let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
        let error = result.as_ref().err().map(ToString::to_string);
        if let Err(error) = self.0.audit.write(draft, outcome, error, None, begun.elapsed()).await {
            self.0.observer.audit_failed(&error);
        }
        result
    }
}

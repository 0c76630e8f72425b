//! Keeping where a migration is.

use std::time::Duration;

use super::MIGRATIONS;
use crate::store::StoreError;

/// Before what could not be kept is written again.
const AGAIN: Duration = Duration::from_millis(500);

/// Writes again and again until it is written: writers may be stopped, and what is not kept must not be acted upon. A full disk has room again some
/// day, and those that control planes share what they keep through come back.
///
/// # Errors
/// When trying again changes nothing, or the migration is another's by now.
pub(super) async fn keep(
    is_over: impl Fn() -> bool,
    write: impl Fn() -> Result<(), StoreError> + Clone + Send + 'static,
) -> Result<(), StoreError> {
    loop {
        if is_over() {
            return Err(StoreError::Shared("the migration was taken up anew".to_owned()));
        }
        let kept = tokio::task::spawn_blocking(write.clone()).await;
        let kept = kept.unwrap_or_else(|error| Err(StoreError::Damaged { place: MIGRATIONS.to_owned(), detail: error.to_string() }));
        match kept {
            Err(error @ (StoreError::Unavailable(_) | StoreError::Shared(_))) if !is_over() => {
                tracing::warn!(?error, "where a migration is cannot be kept, and it waits until that can be");
                tokio::time::sleep(AGAIN).await;
            }
            // Whoever took it up meanwhile acts, and nobody else does.
            Ok(()) if is_over() => return Err(StoreError::Shared("the migration was taken up anew".to_owned())),
            kept => return kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_finds_no_room_is_kept_as_soon_as_there_is_some() {
        let tried = Arc::new(AtomicU32::new(0));
        let counted = tried.clone();
        let full = || StoreError::Unavailable(Box::new(redb::Error::Io(std::io::ErrorKind::StorageFull.into())));
        let write = move || if counted.fetch_add(1, Ordering::SeqCst) == 0 { Err(full()) } else { Ok(()) };
        keep(|| false, write).await.unwrap();
        assert_eq!(tried.load(Ordering::SeqCst), 2);
        let another_leads = || Err(StoreError::Shared("another one leads".to_owned()));
        assert!(keep(|| true, another_leads).await.is_err(), "it is another's by now");
        let damaged = || Err(StoreError::Damaged { place: String::new(), detail: String::new() });
        assert!(keep(|| false, damaged).await.is_err());
        let written = Arc::new(AtomicU32::new(0));
        let counted = written.clone();
        let write = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        assert!(keep(|| true, write).await.is_err());
        assert_eq!(written.load(Ordering::SeqCst), 0, "what another one holds is not written over");
    }
}

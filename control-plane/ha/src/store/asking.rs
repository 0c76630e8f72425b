//! Requests that are made again, and refusals in words.

use std::time::Duration;

use zk::{Client, Error};

use super::{PATIENCE, StoreError};

/// Asks again while the connection comes and goes. For what may be done twice.
pub(super) async fn retried<T, F: Future<Output = Result<T, Error>>>(client: &Client, mut ask: impl FnMut() -> F) -> Result<T, StoreError> {
    let began = std::time::Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(Error::Unknown(_) | Error::Throttled) if began.elapsed() < PATIENCE => {
                let back = tokio::time::timeout(PATIENCE.saturating_sub(began.elapsed()), client.connected()).await;
                if !matches!(back, Ok(Ok(()))) {
                    return Err(StoreError::Unknown);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) if error.is_ambiguous() => return Err(StoreError::Unknown),
            Err(error) => return Err(refused(&error)),
        }
    }
}

/// Nothing was done, and why.
pub(super) fn refused(error: &Error) -> StoreError {
    match error {
        Error::NoAuth => StoreError::NotOurs,
        error => StoreError::Refused(error.to_string()),
    }
}

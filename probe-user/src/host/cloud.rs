//! Where the host is rented: what the provider's metadata service says.
//!
//! The firmware's words tell who made the machine. Where they name none of the providers nothing is asked and no connection is made. The services
//! are at one link-local address; they are asked once, in the background, over plain HTTP as all of them want it, without a proxy, and an answer
//! that leads elsewhere is no answer. Nothing is kept but five short words: some services would also tell secrets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::probe::v1::host::Cloud;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

mod http;
mod providers;

use http::{Answer, AskError};
use providers::Provider;

/// The address of every provider's service.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254)), 80);

/// How often the service is asked at most, and the pause after the first try; it doubles. A machine that just booted may not reach it yet.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(3);

/// Where and whether to ask.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the metadata service is.
    pub address: SocketAddr,
    /// Directory with the firmware's words, `/sys/class/dmi/id`.
    pub firmware: PathBuf,
    /// Pause after the first try.
    pub first_pause: Duration,
}

impl Config {
    /// The real service, by the words of the firmware of the host whose `/proc` is at `proc_root`.
    pub fn new(address: Option<SocketAddr>, firmware: Option<PathBuf>) -> Self {
        Config {
            address: address.unwrap_or(ADDRESS),
            firmware: firmware.unwrap_or_else(|| PathBuf::from("/sys/class/dmi/id")),
            first_pause: FIRST_PAUSE,
        }
    }
}

/// Finds out where the host is rented, writes it down in `found`, and waits for the end.
pub async fn run(config: Config, found: watch::Sender<Option<Cloud>>, stopping: CancellationToken) {
    if let Some(provider) = provider_of(&config.firmware) {
        tokio::select! {
            cloud = ask_patiently(&config, provider) => drop(found.send_replace(cloud)),
            () = stopping.cancelled() => {}
        }
    }
    stopping.cancelled().await;
}

/// Who made the machine, by its firmware.
fn provider_of(firmware: &Path) -> Option<Provider> {
    Provider::of(|file| {
        let mut text = Vec::new();
        let file = std::fs::File::open(firmware.join(file)).ok()?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, 4_096), &mut text).ok()?;
        Some(String::from_utf8_lossy(&text).trim().to_owned())
    })
}

/// Asks until there is an answer or the tries are used up.
async fn ask_patiently(config: &Config, provider: Provider) -> Option<Cloud> {
    let mut pause = config.first_pause;
    for attempt in 1..=TRIES {
        match ask(config.address, provider).await {
            Ok(cloud) => {
                tracing::info!(provider = cloud.provider, region = cloud.region, instance = cloud.instance_id, "the host is rented");
                return Some(cloud);
            }
            Err(error) if attempt == TRIES => {
                tracing::info!(provider = provider.name(), reason = %error, "the provider's metadata service does not tell of this host");
            }
            Err(error) => {
                tracing::debug!(provider = provider.name(), reason = %error, "metadata service");
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2);
            }
        }
    }
    // The firmware has told this much.
    Some(Cloud { provider: provider.name().to_owned(), ..Cloud::default() })
}

/// Asks once: one question after the other, over a connection each.
async fn ask(address: SocketAddr, provider: Provider) -> Result<Cloud, AskError> {
    let mut token = None;
    let mut cloud = Cloud { provider: provider.name().to_owned(), ..Cloud::default() };
    if let Some(question) = provider.token_question() {
        let Answer { body, .. } = http::ask(address, &question, None).await?;
        token = Some(providers::token(&body).ok_or(AskError::NotUnderstood("the token"))?);
    }
    for question in provider.questions() {
        match http::ask(address, question, token.as_deref()).await {
            Ok(answer) if provider.vouches_for(&answer) => (question.take)(&answer.body, &mut cloud),
            Ok(_) => return Err(AskError::NotUnderstood("who answers")),
            // Older versions of a service know less.
            Err(AskError::Status(404)) => {}
            Err(error) => return Err(error),
        }
    }
    if cloud.instance_id.is_empty() && cloud.region.is_empty() && cloud.zone.is_empty() {
        return Err(AskError::NotUnderstood("the answer"));
    }
    Ok(cloud)
}

#[cfg(test)]
mod tests;

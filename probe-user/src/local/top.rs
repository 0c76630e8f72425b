//! The busiest processes, flows and containers on the terminal, every second. The [`model`] is pure: looks in, lines out; [`draw`] puts them on a
//! frame; here is the loop around both.

use std::time::Duration;

use anyhow::Context as _;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::local::Eyes;
use crate::local::document::Document;
use crate::local::top::model::{Model, Verdict};
use crate::local::top::screen::Screen;

mod draw;
mod keys;
pub mod model;
mod rates;
mod screen;

/// How often it looks.
const REFRESH: Duration = Duration::from_secs(1);

/// Shows what `eyes` see until somebody has seen enough.
///
/// # Errors
/// When nothing can be seen, or the terminal cannot be used.
pub async fn run(eyes: Eyes) -> anyhow::Result<()> {
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let mut screen = Screen::open().context("cannot use the terminal")?;
    let mut events = EventStream::new();
    let mut ticks = tokio::time::interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut model = Model::default();
    let mut refused = eyes.refused.clone();
    loop {
        screen.draw(|frame| draw::draw(frame, &model))?;
        let [interrupt, terminate, hangup] = &mut ends;
        let (Ok(interrupt), Ok(terminate), Ok(hangup)) = (interrupt, terminate, hangup) else {
            anyhow::bail!("cannot listen to signals");
        };
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if model.on_key(key) == Verdict::Quit {
                        return Ok(());
                    }
                }
                // Another size is another frame.
                Some(Ok(_)) => {}
                // The terminal is gone.
                Some(Err(_)) | None => return Ok(()),
            },
            _ = ticks.tick() => {
                let look = eyes.look().await.context("the probe ended")?;
                model.take(&Document::of(&look, REFRESH), look.now.boot);
            }
            Ok(reason) = refused.wait_for(Option::is_some) => {
                anyhow::bail!(reason.clone().unwrap_or_default());
            }
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}

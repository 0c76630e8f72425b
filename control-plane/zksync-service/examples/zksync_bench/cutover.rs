//! A live workload is moved: writers and readers that try again, and a checker that keeps everything that was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::task::JoinSet;
use zk::testing::Ensemble;
use zk::{Acl, Client, CreateKind, Error};
use zksync::{MigrationCommand, Phase, Plan};

use crate::bench::{Running, between, client, fill, tell};

const WRITERS: u64 = 8;

/// Where writers are to write: what an application reads from its configuration.
const OLD: u8 = 0;
const STOPPED: u8 = 1;
const NEW: u8 = 2;
const OVER: u8 = 3;

/// Everything that was acknowledged: for each znode the last value, and when the last write before and the first after the move were.
#[derive(Debug, Default)]
struct History {
    values: BTreeMap<String, String>,
    last_before: Option<Instant>,
    first_after: Option<Instant>,
}

struct Workload {
    at: AtomicU8,
    history: Mutex<History>,
    refused: AtomicU64,
    reads: AtomicU64,
    stale: AtomicU64,
}

/// Creates and changes znodes of its own, one write after another, and reads back what it wrote.
async fn work(me: u64, old: Client, new: Client, workload: Arc<Workload>) -> Result<()> {
    for n in 0_u64.. {
        let (client, after) = match workload.at.load(Ordering::SeqCst) {
            OLD => (&old, false),
            NEW => (&new, true),
            OVER => return Ok(()),
            _ => {
                workload.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        let path = format!("/tree/w{me}-{:04}", n % 500);
        let value = format!("{me}.{n}");
        let written = match client.set(&path, value.as_bytes(), None).await {
            Err(Error::NoNode) => client.create(&path, value.as_bytes(), &Acl::open(), CreateKind::Persistent).await.map(drop),
            done => done.map(drop),
        };
        if written.is_err() {
            workload.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        {
            let mut history = workload.history.lock().map_err(|_| anyhow!("a writer panicked"))?;
            history.values.insert(path.clone(), value.clone());
            let now = Instant::now();
            if after {
                history.first_after.get_or_insert(now);
            } else {
                history.last_before = Some(now);
            }
        }
        let (read, _) = client.get(&path).await?;
        workload.reads.fetch_add(1, Ordering::Relaxed);
        workload.stale.fetch_add(u64::from(read != value.as_bytes()), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

pub(crate) async fn measure(a: &Ensemble, b: &Ensemble, count: usize) -> Result<()> {
    let old = client(a).await?;
    fill(&old, "/tree", count).await.or_else(|error| if old_tree(&error) { Ok(()) } else { Err(error) })?;
    let running = Running::start()?;
    running.link(between("move", a, b, "/tree")).await?;
    let workload = Arc::new(Workload {
        at: AtomicU8::new(OLD),
        history: Mutex::default(),
        refused: AtomicU64::new(0),
        reads: AtomicU64::new(0),
        stale: AtomicU64::new(0),
    });
    let mut writers = JoinSet::new();
    for me in 0..WRITERS {
        writers.spawn(work(me, client(a).await?, client(b).await?, workload.clone()));
    }
    let began = Instant::now();
    running.service.migrate(Plan { require_no_clients: false, ..Plan::of("move") })?;
    let migration = running.service.migration("move")?;
    let phase = || migration.view().migration.phase;
    while phase() != Phase::Ready {
        if began.elapsed() > Duration::from_secs(120) {
            bail!("not ready: {:?}", migration.view().migration);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ready = began.elapsed();
    // The application stops its writers, and says so.
    workload.at.store(STOPPED, Ordering::SeqCst);
    let stopped = Instant::now();
    migration.tell(MigrationCommand::Cutover).await;
    let mut steps = Vec::new();
    let mut last = Phase::Ready;
    let mut since = Instant::now();
    while last != Phase::Switch {
        let now = phase();
        if now != last {
            if last != Phase::Ready {
                steps.push(format!("{} {:.2} s", last.as_str(), since.elapsed().as_secs_f64()));
            }
            (last, since) = (now, Instant::now());
        }
        if now == Phase::Verify {
            bail!("the cutover was rolled back: {:?}", migration.view().migration.history.last());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    workload.at.store(NEW, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    workload.at.store(OVER, Ordering::SeqCst);
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let history = std::mem::take(&mut *workload.history.lock().map_err(|_| anyhow!("a writer panicked"))?);
    let window = history.first_after.zip(history.last_before).map(|(after, before)| after - before);
    let window = window.context("nothing was written after the move")?;
    tell(&format!(
        "cutover of {} znodes under {WRITERS} writers: no write was accepted for {:.2} s (target < 5), from the word to stop {:.2} s; {}; ready {:.0} s \
         after the migration began",
        count,
        window.as_secs_f64(),
        (history.first_after.context("nothing was written after the move")? - stopped).as_secs_f64(),
        steps.join(", "),
        ready.as_secs_f64()
    ))?;
    let new = client(b).await?;
    let mut lost = 0;
    for (path, value) in &history.values {
        let kept = match new.get(path).await {
            Ok((data, _)) => data == value.as_bytes(),
            Err(Error::NoNode) => false,
            Err(error) => return Err(error.into()),
        };
        lost += u64::from(!kept);
    }
    tell(&format!(
        "cutover: {} znodes written by the workload, {} reads after their own write of which {} were stale, {lost} acknowledged writes lost (target 0)",
        history.values.len(),
        workload.reads.load(Ordering::Relaxed),
        workload.stale.load(Ordering::Relaxed),
    ))?;
    if lost > 0 { bail!("acknowledged writes were lost") } else { Ok(()) }
}

/// The tree is there already, from the part before.
fn old_tree(error: &anyhow::Error) -> bool {
    error.to_string().contains("exists")
}

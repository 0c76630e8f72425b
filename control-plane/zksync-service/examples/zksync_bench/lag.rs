//! How long a write takes to the other side, and how many a second get there.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::task::JoinSet;
use zk::testing::Ensemble;
use zk::{Acl, Client, CreateKind};
use zksync::Mode;

use crate::bench::{Running, between, client, settled, tell, watched};

pub(crate) async fn measure(a: &Ensemble, b: &Ensemble, scale: u64) -> Result<()> {
    for mode in [Mode::AToB, Mode::Both] {
        for rate in [200, 1_000] {
            at_rate(a, b, mode, rate, 15 / scale.min(5)).await?;
        }
    }
    Ok(())
}

/// Writes at a fixed rate; each is a task of its own, so that its acknowledgement is noted when it comes and not when somebody looks.
async fn write(client: Client, root: String, name: &'static str, rate: u32, count: u64) -> Result<Vec<(String, Instant, Duration)>> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut under_way = JoinSet::new();
    for n in 0..count {
        tick.tick().await;
        let (client, path) = (client.clone(), format!("{root}/{name}{n:07}"));
        under_way.spawn(async move {
            let sent = Instant::now();
            let written = client.create(&path, &[b'x'; 64], &Acl::open(), CreateKind::Persistent).await;
            let acknowledged = Instant::now();
            written.map(|_| (path, acknowledged, acknowledged - sent))
        });
    }
    let mut acks = Vec::new();
    while let Some(done) = under_way.join_next().await {
        acks.push(done??);
    }
    Ok(acks)
}

async fn at_rate(a: &Ensemble, b: &Ensemble, mode: Mode, rate: u32, seconds: u64) -> Result<()> {
    let root = format!("/lag-{}-{rate}", mode.as_str());
    let running = Running::start()?;
    let mut definition = between(&format!("lag-{}-{rate}", mode.as_str()), a, b, &root);
    definition.mode = mode;
    client(a).await?.create_all(&root).await?;
    let handle = running.link(definition).await?;
    settled(&handle).await?;
    let ends = if mode == Mode::Both { vec![(a, b, "a"), (b, a, "b")] } else { vec![(a, b, "a")] };
    let mut directions = Vec::new();
    for (from, to, name) in ends {
        let (watching, watch, arrivals) = watched(to, &root).await?;
        directions.push((client(from).await?, watching, watch, arrivals, name));
    }
    let count = u64::from(rate) * seconds;
    let writers = directions.iter().map(|(client, _, _, _, name)| write(client.clone(), root.clone(), name, rate, count));
    let acks = futures::future::try_join_all(writers).await?;
    let (mut lags, mut writes) = (Vec::new(), Vec::new());
    let mut missing = 0;
    for _ in 0..200 {
        (lags, writes, missing) = (Vec::new(), Vec::new(), 0);
        for ((_, _, _, arrivals, _), acks) in directions.iter().zip(&acks) {
            let arrivals = arrivals.lock().map_err(|_| anyhow!("a watch panicked"))?;
            for (path, acknowledged, took) in acks {
                writes.push(*took);
                match arrivals.get(path) {
                    Some(arrived) => lags.push(arrived.saturating_duration_since(*acknowledged)),
                    None => missing += 1,
                }
            }
        }
        if missing == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    lags.sort_unstable();
    writes.sort_unstable();
    let at = |sorted: &[Duration], of_thousand: usize| {
        sorted.get(sorted.len() * of_thousand / 1_000).map_or(f64::NAN, |lag| lag.as_secs_f64() * 1e3)
    };
    let direction = if mode == Mode::Both { "both ways, each" } else { "one way" };
    let (p50, p99) = if rate <= 200 { (2, 25) } else { (4, 50) };
    tell(&format!(
        "lag {direction} {rate}/s: p50 {:.1} ms (target < {p50}), p99 {:.1} ms (target < {p99}), max {:.1} ms; {} changes, {missing} missing; \
         the writes themselves took p50 {:.1} ms, p99 {:.1} ms",
        at(&lags, 500),
        at(&lags, 990),
        lags.last().map_or(f64::NAN, |lag| lag.as_secs_f64() * 1e3),
        lags.len(),
        at(&writes, 500),
        at(&writes, 990),
    ))
}

/// Creates as fast as the server takes them, for some time; gives back how many.
async fn flood(client: Client, root: String, time: Duration) -> Result<u64> {
    const WINDOW: usize = 256;
    client.create_all(&root).await?;
    let began = Instant::now();
    let mut under_way = JoinSet::new();
    let mut n = 0_u64;
    let mut done = 0;
    loop {
        while under_way.len() < WINDOW && began.elapsed() < time {
            let (client, path) = (client.clone(), format!("{root}/{n:08}"));
            n += 1;
            under_way.spawn(async move { client.create(&path, &[b'x'; 64], &Acl::open(), CreateKind::Persistent).await.map(drop) });
        }
        match under_way.join_next().await {
            Some(written) => written??,
            None => return Ok(done),
        }
        done += 1;
    }
}

pub(crate) async fn measure_rate(a: &Ensemble, b: &Ensemble, scale: u64) -> Result<()> {
    let time = Duration::from_secs(12 / scale.min(4));
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    let per_second = |count: u64, took: Duration| count as f64 / took.as_secs_f64();
    // Once before, so that both servers have compiled what they run.
    let warm = (flood(client(a).await?, "/warm".to_owned(), time / 2), flood(client(b).await?, "/warm".to_owned(), time / 2));
    futures::future::try_join(warm.0, warm.1).await?;
    let began = Instant::now();
    let alone = flood(client(a).await?, "/alone".to_owned(), time).await?;
    let alone = per_second(alone, began.elapsed());
    let began = Instant::now();
    let both = (flood(client(a).await?, "/both".to_owned(), time), flood(client(b).await?, "/both".to_owned(), time));
    let (on_a, on_b) = futures::future::try_join(both.0, both.1).await?;
    let both = per_second(on_a.min(on_b), began.elapsed());
    client(a).await?.create_all("/rate").await?;
    let running = Running::start()?;
    let handle = running.link(between("rate", a, b, "/rate")).await?;
    settled(&handle).await?;
    let began = Instant::now();
    let written = flood(client(a).await?, "/rate".to_owned(), time).await?;
    let wrote = began.elapsed();
    let reader = client(b).await?;
    while reader.stat("/rate").await?.is_none_or(|stat| u64::from(stat.num_children.unsigned_abs()) < written) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let arrived = began.elapsed();
    let synced = per_second(written, arrived);
    tell(&format!(
        "highest rate: one ensemble alone {alone:.0}/s; both written at once, no link {both:.0}/s each; with a link {:.0}/s written and \
         {synced:.0}/s applied on the other side, {:.0} % of both at once (target >= 80), {:.0} % of one alone; the last arrived {:.0} ms after the \
         last write",
        per_second(written, wrote),
        synced / both * 100.0,
        synced / alone * 100.0,
        (arrived.saturating_sub(wrote)).as_secs_f64() * 1e3
    ))
}

//! `cargo xtask bench zksync`: what two real ensembles with a link between them do on this machine, measured from outside: by clients that write to
//! one and watch the other. `zksync_bench [SCALE [PART…]]`; parts are `lag`, `rate`, `copy`, `cutover` and `memory`, all when none is named.

#[path = "zksync_bench/bench.rs"]
mod bench;
#[path = "zksync_bench/copy.rs"]
mod copy;
#[path = "zksync_bench/cutover.rs"]
mod cutover;
#[path = "zksync_bench/lag.rs"]
mod lag;

use anyhow::{Result, bail};
use zk::testing::{Ensemble, ServerOptions, on_test_machine};

fn main() -> Result<()> {
    if !on_test_machine() {
        bail!("no ZooKeeper here: apt-get install zookeeper default-jre-headless");
    }
    let scale: u64 = std::env::args().nth(1).and_then(|scale| scale.parse().ok()).unwrap_or(1).max(1);
    let parts: Vec<String> = std::env::args().skip(2).collect();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(scale, &parts))
}

async fn measure(scale: u64, parts: &[String]) -> Result<()> {
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    let memory = wanted("memory");
    let heap = if memory { "3g" } else { "1g" };
    let options = ServerOptions { heap, optimized: true, config: vec!["tickTime=2000".to_owned()], ..ServerOptions::default() };
    let (a, b) = tokio::task::spawn_blocking(move || (Ensemble::start(1, &options), Ensemble::start(1, &options))).await?;
    bench::tell("two ZooKeeper ensembles of one server each on loopback, data on disk with fsync; 64-byte values")?;
    if wanted("lag") {
        lag::measure(&a, &b, scale).await?;
    }
    if wanted("rate") {
        lag::measure_rate(&a, &b, scale).await?;
    }
    let count = usize::try_from(100_000 / scale)?;
    if wanted("copy") {
        copy::measure(&a, &b, count).await?;
    }
    if wanted("cutover") {
        cutover::measure(&a, &b, count).await?;
    }
    if memory {
        copy::measure_memory(&a, &b, count).await?;
    }
    Ok(())
}

//! The first copy, comparisons, and what memory they take.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use futures::stream::{StreamExt as _, iter};
use zk::testing::Ensemble;
use zk::{Acl, Client, CreateKind, Op};
use zksync::AclPolicy;
use zksync_service::verify::{self, Known};

use crate::bench::{Running, between, client, fill, settled, tell};

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

pub(crate) async fn measure(a: &Ensemble, b: &Ensemble, count: usize) -> Result<()> {
    let old = client(a).await?;
    fill(&old, "/tree", count).await?;
    let mut naive = 0.0;
    for (acl, words) in [(AclPolicy::Ignore, "data alone, as zkcopy does"), (AclPolicy::Copy, "with access control lists")] {
        let running = Running::start()?;
        let mut definition = between(if acl == AclPolicy::Copy { "tree" } else { "bare" }, a, b, "/tree");
        if acl == AclPolicy::Ignore {
            definition.mappings[0].b = "/bare".to_owned();
        }
        definition.acl = acl;
        let config = definition.config()?;
        let began = Instant::now();
        let handle = running.link(definition.clone()).await?;
        let led = began.elapsed();
        while handle.status().pairs < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        settled(&handle).await?;
        let took = began.elapsed().saturating_sub(led);
        let speed = per_second(count, took);
        if acl == AclPolicy::Ignore {
            naive = naive_copy(&old, &client(b).await?, count / 10).await?;
        }
        tell(&format!(
            "first copy of {count} znodes, {words}: {:.2} s, {speed:.0} znodes/s (target 40000), {:.0} times a copier of the usual kind \
             ({naive:.0}/s); until it led {:.2} s more",
            took.as_secs_f64(),
            speed / naive,
            led.as_secs_f64()
        ))?;
        let clients = verify::connect(&definition).await.map_err(Error::msg)?;
        let known = Known::default();
        known.listen_to(handle.acls());
        for words in ["the first", "the next"] {
            let report = verify::verify("tree", &config, &clients, true, &known).await?;
            tell(&format!(
                "verification of {count} znodes, {words}, both sides read again, {} access control lists of them: {:.2} s (target < 2), equal: {}",
                report.acls_read,
                Duration::from_millis(report.took_ms).as_secs_f64(),
                report.found.equal
            ))?;
        }
    }
    Ok(())
}

/// As zkcopy does it: a hundred readers, one writer that looks whether each is there and then creates a thousand in a transaction; no access
/// control lists, no conditions, no journal. zkcopy itself needs its build tool's repository, which cannot be reached from every machine.
async fn naive_copy(from: &Client, to: &Client, count: usize) -> Result<f64> {
    to.create_all("/naive").await?;
    for parent in 0..100 {
        to.create_all(&format!("/naive/{parent:02}")).await?;
    }
    let began = Instant::now();
    let paths = (0..count).map(|n| format!("/tree/{:02}/{n:07}", n % 100));
    let reads = iter(paths).map(|path| async move {
        let data = from.get(&path).await;
        let children = from.children(&path).await;
        (path, data, children)
    });
    let mut reads = reads.buffered(100);
    let mut batch = Vec::new();
    while let Some((path, data, children)) = reads.next().await {
        children?;
        let path = path.replacen("/tree", "/naive", 1);
        if to.stat(&path).await?.is_none() {
            batch.push(Op::Create { path, data: data?.0, acl: Acl::open(), kind: CreateKind::Persistent });
        }
        if batch.len() >= 1_000 {
            to.multi(&std::mem::take(&mut batch)).await?;
        }
    }
    to.multi(&batch).await?;
    Ok(per_second(count, began.elapsed()))
}

/// Resident memory of this process, in MiB.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// A link over one, three and ten times as many znodes; the last is the million of the objective when `count` is a hundred thousand.
pub(crate) async fn measure_memory(a: &Ensemble, b: &Ensemble, count: usize) -> Result<()> {
    let old = client(a).await?;
    let before = resident_mib();
    for (n, times) in [1, 3, 10].into_iter().enumerate() {
        let root = format!("/memory{n}");
        fill(&old, &root, count * times).await?;
        let running = Running::start()?;
        let began = Instant::now();
        let handle = running.link(between(&format!("memory{n}"), a, b, &root)).await?;
        let mut peak = resident_mib();
        while handle.status().pairs < count * times {
            peak = peak.max(resident_mib());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        settled(&handle).await?;
        let took = began.elapsed();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = resident_mib();
        #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
        let each = (now - before).max(0.0) * 1024.0 * 1024.0 / (count * times) as f64;
        tell(&format!(
            "memory with {} znodes: {now:.0} MiB resident ({before:.0} before, {peak:.0} at most), about {each:.0} bytes a znode; copied in {:.1} s",
            count * times,
            took.as_secs_f64()
        ))?;
    }
    Ok(())
}

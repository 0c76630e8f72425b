//! The page in a real browser.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use xtask::stack::Stack;

use crate::browser::Browser;
use crate::world::{PATIENCE, connect, gallery, has_edge, serve, stack, traffic};

#[test]
fn the_page_shows_processes_and_the_edge_that_was_just_made() -> Result<()> {
    let Some(mut stack) = stack()? else { return Ok(()) };
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let (server, listening) = serve(&mut traffic(), "127.0.0.1:0", 10)?;
    let (client, _) = connect(&mut traffic(), listening, 2, 10)?;
    let (from, to) = (format!(";{}", client.pid()), format!(";{}", server.pid()));
    stack.until(PATIENCE, "the edge is on the API", |stack| has_edge(stack, "processes", &from, &to))?;

    browser.open(&format!("http://{}/", stack.http()))?;
    browser.until("the tab of the processes is there", "!!document.querySelector('[data-testid=view-tab-processes]')")?;
    browser.evaluate("document.querySelector('[data-testid=view-tab-processes]').click()")?;
    browser.until("nodes are shown", "Number(document.querySelector('[data-testid=node-count]')?.dataset.count) >= 2")?;
    // Made while the page is open: it has to come by itself.
    let (late, _) = connect(&mut traffic(), listening, 1, 10)?;
    for pid in [client.pid(), late.pid()] {
        let edge = format!("window.__orchestrator.edges().some(([a, b]) => a.endsWith(';{pid}') && b.endsWith('{to}'))");
        browser.until(&format!("the edge of process {pid} is drawn"), &edge)?;
        browser.until(
            "its node has a place",
            &format!("Object.keys(window.__orchestrator.positions()).some((id) => id.endsWith(';{pid}'))"),
        )?;
    }
    save(&mut browser, "processes-graph.png")?;

    browser.evaluate("document.querySelector('[data-testid=mode-table]').click()")?;
    let row = "[...document.querySelectorAll('[data-testid=table-row]')].some((row) => /;\\d+$/.test(row.dataset.nodeId))";
    browser.until("the table has rows", row)?;
    save(&mut browser, "processes-table.png")?;
    still_connected(&stack)
}

fn still_connected(stack: &Stack) -> Result<()> {
    ensure!(stack.probe_state()?["connected"] == true, "the probe is still connected");
    Ok(())
}

fn save(browser: &mut Browser, name: &str) -> Result<()> {
    let file = gallery()?.join(name);
    let picture = browser.screenshot()?;
    let output = std::fs::File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut decoder = Command::new("base64").arg("--decode").stdin(Stdio::piped()).stdout(output).spawn().context("cannot start base64")?;
    decoder.stdin.take().context("the input was piped")?.write_all(picture.as_bytes())?;
    ensure!(decoder.wait()?.success(), "the picture is not base64");
    Ok(())
}

//! The page in a real browser.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use xtask::http;
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

/// What a page of a section says once it is there.
fn section_says(browser: &mut Browser, hash: &str, testid: &str, text: &str) -> Result<()> {
    browser.evaluate(&format!("void (location.hash = {hash:?})"))?;
    let says = format!("!!document.querySelector('[data-testid={testid}]')?.textContent.includes({text:?})");
    browser.until(&format!("{hash} says {text:?} in {testid}"), &says)
}

fn click(browser: &mut Browser, testid: &str) -> Result<()> {
    let there = format!("!!document.querySelector('[data-testid={testid}]:not([disabled])')");
    browser.until(&format!("{testid} can be clicked"), &there)?;
    browser.evaluate(&format!("document.querySelector('[data-testid={testid}]').click()")).map(drop)
}

#[test]
fn the_page_shows_the_cluster_and_its_services_and_changes_them() -> Result<()> {
    let Some(stack) = stack()? else { return Ok(()) };
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let app = json!({ "id": "/shop/web", "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "instances": 2, "labels": { "<b>hostile</b>": "<img src=x onerror=window.hacked=1>" } });
    let made = http::send(stack.http(), "POST", "/api/v1/marathon/v2/apps", Some(&app))?;
    ensure!(made.status == 201, "the scheduler took the app on the page's port: {} {}", made.status, made.text());

    browser.open(&format!("http://{}/#/apps", stack.http()))?;
    browser.until("the app is in the tree", "!!document.querySelector('[data-key=\"app /shop/web\"]')")?;
    // No agent is there, so that it waits, and says why.
    section_says(&mut browser, "#/apps/queue", "why", "no offer came yet")?;
    section_says(&mut browser, "#/apps/app/shop/web", "app-health", "2 not placed")?;
    save(&mut browser, "service.png")?;

    click(&mut browser, "app-scale")?;
    let fill = "(() => { const field = document.querySelector('[data-testid=ask-instances]'); if (!field) return false; field.value = '3'; \
                field.dispatchEvent(new Event('input', { bubbles: true })); return true; })()";
    browser.until("the question is there", fill)?;
    click(&mut browser, "ask-yes")?;
    // The app is being deployed: the page offers to stop that.
    browser
        .until("the deployment in the way is named", "document.querySelector('[data-testid=ask]')?.textContent.includes('in the way')")?;
    click(&mut browser, "ask-yes")?;
    browser.until("it is scaled", "document.querySelector('[data-testid=app-health]')?.textContent.includes('3 wanted')")?;
    let now = http::get_json(stack.http(), "/api/v1/marathon/v2/apps/shop/web")?;
    ensure!(now["app"]["instances"] == 3, "the scheduler knows: {now}");
    // Told by the event stream, without a reload.
    http::send(stack.http(), "PUT", "/api/v1/marathon/v2/apps/shop/web?force=true", Some(&json!({ "instances": 4 })))?;
    browser.until("the page follows", "document.querySelector('[data-testid=app-health]')?.textContent.includes('4 wanted')")?;

    section_says(&mut browser, "#/cluster/frameworks", "frameworks", "marathon")?;
    section_says(&mut browser, "#/cluster/agents", "agents", "No agent is registered")?;
    section_says(&mut browser, "#/zookeeper", "links", "No ensembles are kept in step")?;
    browser.evaluate("location.reload()")?;
    browser
        .until("the section survives a reload", "document.querySelector('[data-testid=section-page]')?.dataset.section === 'zookeeper'")?;
    ensure!(browser.evaluate("String(window.hacked)")? == "undefined", "markup of others was run");
    Ok(())
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

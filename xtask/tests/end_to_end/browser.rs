//! A headless Chromium, driven through its debugging port.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::http;
use xtask::websocket::Socket;

use crate::world::cannot;

/// How long the browser may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one tab; ended when this value goes.
#[derive(Debug)]
pub(crate) struct Browser {
    process: Child,
    tab: Socket,
    last_call: u64,
    _profile: TempDir,
}

impl Browser {
    /// Starts one; `None` where there is none.
    pub(crate) fn start() -> Result<Option<Self>> {
        let Some(program) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| exists(name)) else {
            return cannot("no Chromium is installed");
        };
        let profile = TempDir::with_prefix("orchestrator-browser-")?;
        let mut process = Command::new(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--use-gl=angle",
                "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
            ])
            .args(["--disable-background-networking", "--no-first-run", "--window-size=1440,900", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let server = debugging_address(&mut process)?;
        let tab = open_tab(server)?;
        let mut browser = Self { process, tab, last_call: 0, _profile: profile };
        browser.call("Page.enable", json!({}))?;
        browser.call("Runtime.enable", json!({}))?;
        Ok(Some(browser))
    }

    /// Opens an address.
    pub(crate) fn open(&mut self, address: &str) -> Result<()> {
        self.call("Page.navigate", json!({ "url": address })).map(drop)
    }

    /// The value of an expression in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let reply = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }))?;
        if let Some(details) = reply.get("exceptionDetails") {
            bail!("`{expression}` threw {details}");
        }
        Ok(reply["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub(crate) fn until(&mut self, what: &str, expression: &str) -> Result<()> {
        let begun = Instant::now();
        while self.evaluate(expression).ok() != Some(Value::Bool(true)) {
            if begun.elapsed() > PATIENCE {
                let text = self.evaluate("document.body ? document.body.innerText.slice(0, 2000) : ''")?;
                bail!("waited {} s in vain until {what}. The page says: {text}", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// What the page looks like, as PNG in base64.
    pub(crate) fn screenshot(&mut self) -> Result<String> {
        let reply = self.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        Ok(reply["data"].as_str().context("no picture in the reply")?.to_owned())
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last_call += 1;
        self.tab.send(&json!({ "id": self.last_call, "method": method, "params": parameters }))?;
        let deadline = Instant::now() + PATIENCE;
        while let Some(message) = self.tab.next(deadline.saturating_duration_since(Instant::now()))? {
            if message["id"] == self.last_call {
                if let Some(error) = message.get("error") {
                    bail!("the browser refused {method}: {error}");
                }
                return Ok(message["result"].clone());
            }
        }
        bail!("the browser did not answer {method}")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Whether it is gone already does not matter.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The address that the browser prints when it listens.
fn debugging_address(process: &mut Child) -> Result<SocketAddr> {
    let errors = process.stderr.take().context("the browser's output was piped")?;
    let mut lines = BufReader::new(errors).lines();
    let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains("DevTools listening on"));
    let address = line.as_deref().and_then(|line| line.split("ws://").nth(1)?.split('/').next()?.parse().ok());
    // Something has to read what it prints from here on, or it stops at a full pipe.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    address.context("the browser did not say where it listens")
}

fn open_tab(server: SocketAddr) -> Result<Socket> {
    let tabs = http::get_json(server, "/json/list")?;
    let page = tabs.as_array().into_iter().flatten().find(|tab| tab["type"] == "page").context("the browser has no tab")?;
    let address = page["webSocketDebuggerUrl"].as_str().context("the tab has no address")?;
    let path = address
        .split_once("//")
        .and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()))
        .context("the tab's address has no path")?;
    Socket::open(server, &path)
}

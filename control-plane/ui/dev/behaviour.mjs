// Drives the built page in a headless Chromium against the synthetic world, and checks what people rely on. Exit code 1 when something fails.
//   npm run build && node dev/behaviour.mjs
// ONLY=<words> runs those whose names have the words.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { sections } from "./behaviour-sections.mjs";

const PORT = Number(process.env.PORT ?? 4199);
const PREFIX = "/tools/map/";
const BASE = `http://127.0.0.1:${PORT}${PREFIX}`;
const server = spawn(process.execPath, [fileURLToPath(new URL("mock.mjs", import.meta.url)), "--port", String(PORT), "--prefix", PREFIX, "--churn", "0", "--tasks", "12000"], {
  stdio: ["ignore", "pipe", "inherit"],
});
await once(server.stdout, "data");
const launch = (args) =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-background-networking", ...args],
  });
const browser = await launch(["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]);
const problems = [];
let failed = 0;

const at = (id) => `[data-testid="${id}"]`;
const assert = (condition, text) => {
  if (!condition) throw new Error(text);
};
async function open(hash = "", from = browser) {
  const page = await from.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(15_000);
  page.on("console", (message) => {
    // Requests that fail while the server is down are part of the exercise.
    if (message.type() === "error" && !/ERR_|WebSocket|EventSource|404|400|409|422/.test(message.text())) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(BASE + hash);
  await page.waitForSelector(`${at("connection-state")}[data-state="live"]`);
  return page;
}
const drawn = (page) => page.waitForFunction(() => Object.keys(window.__orchestrator.positions()).length > 0 && document.querySelector('[data-testid="graph"]').dataset.busy === "false");
const place = (page, id) =>
  page.evaluate((which) => {
    const box = document.querySelector('[data-testid="graph"]').getBoundingClientRect();
    const point = window.__orchestrator.screen(which);
    return { x: box.left + point.x, y: box.top + point.y };
  }, id);
const someNode = (page) => page.evaluate(() => window.__orchestrator.edges().find(([id]) => id.endsWith("<container>"))[0]);
const control = (path) => fetch(`http://127.0.0.1:${PORT}/mock/${path}`);

async function check(name, run) {
  if (process.env.ONLY && !name.includes(process.env.ONLY)) return;
  let page = null;
  try {
    await run(async (...args) => (page = await open(...args)));
    process.stdout.write(`ok    ${name}\n`);
  } catch (error) {
    failed += 1;
    process.stdout.write(`FAIL  ${name}: ${String(error).split("\n").slice(0, 5).join(" ")}\n`);
  }
  await page?.close();
}

await check("the page works under a path prefix and opens the view with containers", async (visit) => {
  const page = await visit();
  await drawn(page);
  assert((await page.evaluate(() => location.hash)) === "#/containers", "not the containers view");
  assert(await page.$(`${at("view-tab-hosts")}`), "no tab for hosts");
  assert(!(await page.$(`${at("view-tab-pods")}`)), "an empty view that hides when empty is shown");
  const count = Number(await page.getAttribute(at("node-count"), "data-count"));
  assert(count === (await page.evaluate(() => window.__orchestrator.nodes().length)) && count > 10, `node count ${count}`);
});

await check("a click opens a node's details, with traffic, and Escape closes them", async (visit) => {
  const page = await visit();
  await drawn(page);
  await page.waitForTimeout(700);
  const id = await someNode(page);
  const point = await place(page, id);
  await page.mouse.move(point.x, point.y);
  await page.mouse.click(point.x, point.y);
  await page.waitForSelector(`${at("details-panel")}[data-node-id="${id}"]`);
  await page.waitForSelector(at("traffic"));
  await page.waitForSelector(`${at("children-processes")} button.node-link`);
  await page.click(`${at("children-processes")} tbody button.node-link`);
  await page.waitForSelector(`${at("details-back")}`);
  await page.click(at("show-in-view"));
  await page.waitForFunction(() => location.hash.startsWith("#/processes?"));
  await page.waitForSelector(at("details-panel"));
  await page.keyboard.press("Escape");
  await page.waitForSelector(at("details-panel"), { state: "detached" });
});

await check("a node that vanishes says so and keeps what was known", async (visit) => {
  const page = await visit();
  await drawn(page);
  const id = await someNode(page);
  await page.evaluate((which) => (location.hash = `#/containers?node=${encodeURIComponent(`containers/${which}`)}`), id);
  await page.waitForSelector(`${at("details-panel")} .metadata`);
  await control(`kill?id=${encodeURIComponent(id)}`);
  await page.waitForSelector(`${at("details-panel")}[data-gone="true"] .metadata`);
  await page.waitForFunction((which) => !window.__orchestrator.nodes().includes(which), id);
});

await check("nodes stay where they are when one leaves and when the connection breaks", async (visit) => {
  const page = await visit();
  await drawn(page);
  await page.waitForTimeout(800);
  const before = await page.evaluate(() => window.__orchestrator.positions());
  await control("drop");
  await page.waitForSelector(`${at("connection-state")}[data-state="reconnecting"]`);
  await page.waitForSelector(`${at("connection-state")}[data-state="live"]`);
  await control(`kill?id=${encodeURIComponent(await someNode(page))}`);
  await page.waitForTimeout(2_500);
  const after = await page.evaluate(() => window.__orchestrator.positions());
  // Short-lived processes come and go next to others, which may give way a little.
  const moved = Object.keys(after).filter((id) => before[id] && Math.hypot(after[id].x - before[id].x, after[id].y - before[id].y) > 40);
  assert(moved.length === 0, `${moved.length} nodes moved`);
});

await check("a server that is away is shown as such, and the page recovers by itself", async (visit) => {
  const page = await visit();
  await drawn(page);
  await control("down");
  await page.waitForSelector(`${at("connection-state")}[data-state="offline"]`, { timeout: 30_000 });
  assert((await page.textContent(at("connection-state"))).includes("old"), "the age of the data is not shown");
  assert((await page.evaluate(() => window.__orchestrator.nodes().length)) > 10, "the last picture was dropped");
  await control("up");
  await page.click(`${at("connection-state")} button`);
  await page.waitForSelector(`${at("connection-state")}[data-state="live"]`, { timeout: 30_000 });
});

await check("search highlights, counts, pins and clears", async (visit) => {
  const page = await visit();
  await drawn(page);
  await page.keyboard.press("/");
  await page.keyboard.type("redis");
  await page.waitForFunction(() => /^[1-9]\d* match/.test(document.querySelector('[data-testid="search-count"]').textContent));
  await page.keyboard.press("Enter");
  await page.waitForSelector(at("search-pin"));
  await page.waitForFunction(() => window.__orchestrator.nodes().length < 8 && location.hash.includes("pin=redis"));
  await page.keyboard.press("Backspace");
  await page.waitForFunction(() => window.__orchestrator.nodes().length > 10);
  await page.keyboard.type("x");
  await page.keyboard.press("Escape");
  assert((await page.inputValue(at("search-input"))) === "", "Escape does not clear");
});

await check("a query means on the map what it means in the list, pinned or not", async (visit) => {
  const page = await visit("#/containers?mode=table");
  await page.waitForSelector(at("table-row"));
  const all = Number(await page.getAttribute(at("node-count"), "data-count"));
  // An id, and accents that nobody has: only the server finds them.
  await page.fill(at("search-input"), "Rédis OR opensearch");
  await page.waitForFunction(() => /^[1-9]\d* match/.test(document.querySelector('[data-testid="search-count"]').textContent));
  const counted = Number.parseInt(await page.textContent(at("search-count")), 10);
  const lit = await page.$$eval(`${at("table-row")}:not([class*="dim"])`, (rows) => rows.length);
  assert(counted > 0 && counted < all && lit === counted, `${counted} are counted, ${lit} lit, of ${all}`);
  await page.press(at("search-input"), "Enter");
  await page.waitForFunction((wanted) => Number(document.querySelector('[data-testid="node-count"]').dataset.count) === wanted, counted);
  assert((await page.textContent(".counts")).includes(`of ${all} nodes`), "what the pins hide is not said");
  // A second one holds besides the first, and each by itself.
  await page.fill(at("search-input"), "redis");
  await page.press(at("search-input"), "Enter");
  await page.waitForFunction((before) => Number(document.querySelector('[data-testid="node-count"]').dataset.count) < before, counted);
});

await check("what is no query is said, and a link with it still shows the map", async (visit) => {
  const page = await visit("#/containers?pin=redis&pin=a%20AND");
  await page.waitForSelector(`${at("search-pin")}[data-refused]`);
  await page.waitForFunction(() => window.__orchestrator.nodes().length > 0 && window.__orchestrator.nodes().length < 8);
  await page.fill(at("search-input"), "web OR");
  await page.waitForSelector(at("search-problem"));
  await page.press(at("search-input"), "Enter");
  assert((await page.inputValue(at("search-input"))) === "web OR", "what the server refuses became a filter");
});

await check("the list of what is found goes on", async (visit) => {
  const page = await visit();
  await page.fill(at("search-input"), "e");
  await page.waitForSelector(at("search-more"));
  const hits = () => page.$$eval(at("search-hit"), (rows) => rows.length);
  const before = await hits();
  await page.click(at("search-more"));
  await page.waitForFunction((count) => document.querySelectorAll('[data-testid="search-hit"]').length > count, before);
});

await check("arrow keys go through what is found, Enter opens it, Escape clears", async (visit) => {
  const page = await visit();
  await page.fill(at("search-input"), "redis");
  await page.waitForFunction(() => document.querySelectorAll('[data-testid="search-hit"]').length > 2);
  const marked = () => page.$$eval(at("search-hit"), (rows) => rows.findIndex((row) => row.getAttribute("aria-selected") === "true"));
  const press = async (key, wanted) => {
    await page.press(at("search-input"), key);
    assert((await marked()) === wanted, `${key} leads to ${await marked()} instead of ${wanted}`);
  };
  await press("ArrowDown", 0);
  await press("ArrowDown", 1);
  await press("ArrowUp", 0);
  await press("ArrowUp", -1);
  await press("ArrowDown", 0);
  await press("ArrowDown", 1);
  const active = await page.getAttribute(at("search-input"), "aria-activedescendant");
  const [id, element] = await page.$eval(`${at("search-hit")}[aria-selected="true"]`, (row) => [row.dataset.nodeId, row.id]);
  assert(active === element, "who listens to the page is not told which hit it is");
  await page.press(at("search-input"), "Enter");
  await page.waitForSelector(`${at("details-panel")}[data-node-id="${id}"]`);
  assert(!(await page.$(at("search-pin"))), "the words became a filter");
  await page.fill(at("search-input"), "redis");
  await page.waitForSelector(at("search-hit"));
  await press("ArrowDown", 0);
  await page.press(at("search-input"), "Escape");
  assert((await page.inputValue(at("search-input"))) === "", "Escape does not clear");
});

await check("who watches nothing any more is said, and why", async (visit) => {
  await control("unwatched");
  try {
    const page = await visit("", browser);
    await page.waitForSelector(`${at("empty-state")}[data-unwatched]`);
    const text = await page.textContent(at("empty-state"));
    assert(/web-1 was lost at \S+ \S+ \(\d+s ago\)/.test(text), text);
    await page.click(at("probes-button"));
    assert((await page.$$(at("departed-probe"))).length === 3, "the list of probes does not name them");
    await page.click(`${at("probes-panel")} button[aria-label="Close"]`);
    await control("watched");
    await drawn(page);
    await page.waitForSelector(at("empty-state"), { state: "detached" });
  } finally {
    await control("watched");
  }
});

await check("a view that comes back empty is drawn empty", async (visit) => {
  const page = await visit();
  await drawn(page);
  await page.click(at("view-tab-hosts"));
  await drawn(page);
  await page.click(at("view-tab-containers"));
  await drawn(page);
  await control("unwatched");
  try {
    // The second view is left before it says anything.
    await page.evaluate(() => {
      location.hash = "#/hosts";
      setTimeout(() => (location.hash = "#/containers"), 0);
    });
    await page.waitForSelector(`${at("empty-state")}:not([aria-busy])`);
    await page.waitForFunction(() => Object.keys(window.__orchestrator.positions()).length === 0);
  } finally {
    await control("watched");
  }
});

await check("on a narrow window the open panel has the room of the filters", async (visit) => {
  const page = await visit();
  await drawn(page);
  await page.setViewportSize({ width: 380, height: 740 });
  await page.click(at("probes-button"));
  await page.waitForSelector(at("probes-panel"));
  const height = await page.$eval(at("probes-panel"), (panel) => panel.getBoundingClientRect().height);
  assert(height > 480, `the panel is ${height} px high`);
  await page.keyboard.press("Escape");
  assert(await page.isVisible(".viewbar"), "the filters stay away");
});

await check("options change what is shown, and a link carries them", async (visit) => {
  const page = await visit("#/containers?o.stopped=both&mode=table");
  await page.waitForSelector(at("table-row"));
  assert((await page.getAttribute(at("option-stopped-both"), "aria-pressed")) === "true", "the option of the link is not pressed");
  const both = await page.evaluate(() => window.__orchestrator.nodes().length);
  await page.click(at("option-stopped-running"));
  await page.waitForFunction((count) => window.__orchestrator.nodes().length < count, both);
  await page.click(at("option-pseudo"));
  await page.waitForFunction(() => window.__orchestrator.nodes().some((id) => id.startsWith("pseudo:uncontained")) && location.hash.includes("o.pseudo=show"));
});

await check("the table sorts, and rows open by keyboard", async (visit) => {
  const page = await visit("#/processes?mode=table");
  await page.waitForSelector(at("table-row"));
  await page.click(at("sort-memory"));
  assert((await page.getAttribute('[role="columnheader"]:has([data-testid="sort-memory"])', "aria-sort")) === "descending", "numbers do not start with the largest");
  await page.focus(`${at("table-row")}[data-index="0"]`);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.waitForSelector(at("details-panel"));
});

await check("a dragged node stays where it was put", async (visit) => {
  const page = await visit();
  await drawn(page);
  await page.waitForTimeout(700);
  const id = await someNode(page);
  const from = await place(page, id);
  await page.mouse.move(from.x, from.y);
  await page.mouse.down();
  await page.mouse.move(from.x + 60, from.y + 40, { steps: 5 });
  await page.mouse.up();
  await page.waitForTimeout(2_200);
  const to = await place(page, id);
  assert(Math.hypot(to.x - from.x - 60, to.y - from.y - 40) < 6, `stands at ${JSON.stringify(to)} instead`);
  assert(!(await page.$(at("details-panel"))), "a drag opened the panel");
});

await check("arrow keys and Enter open a node without a mouse", async (visit) => {
  const page = await visit();
  await drawn(page);
  await page.focus(at("graph"));
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  await page.waitForSelector(at("details-panel"));
});

await check("theme, help and probes open and are remembered", async (visit) => {
  const page = await visit();
  const theme = () => page.getAttribute("html", "data-theme");
  const first = await theme();
  await page.click(at("theme-toggle"));
  assert((await theme()) !== first, "the theme did not change");
  await page.reload();
  await page.waitForSelector(at("theme-toggle"));
  assert((await theme()) !== first, "the theme was forgotten");
  await page.keyboard.press("?");
  await page.waitForSelector(at("help"));
  await page.keyboard.press("Escape");
  await page.waitForSelector(at("help"), { state: "detached" });
  await page.click(at("probes-button"));
  await page.waitForSelector(`${at("probe-card")}[data-degraded="true"]`);
  assert(await page.$(at("banner")), "nothing says that a host shows less than everything");
});

await check("controls open a terminal and logs, ask before they destroy, and say what went wrong", async (visit) => {
  const page = await visit();
  await drawn(page);
  const id = await someNode(page);
  await page.waitForTimeout(700);
  const point = await place(page, id);
  await page.mouse.move(point.x, point.y);
  await page.mouse.click(point.x, point.y);
  await page.waitForSelector(at("controls"));
  await page.click(at("control-docker_exec_container"));
  const text = () => document.querySelector('[data-testid="terminal"]')?.terminalText?.() ?? "";
  await page.waitForFunction(`(${text})().includes("/ #")`);
  await page.keyboard.type("echo g?\n");
  await page.waitForFunction(`(${text})().includes("echo g?")`);
  assert(!(await page.$(at("help"))), "what is typed into a terminal is taken for a shortcut");
  const calls = async () => (await fetch(`${BASE}mock-calls`)).json();
  await page.waitForTimeout(600);
  const before = (await calls()).filter((call) => call.control === "docker_resize_exec_tty");
  assert(before.length > 0 && before[0].body.pipeID.startsWith("pipe-") && Number(before[0].body.width) > 40, `the size was not told: ${JSON.stringify(before)}`);
  await page.setViewportSize({ width: 900, height: 800 });
  await page.waitForTimeout(900);
  const after = (await calls()).filter((call) => call.control === "docker_resize_exec_tty");
  assert(Number(after.at(-1).body.width) < Number(before.at(-1).body.width), "the new size was not told");
  await page.keyboard.press("Control+d");
  await page.waitForSelector(`${at("terminal")}[data-state="ended"]`);
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.click(at("control-docker_logs_container"));
  await page.waitForFunction(() => document.querySelector('[data-testid="text-count"]')?.dataset.count === "60");
  await page.fill(at("text-search"), "ITEM/5");
  await page.waitForFunction(() => document.querySelector('[data-testid="text-count"]').dataset.count === "11");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click(at("text-download"))]);
  assert(download.suggestedFilename().startsWith("Logs-"), download.suggestedFilename());
  await page.click(at("control-docker_pause_container"));
  await page.waitForSelector(at("control-failure"));
  assert((await page.textContent(at("control-failure"))).includes("Container is already paused"), "the runtime's words are not shown");
  await page.click(at("control-docker_kill_container"));
  await page.waitForSelector(at("confirm"));
  await page.click(at("confirm-no"));
  assert(!(await calls()).some((call) => call.control === "docker_kill_container"), "it was done without a yes");
  await page.click(at("control-docker_kill_container"));
  await page.click(at("confirm-yes"));
  await page.waitForTimeout(300);
  assert((await calls()).some((call) => call.control === "docker_kill_container"), "it was not done");
  while (await page.$(at("window-close"))) await page.click(at("window-close"));
  assert(!(await page.$(at("windows"))), "the windows stay");
});

await sections({ check, at, assert, base: BASE, control });

const plain = await launch(["--disable-gpu", "--disable-3d-apis", "--disable-software-rasterizer"]);
await check("without WebGL the page says so and shows the table", async (visit) => {
  const page = await visit("", plain);
  await page.waitForSelector(at("table-row"));
  assert((await page.textContent(at("banner"))).includes("WebGL"), "no word about WebGL");
  assert(await page.isDisabled(at("mode-graph")), "the graph is still offered");
});
await plain.close();

for (const text of new Set(problems)) {
  failed += 1;
  process.stdout.write(`FAIL  console: ${text.slice(0, 300)}\n`);
}
await browser.close();
server.kill();
process.stdout.write(failed === 0 ? "all behaviours hold\n" : `${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;

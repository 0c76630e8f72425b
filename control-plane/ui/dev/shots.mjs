// Opens the page in a headless Chromium and takes pictures of what people see. Usage: node dev/shots.mjs <url> <directory> [name…]

import { mkdir } from "node:fs/promises";
import { chromium } from "playwright-core";

const [base, directory, ...names] = process.argv.slice(2);
await mkdir(directory, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-background-networking", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
});
const problems = [];

async function open(hash, theme, size = { width: 1440, height: 900 }) {
  const page = await browser.newPage({ viewport: size, colorScheme: theme });
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(`${base}${hash}`);
  await page.waitForSelector('[data-testid="connection-state"][data-state="live"]', { timeout: 15_000 });
  await page.waitForFunction(() => document.querySelector('[data-testid="graph"]')?.dataset.busy !== "true", null, { timeout: 60_000 });
  await page.waitForTimeout(1_600);
  return page;
}

async function nodeNamed(page, text) {
  const ids = await page.evaluate(() => window.__orchestrator.nodes());
  return ids.find((id) => id.includes(text)) ?? ids[0];
}

async function clickNode(page, index) {
  const at = await page.evaluate((which) => {
    const [, id] = [which, window.__orchestrator.edges()[which]?.[0]];
    const box = document.querySelector('[data-testid="graph"]').getBoundingClientRect();
    const place = window.__orchestrator.screen(id);
    return { x: box.left + place.x, y: box.top + place.y };
  }, index);
  await page.mouse.move(at.x, at.y, { steps: 4 });
  await page.waitForTimeout(250);
  await page.mouse.click(at.x, at.y);
  await page.waitForSelector('[data-testid="details-panel"]');
}

const shots = {
  "graph-dark": () => open("#/containers", "dark"),
  "graph-light": () => open("#/containers", "light"),
  processes: () => open("#/processes", "dark"),
  hosts: () => open("#/hosts", "light"),
  images: () => open("#/containers-by-image?o.pseudo=show", "dark"),
  heat: () => open("#/processes?metric=CPU", "light"),
  table: () => open("#/processes?mode=table", "light"),
  "table-dark": () => open("#/containers?mode=table&o.stopped=both&q=shop", "dark"),
  async search() {
    const page = await open("#/containers", "dark");
    await page.keyboard.press("/");
    await page.keyboard.type("cart|redis");
    await page.waitForTimeout(500);
    return page;
  },
  async details() {
    const page = await open("#/containers", "dark");
    await clickNode(page, 5);
    await page.waitForTimeout(4_500);
    return page;
  },
  async "details-light"() {
    const page = await open("#/processes", "light");
    await clickNode(page, 8);
    await page.waitForTimeout(4_500);
    return page;
  },
  async "details-host"() {
    const page = await open("#/hosts", "dark");
    await clickNode(page, 1);
    await page.waitForTimeout(1_500);
    return page;
  },
  async "details-bottom"() {
    const page = await open("#/containers", "light");
    await clickNode(page, 3);
    await page.waitForTimeout(1_500);
    await page.evaluate(() => document.querySelector(".side-body").scrollTo(0, 1e6));
    await page.waitForTimeout(200);
    return page;
  },
  async hover() {
    const page = await open("#/containers", "light");
    const at = await page.evaluate(() => {
      const place = window.__orchestrator.screen(window.__orchestrator.edges()[12][0]);
      const box = document.querySelector('[data-testid="graph"]').getBoundingClientRect();
      return { x: box.left + place.x, y: box.top + place.y };
    });
    await page.mouse.move(at.x, at.y, { steps: 3 });
    await page.waitForTimeout(400);
    return page;
  },
  async probes() {
    const page = await open("#/hosts", "dark");
    await page.click('[data-testid="probes-button"]');
    await page.waitForTimeout(500);
    return page;
  },
  async help() {
    const page = await open("#/containers", "light");
    await page.keyboard.press("?");
    await page.waitForTimeout(300);
    return page;
  },
  narrow: () => open("#/containers", "dark", { width: 760, height: 900 }),
};

void nodeNamed;
for (const [name, take] of Object.entries(shots)) {
  if (names.length > 0 && !names.includes(name)) continue;
  try {
    const page = await take();
    await page.screenshot({ path: `${directory}/${name}.png` });
    await page.close();
    process.stdout.write(`${name}\n`);
  } catch (error) {
    process.stdout.write(`${name} FAILED ${String(error).slice(0, 300)}\n`);
  }
}
await browser.close();
for (const text of new Set(problems)) process.stdout.write(`console: ${text.slice(0, 400)}\n`);

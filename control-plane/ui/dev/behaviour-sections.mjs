// What people rely on in the sections besides the map: cluster, services, ZooKeeper.

import { MARKUP } from "./mock-services.mjs";

export async function sections({ check, at, assert, base, control }) {
  const changes = async () => (await fetch(`${base}mock-changes`)).json();
  const changed = async (page, test) => {
    for (let wait = 0; wait < 50; wait += 1) {
      const found = (await changes()).find(test);
      if (found) return found;
      await page.waitForTimeout(100);
    }
    throw new Error(`nothing like it was asked for: ${JSON.stringify((await changes()).slice(-3))}`);
  };
  const notHacked = async (page) => assert((await page.evaluate(() => window.hacked)) === undefined, "markup of others was run");
  const yes = async (page, typed) => {
    await page.waitForSelector(at("ask"));
    if (typed) {
      assert(await page.isDisabled(at("ask-yes")), "it goes on without the name being typed");
      await page.fill(at("ask-typed"), typed);
    }
    await page.click(at("ask-yes"));
    await page.waitForSelector(at("ask"), { state: "detached" });
  };

  await check("sections have addresses of their own, survive a reload, and keys lead to them", async (visit) => {
    const page = await visit("#/cluster/roles");
    await page.waitForSelector(at("roles-row"));
    await page.reload();
    await page.waitForSelector(at("roles-row"));
    assert((await page.getAttribute(at("page-roles"), "aria-current")) === "page", "the tab is not the current one");
    await page.keyboard.press("3");
    await page.waitForSelector(at("apps-row"));
    assert((await page.evaluate(() => location.hash)) === "#/apps", "the address is another");
    await page.goBack();
    await page.waitForSelector(at("roles-row"));
    await page.keyboard.press("1");
    await page.waitForSelector(at("graph"));
    await page.waitForFunction(() => location.hash === "#/containers");
    await page.evaluate(() => (location.hash = "#/services"));
    await page.waitForSelector(at("view-tab-containers"));
    assert(!(await page.$(at("section-page"))), "a view of the map is taken for a section");
  });

  await check("twelve thousand tasks scroll, sort and filter without a pause", async (visit) => {
    const page = await visit("#/cluster/tasks?show=all");
    await page.waitForFunction(() => document.querySelector('[data-testid="tasks"]')?.dataset.total === "12000", null, { timeout: 30_000 });
    const frame = () =>
      page.evaluate(async () => {
        const box = document.querySelector('[data-testid="tasks"] .table-scroll');
        const took = [];
        for (let step = 0; step < 40; step += 1) {
          const begun = performance.now();
          box.scrollTop = (step / 40) * box.scrollHeight;
          await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
          took.push(performance.now() - begun);
        }
        return took.sort((a, b) => a - b)[20];
      });
    const long = await frame();
    await page.evaluate(() => (location.hash = "#/cluster/tasks?show=all&q=web-111"));
    await page.waitForFunction(() => Number(document.querySelector('[data-testid="tasks"]').dataset.count) < 200);
    // How fast a frame is, is the machine's; that it does not depend on the length of the table, is ours.
    const short = await frame();
    assert(long < 3 * short + 50, `a frame takes ${Math.round(long)} ms, and ${Math.round(short)} ms with a hundredth of the rows`);
    await page.evaluate(() => (location.hash = "#/cluster/tasks?show=all"));
    await page.waitForFunction(() => document.querySelector('[data-testid="tasks"]').dataset.count === "12000");
    assert((await page.$$(at("tasks-row"))).length < 80, "rows beyond the screen exist");
    await page.keyboard.press("/");
    await page.keyboard.type("state:failed web-4");
    await page.waitForFunction(() => Number(document.querySelector('[data-testid="tasks"]').dataset.count) < 700);
    await page.keyboard.press("Escape");
    await page.focus(`${at("tasks-row")}[tabindex="0"]`);
    await page.keyboard.press("End");
    await page.waitForFunction(() => document.activeElement?.dataset?.index === "11999");
    await notHacked(page);
  });

  await check("an agent drains after a question, and a failure of the page harms nothing else", async (visit) => {
    const page = await visit("#/cluster/agents");
    await page.waitForSelector(`${at("agents-row")} >> text=node-00`);
    assert((await page.textContent(at("agents"))).includes(MARKUP), "a hostile name is not shown as it is");
    await page.click(`${at("agents-row")} >> text=node-00`);
    await page.click(at("agent-drain"));
    await page.fill(at("ask-grace"), "30");
    await yes(page);
    const call = await changed(page, (it) => it.body?.type === "DRAIN_AGENT");
    assert(call.body.drain_agent.max_grace_period.nanoseconds === 30e9 && call.body.drain_agent.mark_gone === false, JSON.stringify(call));
    await notHacked(page);
  });

  await check("a framework is torn down only when its name was typed, and its page never links to a script", async (visit) => {
    const page = await visit("#/cluster/frameworks");
    await page.click(`${at("frameworks-row")} >> text=marathon`);
    await page.waitForSelector(at("framework-teardown"));
    assert(!(await page.$('a[href^="javascript"]')), "a link leads to a script");
    await page.click(at("framework-teardown"));
    await yes(page, "marathon");
    await changed(page, (it) => it.path.endsWith("/teardown") && String(it.body).startsWith("frameworkId="));
  });

  await check("a task shows its history in words, its files, and the end of one that grows", async (visit) => {
    const page = await visit("#/cluster/tasks");
    await page.click(`${at("tasks-row")} >> text=web-0`);
    await page.waitForSelector(`${at("task-history")} >> text=running`);
    await page.waitForFunction((text) => document.querySelector('[data-testid="task-history"]').textContent.includes(text.slice(0, 30)), MARKUP);
    await page.click(`${at("file")}[data-name="stdout"]`);
    await page.waitForSelector(`${at("file-tail")} >> text=line 2999`);
    await fetch(`${base}mock-append?text=${encodeURIComponent("\nthe newest line")}`);
    await page.waitForSelector(`${at("file-tail")} >> text=the newest line`);
    assert((await page.evaluate(() => location.hash)).includes("file=stdout"), "the file is not in the address");
    await notHacked(page);
  });

  await check("services are a tree; scaling asks, and says which deployment is in the way", async (visit) => {
    const page = await visit("#/apps");
    await page.waitForSelector(`${at("apps-row")} >> text=huge`);
    await page.click(`${at("apps-row")} >> text="huge"`);
    await page.waitForSelector(at("deployment"));
    await page.click(at("app-scale"));
    await page.fill(at("ask-instances"), "5");
    await page.click(at("ask-yes"));
    await page.waitForSelector(`${at("ask")} >> text=a deployment is in the way`);
    await page.click(at("ask-yes"));
    await changed(page, (it) => it.path.endsWith("/apps/infra/huge") && it.query.force === "true" && it.body.instances === 5);
    await page.click(at("page-queue"));
    await page.waitForSelector(`${at("why")} >> text=3 offers refused: 2 cpus, 1 constraint`);
    await notHacked(page);
  });

  await check("an app's page has health, failure, versions to compare and go back to, and its autoscaling", async (visit) => {
    const page = await visit("#/apps/app/shop/web");
    await page.waitForSelector(at("last-failure"));
    await page.waitForSelector(`${at("autoscaling")} >> text=3 → 5`);
    await page.waitForSelector(at("instances-row"));
    await page.click(at("choose-tab-versions"));
    await page.click(`${at("version")} >> nth=1`);
    await page.waitForSelector(`${at("diff")} .is-removed >> text=0.5`);
    await page.click(at("roll-back"));
    await yes(page);
    await changed(page, (it) => it.path.endsWith("/apps/shop/web") && String(it.body?.version).startsWith("2025-12"));
    await notHacked(page);
  });

  await check("the editor shows what is broken, where the API complains, and sends what is right", async (visit) => {
    const page = await visit("#/apps");
    await page.click(at("app-new"));
    await page.waitForSelector(at("editor"));
    await page.fill(at("editor"), '{\n  "id": "/made/here",\n  "cmd": \n}');
    await page.waitForFunction(() => /^Line [34]:/.test(document.querySelector('[data-testid="editor-words"]').textContent));
    assert(await page.isDisabled(at("editor-save")), "what is no JSON can be sent");
    await page.fill(at("editor"), '{\n  "id": "/made/here",\n  "cmd": "sleep 1",\n  "instances": -1\n}');
    await page.click(at("editor-save"));
    await page.waitForSelector(at("field-errors"));
    await page.waitForFunction(() => document.querySelector('[data-testid="editor-words"]').textContent.startsWith("Line 4: /instances"));
    await page.fill(at("editor"), '{\n  "id": "/made/here",\n  "cmd": "sleep 1",\n  "instances": 1\n}');
    await page.click(at("editor-save"));
    await page.waitForFunction(() => location.hash === "#/apps/app/made/here");
    await page.waitForSelector(`${at("page-title")} >> text=here`);
    await notHacked(page);
  });

  await check("what is taken out of a definition is gone, and nothing that is not there is asked for", async (visit) => {
    const page = await visit("#/apps/app/shop/cart");
    const missing = [];
    page.on("response", (response) => response.status() >= 400 && missing.push(`${response.status()} ${response.url()}`));
    await page.waitForSelector(at("app-edit"));
    await page.reload();
    await page.waitForSelector("text=Let it follow the load");
    await page.click(at("app-edit"));
    await page.waitForSelector(at("editor"));
    await page.fill(at("editor"), '{\n  "id": "/shop/cart",\n  "cmd": "sleep 2"\n}');
    await page.click(at("editor-save"));
    await changed(page, (it) => it.method === "PUT" && it.path.endsWith("/apps/shop/cart") && it.query.partialUpdate === "false" && it.body.cmd === "sleep 2");
    await page.evaluate(() => (location.hash = "#/apps/app/shop/jobs"));
    await page.waitForSelector(`${at("last-failure")} >> text=exited with status 4`);
    await page.waitForSelector(`${at("instances-row")} >> text=pending`);
    await page.reload();
    await page.waitForSelector(`${at("last-failure")} >> text=exited with status 4`);
    assert(missing.length === 0, missing.join(", "));
    await notHacked(page);
  });

  await check("a question is closed when its page is left", async (visit) => {
    const page = await visit("#/apps/app/infra/huge");
    await page.click(at("app-scale"));
    await page.fill(at("ask-instances"), "5");
    await page.click(at("ask-yes"));
    await page.waitForSelector(`${at("ask")} >> text=a deployment is in the way`);
    await page.evaluate(() => (location.hash = "#/apps/app/shop/web"));
    await page.waitForSelector(at("ask"), { state: "detached" });
    await page.click(at("choose-tab-versions"));
  });

  await check("services follow the event stream, also after it was cut", async (visit) => {
    const page = await visit("#/apps");
    await page.waitForSelector(`${at("apps-row")} >> text=web`);
    const make = (id) => fetch(`${base}api/v1/marathon/v2/apps`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id, instances: 1 }) });
    await make("/born");
    await page.waitForSelector(`${at("apps-row")} >> text=born`, { timeout: 5_000 });
    await control("down");
    await page.waitForSelector(`${at("connection-state")}:not([data-state="live"])`);
    await control("up");
    await page.waitForSelector(`${at("connection-state")}[data-state="live"]`, { timeout: 30_000 });
    await make("/reborn");
    await page.waitForSelector(`${at("apps-row")} >> text=reborn`, { timeout: 10_000 });
  });

  await check("odd definitions break no page", async (visit) => {
    const page = await visit("#/apps/app/odd");
    await page.waitForSelector(`${at("page-title")} >> text=odd`);
    await page.click(at("choose-tab-configuration"));
    await page.waitForSelector(at("definition"));
    assert(!(await page.$(at("page-broken"))), "the page is broken");
    await page.evaluate(() => (location.hash = "#/apps/app/none"));
    await page.waitForSelector(`${at("missing")} >> text=does not exist`);
    await notHacked(page);
  });

  await check("a conflict shows both sides and is decided; a migration says who is still connected", async (visit) => {
    const page = await visit("#/zookeeper");
    await page.click(`${at("links-row")} >> text=old-to-new`);
    await page.waitForSelector(`${at("lag-chart")}[data-points="3"]`, { timeout: 10_000 });
    await page.click(at("choose-tab-conflicts"));
    await page.click(`${at("conflict")}[data-path="/app/config"]`);
    await page.waitForSelector(`${at("side-b")} >> text=right`);
    await page.click(at("resolve-b"));
    const decision = await changed(page, (it) => it.path.endsWith("/conflicts/7/resolve"));
    assert(decision.body.choice === "b" && decision.body.expect.a_mzxid === 5 && decision.body.expect.b_mzxid === 6, JSON.stringify(decision));
    await page.waitForFunction(() => document.querySelectorAll('[data-testid="conflict"]').length === 1);
    await page.click(at("choose-tab-verification"));
    await page.waitForSelector(`${at("verification-state")} >> text=1 znodes differ`);
    await page.click(at("choose-tab-migration"));
    await page.waitForSelector(`${at("phases")}[data-phase="drain"]`);
    assert((await page.textContent(at("holders"))).includes("old-1:2181"), "nobody says who is connected");
    await page.click(at("migration-complete"));
    await yes(page, "old-to-new");
    await changed(page, (it) => it.path.endsWith("/migrations/old-to-new/complete"));
    await notHacked(page);
  });
}

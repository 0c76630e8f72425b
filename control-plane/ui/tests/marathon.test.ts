import { afterEach, beforeEach, expect, it, vi } from "vitest";

let asked: string[] = [];
/** What is answered, by method and path; anything else is not there. */
let answers: Record<string, unknown> = {};

beforeEach(() => {
  asked = [];
  answers = {};
  vi.resetModules();
  vi.stubGlobal("window", { location: { hash: "#/apps/app/a", href: "http://test/" } });
  vi.stubGlobal("history", { replaceState: () => undefined, pushState: () => undefined });
  vi.stubGlobal("fetch", async (url: URL, { method }: { method: string }) => {
    const path = `${url.pathname}${url.search}`.replace("/api/v1/marathon/v2/", "");
    asked.push(`${method} ${path}`);
    const answer = answers[`${method} ${path}`];
    return answer === undefined ? new Response('{"message":"not there"}', { status: 404 }) : new Response(JSON.stringify(answer));
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
});

const signal = new AbortController().signal;

it("an edited definition of an app replaces the whole of it", async () => {
  const { save } = await import("../src/api/marathon");
  answers = { "PUT apps/shop/web?partialUpdate=false": {}, "PUT apps/shop/web?partialUpdate=false&force=true": {}, "PUT pods/pod": {}, "POST apps": {} };
  await save({ id: "/shop/web", cmd: "x" }, false, false);
  await save({ id: "/shop/web", cmd: "x" }, false, true);
  await save({ id: "/pod", containers: [{}] }, false, false);
  await save({ id: "/new", cmd: "x" }, true, false);
  expect(asked).toEqual(Object.keys(answers));
});

it("a change of the number of instances changes nothing else", async () => {
  const { scale } = await import("../src/api/marathon");
  const { appOf } = await import("../src/model/services");
  answers = { "PUT apps/a": {} };
  await scale(appOf({ id: "/a" }), 3, false);
  expect(asked).toEqual(["PUT apps/a"]);
});

it("apps and pods are asked for where they are, also before the tree was seen", async () => {
  const { fetchApp, fetchTree } = await import("../src/api/marathon");
  answers = {
    "GET groups/shop?embed=group.pods": { id: "/shop", pods: [{ id: "/shop/pod", spec: { containers: [] } }] },
    "GET pods/shop/pod::status": { id: "/shop/pod", spec: {}, terminationHistory: [{ terminatedAt: "2026-01-01T00:00:00.000Z", containers: [{ containerId: "t", lastKnownState: "TASK_FAILED", termination: { exitCode: 4, message: "boom" } }] }] },
    "GET apps/shop/web": { app: { id: "/shop/web" } },
  };
  const pod = await fetchApp("/shop/pod", signal);
  expect([pod.app.kind, pod.failure?.message, pod.failure?.state]).toEqual(["pod", "boom", "TASK_FAILED"]);
  expect((await fetchApp("/shop/web", signal)).app.kind).toBe("app");
  expect(asked).toEqual(["GET groups/shop?embed=group.pods", "GET pods/shop/pod::status", "GET groups/shop?embed=group.pods", "GET apps/shop/web"]);
  asked = [];
  await fetchApp("/shop/pod", signal);
  await fetchApp("/shop/web", signal);
  expect(asked).toEqual(["GET pods/shop/pod::status", "GET apps/shop/web"]);
  // What is gone may come back as something else.
  delete answers["GET pods/shop/pod::status"];
  await expect(fetchApp("/shop/pod", signal)).rejects.toThrow();
  answers["GET groups/shop?embed=group.pods"] = { id: "/shop", pods: [] };
  answers["GET apps/shop/pod"] = { app: { id: "/shop/pod" } };
  expect((await fetchApp("/shop/pod", signal)).app.kind).toBe("app");
  const tree = "GET groups?embed=group.groups&embed=group.apps&embed=group.pods&embed=group.apps.counts&embed=group.apps.deployments";
  answers = { [tree]: { id: "/", pods: [{ id: "/solo", spec: {} }] }, "GET pods/solo::status": { id: "/solo", spec: {} } };
  asked = [];
  await fetchTree(signal);
  await fetchApp("/solo", signal);
  expect(asked).toEqual(Object.keys(answers));
});

it("only apps of the list are asked for their autoscaling", async () => {
  const { fetchAutoscaling, setAutoscaling } = await import("../src/api/marathon");
  const policy = { appId: "/a", policy: { min: 1 } };
  answers = { "GET autoscale": { apps: [] }, "GET apps/a/autoscale": policy, "PUT apps/a/autoscale": policy };
  expect(await fetchAutoscaling("/a", signal)).toBeNull();
  expect(asked).toEqual(["GET autoscale"]);
  // The scheduler has not come to it yet.
  await setAutoscaling("/a", { min: 1 });
  expect((await fetchAutoscaling("/a", signal))?.app).toBe("/a");
  answers["GET autoscale"] = { apps: [policy] };
  expect((await fetchAutoscaling("/a", signal))?.app).toBe("/a");
  answers["GET autoscale"] = { apps: [] };
  expect(await fetchAutoscaling("/a", signal)).toBeNull();
  // A scheduler that knows no such thing.
  answers = {};
  expect(await fetchAutoscaling("/a", signal)).toBeNull();
});

it("a question ends when its page is left, and stays when only a filter changes", async () => {
  const { adoptPlace, go, question, setParams } = await import("../src/state/shell");
  const ask = () => (question.value = { title: "t", text: "", action: "a", run: async () => undefined });
  ask();
  setParams({ q: "x" });
  adoptPlace("#/apps/app/a?tab=versions");
  expect(question.value).not.toBeNull();
  adoptPlace("#/apps/app/b");
  expect(question.value).toBeNull();
  ask();
  go("apps");
  expect(question.value).toBeNull();
});

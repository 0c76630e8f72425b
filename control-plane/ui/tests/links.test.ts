import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

vi.mock("../src/graph/scene", () => ({ hasWebGl: () => true, GraphScene: class {} }));

let asked: string[] = [];

beforeEach(() => {
  asked = [];
  vi.resetModules();
  vi.stubGlobal("window", { location: { hash: "", href: "http://test/" }, matchMedia: () => ({ matches: false }), addEventListener: () => undefined });
  vi.stubGlobal("fetch", async (url: URL) => {
    asked.push(decodeURIComponent(url.pathname));
    const isThere = url.pathname.includes(encodeURIComponent("web.10;f;<mesos_task>"));
    return { ok: isThere, status: isThere ? 200 : 404, text: async () => "", json: async () => ({ node: {} }) };
  });
});

afterEach(() => vi.unstubAllGlobals());

describe("the way from a task to the map", () => {
  it("leads to that task of that framework and to no other", async () => {
    const { findTask } = await import("../src/state/links");
    expect(await findTask("f", "web.10")).toEqual({ view: "tasks", id: "web.10;f;<mesos_task>" });
    // The id of another one begins with it, and another framework has one of the same id.
    expect([await findTask("f", "web.1"), await findTask("g", "web.10")]).toEqual([null, null]);
    expect(asked).toHaveLength(3);
    expect(asked[0]).toBe("/api/topology/tasks/web.10;f;<mesos_task>");
  });
});

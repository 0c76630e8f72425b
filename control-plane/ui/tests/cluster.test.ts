import { describe, expect, it } from "vitest";
import { agentOf, frameworkOf, machinesOf, offersOf, roleOf, sandboxPaths, taskKind, taskOf } from "../src/model/cluster";
import { filterOf, searchable } from "../src/model/filter";
import { fileEntry } from "../src/api/mesos";
import { NONSENSE } from "./nonsense";
import { begin, earlier, next, PIECE, whole, withoutRest } from "../src/model/logtail";

describe("a cluster", () => {
  it("is read from what the master says", () => {
    const agent = agentOf({
      id: "m-S0",
      hostname: "node-1",
      pid: "slave(1)@10.0.0.1:5051",
      active: true,
      attributes: { rack: "r1" },
      resources: { cpus: 8, mem: 1024, disk: 10, gpus: 0, ports: "[1-2]" },
      used_resources: { cpus: 2 },
      TASK_RUNNING: 3,
      TASK_FAILED: 1,
      TASK_LOST: 1,
      registered_time: 100.5,
    });
    expect(agent).toMatchObject({ address: "10.0.0.1:5051", state: "active", registered: 100_500, seen: 100_500, ports: "[1-2]" });
    expect(agent.tasks).toEqual({ running: 3, waiting: 0, failed: 2, finished: 0, unreachable: 0 });
    expect(agentOf({ deactivated: true }).state).toBe("deactivated");
    expect(agentOf({ active: false }).state).toBe("away");
    expect(agentOf({ deactivated: true, drain_info: { state: "DRAINING", config: { mark_gone: true, max_grace_period: { nanoseconds: 5e9 } } } })).toMatchObject({
      state: "draining",
      drain: { state: "DRAINING", markGone: true, grace: "5 s" },
    });
  });

  it("survives nonsense in every place", () => {
    for (const value of NONSENSE) {
      const object = { ...(typeof value === "object" && value !== null ? value : {}) } as Record<string, unknown>;
      const stuffed = Object.fromEntries(["id", "name", "statuses", "resources", "labels", "container", "framework_info", "attributes", "drain_info", "quota", "offers", "reserved_resources"].map((key) => [key, value]));
      for (const it of [object, stuffed]) {
        expect(() => [agentOf(it), frameworkOf(it, undefined, false), taskOf(it), roleOf(it), fileEntry(it)]).not.toThrow();
      }
      expect(() => [offersOf(value), offersOf([value]), machinesOf(value, value), machinesOf({}, { windows: [value, { machine_ids: [value] }] })]).not.toThrow();
    }
  });

  it("knows what is offered to whom", () => {
    const scalar = (name: string, value: number) => ({ name, type: "SCALAR", scalar: { value } });
    const ports = { name: "ports", type: "RANGES", ranges: { range: [{ begin: 1, end: 2 }, { begin: 5, end: 5 }] } };
    const offer = { id: { value: "o" }, agent_id: { value: "s" }, allocation_info: { role: "web" }, resources: [scalar("cpus", 1), scalar("cpus", 0.5), scalar("mem", 64), ports] };
    const [found] = offersOf([{ framework_info: { id: { value: "f" }, name: "marathon" }, offers: [offer] }]);
    expect(found).toMatchObject({ id: "o", frameworkId: "f", frameworkName: "marathon", agentId: "s", role: "web", ports: "[1-2, 5-5]" });
    expect(found?.resources).toMatchObject({ cpus: 1.5, mem: 64, disk: 0 });
  });

  it("never links to a script", () => {
    const of = (url: string) => frameworkOf({ framework_info: { webui_url: url } }, undefined, false).webui;
    expect(of("http://host:1234/")).toBe("http://host:1234/");
    for (const bad of ["javascript:alert(1)", " java\nscript:alert(1)", "data:text/html,x", "//evil", "ftp://x"]) expect(of(bad)).toBeNull();
  });

  it("knows where a task is and what became of it", () => {
    const task = taskOf({
      id: "t",
      framework_id: "f",
      executor_id: "",
      state: "TASK_RUNNING",
      statuses: [
        { state: "TASK_STARTING", timestamp: 1 },
        { state: "TASK_RUNNING", timestamp: 2, healthy: false, container_status: { container_id: { value: "inner", parent: { value: "outer" } }, network_infos: [{ ip_addresses: [{ ip_address: "10.1.1.1" }] }] } },
      ],
    });
    expect(task).toMatchObject({ containers: ["inner", "outer"], addresses: ["10.1.1.1"], started: 2_000, healthy: false, kind: "active" });
    expect(sandboxPaths(task)).toEqual(["/frameworks/f/executors/t/runs/latest"]);
    expect(sandboxPaths({ ...task, executorId: "e" })[0]).toBe("/frameworks/f/executors/e/tasks/t");
    expect(["TASK_FAILED", "TASK_UNREACHABLE", "TASK_STAGING", "TASK_NEW_KIND"].map(taskKind)).toEqual(["completed", "unreachable", "active", "active"]);
  });

  it("follows no circle of containers for ever", () => {
    const circle: Record<string, unknown> = { value: "a" };
    circle["parent"] = circle;
    expect(taskOf({ statuses: [{ container_status: { container_id: circle } }] }).containers).toHaveLength(16);
  });

  it("tells which machines are planned to be down, draining and down", () => {
    const id = (hostname: string) => ({ hostname });
    const schedule = { windows: [{ machine_ids: [id("a"), id("b"), id("c")], unavailability: { start: { nanoseconds: 2e9 }, duration: { nanoseconds: 3e9 } } }] };
    const machines = machinesOf({ down_machines: [id("a")], draining_machines: [{ id: id("b") }] }, schedule);
    expect(machines.map((it) => [it.hostname, it.state, it.from, it.seconds])).toEqual([["a", "down", 2_000, 3], ["b", "draining", 2_000, 3], ["c", "planned", 2_000, 3]]);
  });
});

describe("the filter of a table", () => {
  const row = searchable({ name: "Shop.Web", state: "running", address: "10.0.0.1:80" });
  const passes = (query: string) => filterOf(query)?.(row) ?? true;
  it("wants every word and none of those with a minus", () => {
    expect(["", "web", "WEB run", "name:shop", "state:run -failed", "10.0.0.1:80", "-name:other"].map(passes)).toEqual([true, true, true, true, true, true, true]);
    expect(["nothing", "name:running", "-web", "web -running"].map(passes)).toEqual([false, false, false, false]);
  });
});

describe("the end of a file", () => {
  it("is read by pieces, and again when the file was cut", () => {
    expect(begin(10)).toEqual({ from: 0, to: 0, size: 10 });
    expect(begin(200_000)).toEqual({ from: 200_000 - 65_536, to: 200_000 - 65_536, size: 200_000 });
    const tail = { from: 0, to: 100, size: 100 };
    expect(next(tail, 100)).toEqual({ kind: "wait" });
    expect(next(tail, 90)).toEqual({ kind: "restart" });
    expect(next(tail, 100 + 2 * PIECE)).toEqual({ kind: "read", offset: 100, length: PIECE });
    expect(earlier(tail)).toBeNull();
    expect(earlier({ ...tail, from: 70_000 })).toEqual({ offset: 70_000 - PIECE, length: PIECE });
  });

  it("is shown whole, wherever its pieces end", async () => {
    const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
    const reading = (file: Uint8Array) => async (offset: number, length: number): Promise<string> =>
      new TextDecoder("utf-8", { ignoreBOM: true }).decode(file.slice(offset, offset + length));
    const written = "aé€😀b€é😀".repeat(3);
    const file = bytesOf(written);
    for (let length = 4; length < 12; length++) {
      let at = 0;
      let shown = "";
      while (at < file.length) {
        const piece = await whole(reading(file), at, Math.min(length, file.length - at));
        expect(piece.length).toBeGreaterThan(0);
        shown += piece.text;
        at += piece.length;
      }
      expect(shown).toBe(written);
    }
    // What is only half written comes later.
    const half = bytesOf("x€").slice(0, 3);
    expect(await whole(reading(half), 0, 3)).toEqual({ text: "x", length: 1 });
    expect(await whole(reading(half), 1, 2)).toEqual({ text: "", length: 0 });
    expect(await whole(reading(bytesOf("x€")), 1, 3)).toEqual({ text: "€", length: 3 });
    // What is no text is shown as far as it is.
    const other = Uint8Array.of(0xe9, 0xe9, 0xe9, 0xe9, 0xe9);
    expect((await whole(reading(other), 0, 5)).length).toBe(5);
    // The rest of a character at the begin belongs to the piece before, which ends with its first bytes.
    for (let from = 1; from < file.length - 4; from++) {
      const { text, bytes } = withoutRest(await reading(file)(from, file.length - from));
      expect((await reading(file)(0, from + bytes)) + text).toBe(written);
    }
  });
});

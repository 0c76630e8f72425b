import { describe, expect, it } from "vitest";
import { apiError } from "../src/api/http";
import { kindOf } from "../src/api/marathon";
import { autoscalingOf } from "../src/model/autoscale";
import { diffLines, hunks } from "../src/model/diff";
import { lineOf, pathParts, syntaxProblem } from "../src/model/jsontext";
import { appOf, appState, appsBelow, definitionOf, deploymentOf, groupAt, groupOf, healthCounts, instanceOf, podFailureOf, podInstanceOf, podOf, queueItemOf, whyNotPlaced } from "../src/model/services";
import { NONSENSE } from "./nonsense";

describe("apps and groups", () => {
  const root = groupOf({
    id: "/",
    apps: [{ id: "/solo", instances: 1, cpus: 1, mem: 10, tasksRunning: 1 }],
    groups: [{ id: "/shop", groups: [], apps: [{ id: "/shop/web", instances: 3, cpus: 0.5, mem: 100, tasksRunning: 2, tasksHealthy: 1, tasksUnhealthy: 1 }], pods: [{ id: "/shop/pod", spec: { scaling: { instances: 2 }, containers: [{ resources: { cpus: 1, mem: 5 } }] }, instances: [{ status: "STABLE" }] }] }],
  });
  it("are a tree with sums", () => {
    expect(root.size).toBe(3);
    expect(groupAt(root, "/shop")?.apps.map((it) => it.id)).toEqual(["/shop/pod", "/shop/web"]);
    expect(groupAt(root, "/none")).toBeNull();
    expect(appsBelow(root).map((it) => it.id)).toEqual(["/shop/pod", "/shop/web", "/solo"]);
    expect(root.health).toEqual({ healthy: 2, unhealthy: 1, running: 1, staged: 0, missing: 2, over: 0, wanted: 6 });
    expect(root.cpus).toBe(1 + 1.5 + 2);
  });
  it("stand as their instances do", () => {
    const app = (fields: Record<string, unknown>) => appOf({ id: "/a", instances: 1, ...fields });
    const waiting = (delay: number) => [queueItemOf({ app: { id: "/a" }, count: 1, delay: { timeLeftSeconds: delay, overdue: delay === 0 } })];
    expect(appState(app({ tasksRunning: 1 }), [])).toBe("running");
    expect(appState(app({ tasksRunning: 1, tasksUnhealthy: 1 }), [])).toBe("unhealthy");
    expect(appState(app({ instances: 0 }), [])).toBe("suspended");
    expect(appState(app({}), waiting(0))).toBe("waiting");
    expect(appState(app({}), waiting(5))).toBe("delayed");
    expect(appState(app({ deployments: [{ id: "d" }] }), [])).toBe("deploying");
  });
  it("count what is missing and what is too much", () => {
    expect(healthCounts({ staged: 1, running: 1, healthy: 1, unhealthy: 0, wanted: 4 })).toMatchObject({ missing: 2, over: 0 });
    expect(healthCounts({ staged: 0, running: 3, healthy: 0, unhealthy: 0, wanted: 1 })).toMatchObject({ running: 3, missing: 0, over: 2 });
  });
  it("wait when they are pods that ended and are to be launched again, and say how they ended", () => {
    const instance = { id: "pod.instance-1", status: "PENDING", agentHostname: "h", containers: [{ name: "one", status: "TASK_FAILED", termination: { exitCode: 4, message: "exited with 4" } }, { name: "two", status: "TASK_KILLED" }] };
    const status = {
      id: "/pod",
      spec: { scaling: { instances: 1 }, containers: [] },
      instances: [instance],
      terminationHistory: [{ instanceID: "pod.instance-1", terminatedAt: "2026-01-01T00:00:00.000Z", message: "m", containers: [{ containerId: "t2", lastKnownState: "TASK_KILLED" }, { containerId: "t1", lastKnownState: "TASK_FAILED", termination: { message: "exited with 4" } }] }],
    };
    expect(podOf(status).health).toMatchObject({ staged: 0, missing: 1 });
    expect(appState(podOf(status), [queueItemOf({ pod: { id: "/pod" }, count: 1, delay: { timeLeftSeconds: 0, overdue: true } })])).toBe("waiting");
    expect(podInstanceOf(instance)).toMatchObject({ state: "PENDING", cause: "one: exited with 4", host: "h" });
    expect(podFailureOf(status)).toMatchObject({ message: "exited with 4", state: "TASK_FAILED", taskId: "t1", host: "h" });
    expect(podFailureOf({ terminationHistory: [] })).toBeNull();
  });
  it("survive nonsense in every place, and groups without end", () => {
    for (const value of NONSENSE) {
      const object = { ...(typeof value === "object" && value !== null ? value : {}) } as Record<string, unknown>;
      const stuffed = Object.fromEntries(["id", "apps", "groups", "pods", "container", "labels", "deployments", "healthCheckResults", "ports", "spec", "instances", "app", "delay", "processedOffersSummary", "lastUnusedOffers", "currentActions", "terminationHistory", "containers"].map((key) => [key, value]));
      for (const it of [object, stuffed]) {
        expect(() => [groupOf(it), appOf(it), podOf(it), instanceOf(it), podInstanceOf(it), podFailureOf(it), deploymentOf(it), queueItemOf(it), definitionOf(it), whyNotPlaced(queueItemOf(it))]).not.toThrow();
      }
    }
    const endless: Record<string, unknown> = { id: "/x" };
    endless["groups"] = [endless];
    expect(() => groupOf(endless)).not.toThrow();
  });
});

describe("why an instance is not placed", () => {
  const item = (last: [string, number][], processed = 9, delay = 0) =>
    queueItemOf({
      app: { id: "/a" },
      count: 1,
      delay: { timeLeftSeconds: delay, overdue: false },
      processedOffersSummary: { processedOffersCount: processed, rejectSummaryLastOffers: last.map(([reason, declined]) => ({ reason, declined, processed: 3 })) },
    });
  it("is said in a sentence", () => {
    expect(whyNotPlaced(item([["InsufficientCpus", 2], ["UnfulfilledConstraint", 1], ["InsufficientDisk", 0]]))).toBe("3 offers refused: 2 cpus, 1 constraint");
    expect(whyNotPlaced(item([["SomethingNew", 1]]))).toBe("1 offer refused: 1 something new");
    expect(whyNotPlaced(item([], 0))).toBe("no offer came yet");
    expect(whyNotPlaced(item([], 4, 12))).toBe("tried again in 12 s, because it failed before");
  });
});

describe("a definition under somebody's hands", () => {
  const source = '{\n  "id": "/a",\n  "container": {\n    "docker": {\n      "image": "x"\n    }\n  },\n  "ports": [\n    1,\n    { "port": -1 }\n  ]\n}';
  it("has a line for every field that the API complains about", () => {
    expect(["/id", "/container/docker/image", "container.docker.image", "/ports(1)/port", "/ports(0)", "ports[1].port", "/container/docker/none", "/none", ""].map((path) => lineOf(source, path))).toEqual([2, 5, 5, 10, 9, 10, 4, 0, 1]);
    expect(pathParts("/portDefinitions(0)/port")).toEqual(["portDefinitions", 0, "port"]);
  });
  it("is broken somewhere, or not", () => {
    expect(syntaxProblem(source)).toBeNull();
    const problem = (text: string) => {
      const found = syntaxProblem(text);
      return found === null ? null : `${found.line}: ${found.message}`;
    };
    expect(problem('{\n "a": 1,\n "b": }\n')).toBe("3: A value is expected here.");
    expect(problem('{\n "a": 1\n "b": 2}')).toBe("3: A comma or } is expected here.");
    expect(problem('{\n "a": [1,\n 2}')).toBe("3: A comma or ] is expected here.");
    expect(problem('{\n a: 1}')).toBe("2: A name in quotes or } is expected here.");
    expect(problem('{"a": 1,\n}')).toBe("2: A name in quotes is expected here.");
    expect(problem('{"a": "x\ny"}')).toBe("1: A text that has no end, or a character that must be escaped.");
    expect(problem('{"a": 01}')).toBe("1: A comma or } is expected here.");
    expect(problem("{}\n{}")).toBe("2: Nothing may follow here.");
    expect(problem('{\n"a": [\n\n')).toBe("2: It ends too early: a value or ] is expected here.");
    expect(problem("")).toBe("1: It ends too early: a value is expected here.");
    expect(problem('[1e5, -0.5, "\\u00e9", {}, [], null]')).toBeNull();
  });
  it("is read even when it is broken, whatever stands in it", () => {
    for (const text of ["{", "[", '{"a":[{"b":', "}}}}", '"\\', "{".repeat(5_000), '{"a" "b"}']) expect(() => lineOf(text, "/a/b")).not.toThrow();
  });
  it("loses what the API adds, and what says nothing", () => {
    expect(definitionOf({ id: "/a", version: "v", tasksRunning: 1, env: {}, cmd: null, networks: [], labels: { a: "b" }, acceptedResourceRoles: [] })).toEqual({ id: "/a", networks: [], labels: { a: "b" } });
    expect([kindOf({ containers: [] }), kindOf({ apps: [] }), kindOf({ cmd: "x" })]).toEqual(["pods", "groups", "apps"]);
  });
});

describe("a difference", () => {
  const text = (lines: ReturnType<typeof diffLines>) => lines.map((line) => `${line.kind[0] ?? ""}${line.text}`).join(" ");
  it("is the shortest way from one text to the other", () => {
    expect(text(diffLines("a\nb\nc", "a\nx\nc"))).toBe("sa rb ax sc");
    expect(text(diffLines("a\nb\nc\nd", "b\nc\nd\ne"))).toBe("ra sb sc sd ae");
    expect(text(diffLines("", ""))).toBe("s");
    expect(diffLines("x\n".repeat(10_000), "y\n".repeat(10_000)).length).toBeGreaterThan(10_000);
  });
  it("is shown with what is around it", () => {
    const lines = diffLines("1\n2\n3\n4\n5\n6\n7\n8\n9", "1\n2\n3\n4\nx\n6\n7\n8\n9");
    expect(hunks(lines, 1).map((line) => line?.text ?? "…")).toEqual(["…", "4", "5", "x", "6", "…"]);
    expect(hunks(diffLines("a", "a"))).toEqual([null]);
  });
});

describe("autoscaling", () => {
  it("is read as it was decided", () => {
    const found = autoscalingOf({ appId: "/a", origin: "label", policy: { dryRun: true }, decisions: [{ at: "2026-01-01T00:00:00Z", action: "hold", heldBecause: "cooldown", currentInstances: 3, desiredInstances: 5, bounds: { min: 1, max: 9 }, signals: [{ signal: "cpu", target: 0.5, instancesSeen: 2 }], reason: "r" }] });
    expect(found).toMatchObject({ app: "/a", isDryRun: true, decisions: [{ action: "hold", held: "cooldown", current: 3, desired: 5, to: 3, min: 1, max: 9, signals: [{ name: "cpu", average: null, seen: 2, needed: null }] }] });
    for (const value of NONSENSE) expect(() => [autoscalingOf(value), autoscalingOf({ policy: value, decisions: [value] })]).not.toThrow();
  });
});

describe("an error", () => {
  it("is told in the words of the API, whatever its shape", () => {
    expect(apiError(404, "no such thing")).toMatchObject({ status: 404, message: "no such thing" });
    expect(apiError(422, { message: "Object is not valid", details: [{ path: "/instances", errors: ["must be >= 0"] }, { path: "/x", errors: [] }, null, 7] })).toMatchObject({
      message: "Object is not valid",
      fields: [{ path: "/instances", errors: ["must be >= 0"] }],
    });
    expect(apiError(409, { message: "App is locked", deployments: [{ id: "d" }] })).toMatchObject({ deployments: ["d"] });
    for (const value of NONSENSE) expect(apiError(500, value).message).not.toBe("");
  });
});

import { describe, expect, it } from "vitest";
import { dataWords } from "../src/api/zksync";
import { actionsOf, addPoint, changeOf, conflictOf, decadesOf, linkOf, migrationOf, POINTS_MAX, threeWayOf, verificationOf, written, type LagPoint } from "../src/model/sync";
import { NONSENSE } from "./nonsense";

describe("a link", () => {
  const link = linkOf({
    definition: { id: "l", a: { connect: "a:2181" }, b: { connect: "b:2181" }, mode: "a_to_b", strategy: "manual" },
    role: "leading",
    status: { state: "live", mode: "both", pairs: 3, backlog: 2, zxid: { a: 0x1_0000_0002, b: 3 }, connected: { a: true }, counters: { created: { a: 1, b: 2 }, updated: { a: 4 } }, blocked: [["/x", "too large"], 7] },
    lag: { a: { changes: 0 }, b: { changes: 5, p50_ms: 2, p99_ms: 30, max_ms: 31 } },
  });
  it("is read from what the service says", () => {
    expect(link).toMatchObject({ id: "l", mode: "both", strategy: "manual", status: { zxid: { a: "0x100000002", b: "0x3" }, connected: { a: true, b: false }, blocked: [["/x", "too large"]] } });
    expect(written(link.status?.counters ?? {}, "a")).toBe(5);
  });
  it("has a chart that breaks where nothing was changed, and is bounded", () => {
    let points: LagPoint[] = [];
    for (let at = 0; at < POINTS_MAX + 10; at += 1) points = addPoint(points, link, at);
    expect(points).toHaveLength(POINTS_MAX);
    expect(points[0]).toMatchObject({ at: 10, a: null, b: { p50: 2, p99: 30 } });
  });
  it("has an axis that holds all lags", () => {
    expect(decadesOf([])).toEqual([1, 10, 100]);
    expect(decadesOf([2, 30])).toEqual([1, 10, 100]);
    expect(decadesOf([0.3, 2_500])).toEqual([0.1, 1, 10, 100, 1_000, 10_000]);
    expect(decadesOf([Number.NaN, 0, -1])).toEqual([1, 10, 100]);
    expect(decadesOf([1e300])[decadesOf([1e300]).length - 1]).toBe(1e7);
  });
});

describe("a conflict", () => {
  const three = (a: unknown, b: unknown, base: unknown = { a: {}, b: {} }, hash: unknown = "h") => threeWayOf({ conflict: { id: 7, key: "/x", base }, base_hash: hash, a, b });
  it("says what became of each side", () => {
    const it = three({ hash: "h", text: "old" }, { hash: "other", text: "new" });
    expect([changeOf(it, "a"), changeOf(it, "b")]).toEqual(["same", "changed"]);
    expect(changeOf(three(null, { hash: "x" }), "a")).toBe("deleted");
    expect(changeOf(three({ hash: "x" }, null, null, null), "a")).toBe("new");
    expect(changeOf(three({ hash: "x" }, null, null, null), "b")).toBe("absent");
    expect(changeOf(three({ hash: "x" }, null, undefined, null), "a")).toBe("unknown");
  });
  it("shows the base when its data were kept", () => {
    expect(three(null, null).isBaseKept).toBe(false);
    const kept = threeWayOf({ conflict: { id: 7, key: "/x" }, base_hash: "h", base_text: "was", a: null, b: null });
    expect([kept.baseText, kept.isBaseKept]).toEqual(["was", true]);
    const bytes = threeWayOf({ conflict: { id: 7, key: "/x" }, base_hash: "h", base_text: null, base_base64: "/w==", a: null, b: null });
    expect([bytes.baseText, bytes.isBaseKept]).toEqual([null, true]);
  });
  it("keeps data that are no text as such", () => {
    expect([dataWords(null), dataWords({ data: [104, 105] }), dataWords({ data: "x" }), dataWords({ data: [300, -1, "x", null] })].map((it) => typeof it)).toEqual(["string", "string", "string", "string"]);
    expect(dataWords({ data: [], cut: true, unread: true })).toContain("before anybody had read it");
    expect(dataWords({ data: [104, 105] })).toBe("hi");
  });
});

describe("a migration", () => {
  it("offers what its phase allows, and no more", () => {
    expect(actionsOf({ phase: "ready", paused: false })).toEqual(["cutover", "pause", "rollback"]);
    expect(actionsOf({ phase: "ready", paused: true })).toEqual(["resume", "rollback"]);
    expect(actionsOf({ phase: "switch", paused: false })).toEqual(["advance", "pause", "rollback"]);
    expect(actionsOf({ phase: "drain", paused: false })).toEqual(["complete", "pause", "rollback"]);
    expect(actionsOf({ phase: "rollback_sync", paused: false })).toEqual(["pause"]);
    expect(actionsOf({ phase: "rollback_switch", paused: false })).toEqual(["advance", "pause", "rollback"]);
    expect(actionsOf({ phase: "complete", paused: false })).toEqual([]);
  });
});

describe("nonsense", () => {
  it("breaks nothing", () => {
    for (const value of NONSENSE) {
      const object = { ...(typeof value === "object" && value !== null ? value : {}) } as Record<string, unknown>;
      const stuffed = Object.fromEntries(["definition", "status", "lag", "conflict", "a", "b", "found", "excluded", "counters", "migration", "holders", "progress", "preparation", "history"].map((key) => [key, value]));
      for (const it of [object, stuffed]) expect(() => [linkOf(it), linkOf({ status: it, lag: it }), conflictOf(it), threeWayOf(it), verificationOf(it), migrationOf(it)]).not.toThrow();
      expect(() => [threeWayOf(value), verificationOf(value), migrationOf(value)]).not.toThrow();
    }
  });
});

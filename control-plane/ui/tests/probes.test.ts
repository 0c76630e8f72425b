import { expect, it } from "vitest";
import type { DepartedProbe, Probe, ProbeName } from "../src/api/types";
import { absence, departure, departures } from "../src/model/probes";

const NOW = Date.parse("2026-01-01T12:00:00Z");
const left = (id: string, hostname: string, reason = "lost"): DepartedProbe => ({ id, hostname, reason, leftAt: "2026-01-01T11:59:42Z" });
const own = (id: string, hostname: string): Probe => ({ id, hostname, lastSeen: "2026-01-01T11:59:55Z" }) as Probe;
const old = (id: string, hostname: string): ProbeName => ({ id, hostname, version: "1.13.2" });
const ids = (list: readonly DepartedProbe[]): string[] => list.map((probe) => probe.id);

it("tells each host that nobody watches, by what left last", () => {
  expect(ids(departures([left("c", "web"), left("b", "db"), left("a", "web")], [], []))).toEqual(["c", "b"]);
});

it("does not tell of a host that is watched again", () => {
  expect(departures([left("a", "web"), left("b", "db")], [own("a", "web"), own("new", "db")], [])).toEqual([]);
  expect(ids(departures([left("a", "web"), left("b", "db")], [own("new", "db")], []))).toEqual(["a"]);
});

it("tells of a probe of ours that is gone although one of Weave Scope is there, and not of each start of such a one", () => {
  const present = [old("scope-2", "web")];
  expect(ids(departures([left("a", "web"), left("scope-1", "web", "silent")], [], present))).toEqual(["a"]);
  expect(departures([left("scope-1", "web", "silent")], [], present)).toEqual([]);
  expect(departures([left("scope-2", "web", "silent")], [], present)).toEqual([]);
});

it("says how, when and why a probe left", () => {
  expect(departure(left("a", "web"), NOW)).toMatch(/^was lost at 2026-01-01 \d\d:59:42 \(18s ago\): the connection/);
  expect(departure(left("a", "web", "goodbye"), NOW)).toContain("stopped in good order");
  expect(departure(left("a", "web", "silent"), NOW)).toContain("no report");
  expect(departure(left("a", "web", "something else"), NOW)).toContain("(something else)");
  expect(departure({ ...left("a", "web"), leftAt: "" }, NOW)).toContain("was lost");
  expect(absence(own("a", "web"), NOW)).toContain("5s ago");
});

import { expect, test } from "vitest";
import {
  ago,
  bytes,
  compactNumber,
  datetime,
  duration,
  groupedInteger,
  metadataValue,
  metricValue,
  microseconds,
  middleEllipsis,
  shortCount,
  shortPath,
  truncate,
} from "../src/model/format";

test("bytes are shown in the largest unit that keeps them readable", () => {
  expect([0, 999, 1_000, 1_536, 1_048_576, 20 * 1024 ** 3, 999.5 * 1024 ** 2].map(bytes)).toEqual(["0 B", "999 B", "0.98 KB", "1.5 KB", "1 MB", "20 GB", "0.98 GB"]);
  expect(bytes(Number.NaN)).toBe("–");
});

test("numbers keep three significant places at most", () => {
  expect([0, 1.257, 12.345, 123.456, 0.004].map(compactNumber)).toEqual(["0", "1.26", "12.3", "123", "0"]);
  expect(groupedInteger(1_234_567)).toBe("1,234,567");
  expect([999, 1_240, 12_400, 1_240_000].map(shortCount)).toEqual(["999", "1.2k", "12k", "1.2M"]);
});

test("durations name their two largest units", () => {
  expect([0, 8, 60, 312, 3_600, 100_000, 1_834_211].map(duration)).toEqual(["0s", "8s", "1m", "5m 12s", "1h", "1d 3h", "21d 5h"]);
  expect(duration(-1)).toBe("–");
  // A unit that is zero is not skipped over: one hour and five seconds is about one hour.
  expect(duration(3_605)).toBe("1h");
});

test("latencies go from microseconds to seconds", () => {
  expect([0, 850, 1_234, 45_600, 2_400_000].map(microseconds)).toEqual(["0 µs", "850 µs", "1.23 ms", "45.6 ms", "2.4 s"]);
});

test("metrics are shown in their format", () => {
  expect(metricValue({ value: 1.25, format: "percent" })).toBe("1.25%");
  expect(metricValue({ value: 14_502_912, format: "filesize" })).toBe("13.8 MB");
  expect(metricValue({ value: 1_024, format: "integer" })).toBe("1,024");
  expect(metricValue({ value: 1.4 })).toBe("1.4");
  expect(metricValue({ value: 0, format: "percent", valueEmpty: true })).toBe("–");
});

test("metadata is shown by its data type, and as it came when it cannot be read so", () => {
  const now = Date.parse("2026-01-02T00:00:00Z");
  expect(metadataValue({ value: "4711", dataType: "number" }, now)).toBe("4711");
  expect(metadataValue({ value: "n/a", dataType: "number" }, now)).toBe("n/a");
  expect(metadataValue({ value: "7265", dataType: "duration" }, now)).toBe("2h 1m");
  expect(metadataValue({ value: "", dataType: "duration" }, now)).toBe("");
  expect(metadataValue({ value: "10.0.0.1", dataType: "ip" }, now)).toBe("10.0.0.1");
  expect(metadataValue({ value: "soon", dataType: "datetime" }, now)).toBe("soon");
  expect(datetime("2026-01-01T00:00:00Z", now)).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(1d ago\)$/);
});

test("ages are for people", () => {
  expect([ago(1_000, 1_900), ago(0, 12_000), ago(Number.NaN, 0)]).toEqual(["just now", "12s ago", "never"]);
});

test("long texts are cut where it hurts least", () => {
  expect([truncate("abcdef", 3), truncate("abc", 3), truncate("abc", 0), truncate("abc", undefined)]).toEqual(["abc…", "abc", "abc", "abc"]);
  expect(middleEllipsis("abcdefghij", 5)).toBe("ab…ij");
  expect(middleEllipsis("abc", 5)).toBe("abc");
  expect(shortPath("/usr/bin/curl", 20)).toBe("/usr/bin/curl");
  expect(shortPath("/root/.rustup/toolchains/stable-x86_64/bin/rustc", 20)).toBe("…/bin/rustc");
  expect(shortPath("/opt/a-very-long-name-of-a-program", 12).length).toBe(12);
});

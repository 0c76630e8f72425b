import { describe, expect, it } from "vitest";
import { fileName, inOrder, LineBuffer, LINES_MAX, matching, windowKind, withoutEscapes } from "../src/model/controls";

describe("controls", () => {
  it("are shown by rank", () => {
    const control = (id: string, rank: number) => ({ probeId: "p", nodeId: "n", id, human: id, icon: "", rank });
    expect(inOrder([control("b", 7), control("a", 1), control("c", 3)]).map((it) => it.id)).toEqual(["a", "c", "b"]);
  });

  it("open a terminal, unless there is only something to read", () => {
    expect(windowKind("docker_exec_container", true)).toBe("terminal");
    expect(windowKind("docker_attach_container", false)).toBe("terminal");
    expect(windowKind("kubernetes_get_logs", false)).toBe("text");
    expect(windowKind("some-plugin~console", false)).toBe("terminal");
  });
});

describe("lines", () => {
  it("are put together however the text was cut", () => {
    const text = "one\ntwo\n\nthree\nhalf";
    for (let size = 1; size <= text.length; size += 1) {
      const buffer = new LineBuffer();
      for (let at = 0; at < text.length; at += size) buffer.append(text.slice(at, at + size));
      expect(buffer.lines).toEqual(["one", "two", "", "three", "half"]);
    }
  });

  it("are dropped when there are too many, the oldest first", () => {
    const buffer = new LineBuffer();
    for (let line = 0; line < LINES_MAX + 5; line += 1) buffer.append(`${line}\n`);
    expect([buffer.lines.length, buffer.dropped, buffer.lines[0]]).toEqual([LINES_MAX, 5, "5"]);
  });

  it("are found by their text and shown without colours", () => {
    expect(matching(["GET /a", "post /b", "get /c"], "get").map((it) => it.number)).toEqual([0, 2]);
    expect(withoutEscapes("\u001b[31mred\u001b[0m\r")).toBe("red");
    expect(fileName("Logs: shop/web 1")).toBe("Logs-shop-web-1.txt");
  });
});

// Small line drawings on a 24 × 24 grid: the same in the graph and in the panels.

export type IconName = "process" | "container" | "host" | "group";

/** SVG path data by name. */
export const ICON_PATHS: Readonly<Record<IconName, string>> = {
  process: "M5 7l5 5-5 5M13 17h6",
  container: "M12 3l8 4.5v9L12 21l-8-4.5v-9L12 3zM4 7.5l8 4.5 8-4.5M12 12v9",
  host: "M4 5h16v5H4zM4 14h16v5H4zM8 7.5h.01M8 16.5h.01",
  group: "M8 8h11v11H8zM5 15V5h10",
};

export const ICONS: Readonly<Record<IconName, Path2D>> = Object.fromEntries(
  Object.entries(ICON_PATHS).map(([name, path]) => [name, typeof Path2D === "undefined" ? null : new Path2D(path)]),
) as unknown as Record<IconName, Path2D>;

/** What a shape stands for. */
export function iconOf(shape: string | undefined): IconName | null {
  switch (shape) {
    case "square":
      return "process";
    case "hexagon":
      return "container";
    case "circle":
      return "host";
    // A cloud says it all.
    case "cloud":
    case undefined:
      return null;
    default:
      return "group";
  }
}

import { ICON_PATHS, iconOf } from "../graph/icons";
import { rankColor } from "../model/color";
import { theme } from "../state/store";

const UI_PATHS = {
  search: "M11 4a7 7 0 1 0 0 14a7 7 0 1 0 0-14M16.2 16.2L21 21",
  sun: "M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8M12 2v2M12 20v2M4.2 4.2l1.4 1.4M18.4 18.4l1.4 1.4M2 12h2M20 12h2M4.2 19.8l1.4-1.4M18.4 5.6l1.4-1.4",
  moon: "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z",
  clock: "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M12 7v5.500l3.500 2",
  pause: "M8 5v14M16 5v14",
  play: "M7 4.5v15l12-7.5z",
  help: "M9 9a3 3 0 1 1 4.2 2.75c-.8.4-1.2 1-1.2 1.85V14M12 17.5h.01M12 2.5a9.5 9.5 0 1 0 0 19a9.5 9.5 0 1 0 0-19",
  close: "M6 6l12 12M18 6L6 18",
  back: "M15 5l-7 7 7 7",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  arrange: "M4 12a8 8 0 0 1 13.7-5.6L20 9M20 4v5h-5M20 12a8 8 0 0 1-13.7 5.6L4 15M4 20v-5h5",
  graph: "M6 4.5a2 2 0 1 0 0 4a2 2 0 1 0 0-4M18 7.5a2 2 0 1 0 0 4a2 2 0 1 0 0-4M8 16.5a2 2 0 1 0 0 4a2 2 0 1 0 0-4M7.9 7.2l8.2 1.8M16.6 11l-7 6M6.4 8.4l1.2 8.2",
  table: "M4 5h16v14H4zM4 10h16M4 14.5h16M10 10v9",
  probe: "M4 13h3l2.5-7 4 13 2.5-9 1.5 3H20",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  check: "M5 13l4.5 4.5L19 7",
  external: "M14 4h6v6M20 4l-9 9M18 14v6H4V6h6",
  warning: "M12 4L2.5 20h19L12 4zM12 10v4.5M12 17.3h.01",
  arrowIn: "M19 5L7 17M7 9v8h8",
  arrowOut: "M5 19L17 7M9 7h8v8",
  filter: "M4 5h16l-6 7.5V19l-4-2v-4.5z",
  stop: "M6 6h12v12H6z",
  restart: "M20 12a8 8 0 1 1-2.3-5.6L20 9M20 4v5h-5",
  terminal: "M3 5h18v14H3zM7 9.5l3 2.5-3 2.5M12.5 15H17",
  screen: "M3 4h18v12H3zM9 20h6M12 16v4",
  trash: "M5 7h14M9.5 7V4.5h5V7M7 7l1 13h8l1-13M10.500 11v5.500M13.500 11v5.500",
  bolt: "M13 2.500L5 14h6l-1 7.500L18 10h-6z",
  text: "M6 3h8l4 4v14H6zM14 3v4h4M9 12h6M9 16h6",
  toggle: "M8 7h8a5 5 0 0 1 0 10H8A5 5 0 0 1 8 7zM16 9.500a2.500 2.500 0 1 0 0 5a2.500 2.500 0 1 0 0-5",
  cluster: "M4 4h16v6H4zM4 14h16v6H4zM7.500 7h.01M7.500 17h.01M11 7h5M11 17h5",
  services: "M12 3l8 4.500v9L12 21l-8-4.500v-9zM12 12l8-4.500M12 12v9M12 12L4 7.500",
  sync: "M4 8h13l-3.500-3.500M20 16H7l3.500 3.500",
  down: "M12 4v11M7 10.500l5 5 5-5M5 20h14",
  link: "M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7l-1 1M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7l1-1",
} as const;

export type UiIcon = keyof typeof UI_PATHS;

export function Icon({ name, size = 16 }: { name: UiIcon; size?: number }) {
  return (
    <svg class="icon" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true">
      <path d={UI_PATHS[name]} />
    </svg>
  );
}

const OUTLINES: Readonly<Record<string, string>> = {
  circle: "M12 2.5a9.5 9.5 0 1 0 0 19a9.5 9.5 0 1 0 0-19z",
  square: "M6.5 3h11A3.5 3.5 0 0 1 21 6.500v11a3.500 3.500 0 0 1-3.500 3.500h-11A3.500 3.500 0 0 1 3 17.500v-11A3.500 3.500 0 0 1 6.500 3z",
  hexagon: "M11 2.600a2 2 0 0 1 2 0l7.200 4.150a2 2 0 0 1 1 1.730v7.040a2 2 0 0 1-1 1.730L13 21.400a2 2 0 0 1-2 0l-7.200-4.150a2 2 0 0 1-1-1.730V8.480a2 2 0 0 1 1-1.730z",
  cloud: "M7 19a5 5 0 0 1-.6-9.960A6 6 0 0 1 17.900 10.100A4.500 4.500 0 0 1 17.500 19z",
};

/** A node's shape and colour, small. */
export function NodeGlyph({ node, size = 18 }: { node: { rank: string; shape?: string; pseudo?: boolean; stack?: boolean }; size?: number }) {
  const color = rankColor(node.rank, node.pseudo === true, theme.value);
  const outline = OUTLINES[node.shape ?? "circle"] ?? OUTLINES["hexagon"];
  const icon = size >= 26 ? iconOf(node.shape) : null;
  return (
    <svg class="glyph" width={size} height={size} viewBox="0 0 24 24" aria-hidden="true">
      {node.stack && <path d={outline} fill="none" stroke={color} stroke-width="1.4" opacity="0.5" transform="translate(3.2 -2.2) scale(.88)" />}
      <path d={outline} fill={color} fill-opacity="0.18" stroke={color} stroke-width="2" transform={node.stack ? "translate(0 3) scale(.86)" : undefined} />
      {icon && (
        <path d={ICON_PATHS[icon]} fill="none" stroke={color} stroke-width="2.2" stroke-linecap="round" transform="translate(7.200 7.200) scale(.4)" />
      )}
    </svg>
  );
}

// Colours of nodes. A rank keeps its colour over sessions and users, so it is a pure function of the text.

export type Theme = "dark" | "light";

/** Hues that stay apart for most eyes; yellow-greens are left out because they vanish on white. */
const HUES = [212, 168, 262, 28, 190, 330, 140, 300, 14, 232, 46, 350, 200, 280, 156, 318] as const;

function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  return value >>> 0;
}

/** Colour of a node by its rank; what is outside of the watched world is grey. */
export function rankColor(rank: string, pseudo: boolean, theme: Theme): string {
  if (pseudo) return theme === "dark" ? "#8696ad" : "#64748b";
  const value = hash(rank);
  const hue = HUES[value % HUES.length] ?? 212;
  const step = ((value >>> 8) % 3) - 1;
  return theme === "dark" ? hsl(hue, 72, 66 + step * 5) : hsl(hue, 66, 42 + step * 4);
}

/**
 * Colour of a level between 0 and 1. Shares of a known whole go from calm over busy to hot; amounts that are only compared with each other
 * keep one hue, because the largest is not bad by being the largest.
 */
export function heatColor(level: number, theme: Theme, isShareOfWhole = true): string {
  const at = Math.min(1, Math.max(0, level));
  if (!isShareOfWhole) return theme === "dark" ? hsl(222, 74, 52 + 14 * at) : hsl(222, 76, 66 - 18 * at);
  const hue = at < 0.55 ? 172 - (172 - 40) * Math.max(0, (at - 0.2) / 0.35) : 40 - 37 * ((at - 0.55) / 0.45);
  return theme === "dark" ? hsl(hue, 66, 52) : hsl(hue, 70, 45);
}

/** `#rrggbb` from hue, saturation and lightness. */
export function hsl(hue: number, saturation: number, lightness: number): string {
  const s = saturation / 100;
  const l = lightness / 100;
  const channel = (n: number): string => {
    const k = (n + hue / 30) % 12;
    const value = l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return Math.round(value * 255)
      .toString(16)
      .padStart(2, "0");
  };
  return `#${channel(0)}${channel(8)}${channel(4)}`;
}

/** Mixes two `#rrggbb`; 0 is the first. */
export function mix(first: string, second: string, share: number): string {
  const part = (color: string, at: number): number => Number.parseInt(color.slice(at, at + 2), 16);
  return `#${[1, 3, 5]
    .map((at) =>
      Math.round(part(first, at) * (1 - share) + part(second, at) * share)
        .toString(16)
        .padStart(2, "0"),
    )
    .join("")}`;
}

// Where in the app somebody is, as the URL's hash says it: which section, and which page of it.

export type Section = "map" | "cluster" | "apps" | "zookeeper";

export interface Place {
  section: Section;
  /** Segments below the section, decoded. */
  path: readonly string[];
  params: Readonly<Record<string, string>>;
}

/** `apps` and not `services`: a view of the map has that name, and bookmarks of it stay good. */
const SECTIONS: readonly Section[] = ["cluster", "apps", "zookeeper"];

/** `#/cluster/tasks?q=web`. The map writes its own hash. */
export function encodePlace(place: Place): string {
  const path = [place.section, ...place.path].map(encodeURIComponent).join("/");
  const query = new URLSearchParams(Object.entries(place.params).filter(([, value]) => value !== "")).toString();
  return `#/${path}${query ? `?${query}` : ""}`;
}

/** Everything that names no section is the map's. */
export function decodePlace(hash: string): Place {
  const match = /^#\/([^?]*)(?:\?(.*))?$/.exec(hash);
  const [first, ...rest] = (match?.[1] ?? "").split("/").map(decode);
  const section = SECTIONS.find((name) => name === first);
  if (section === undefined) return { section: "map", path: [], params: {} };
  return { section, path: rest.filter((part) => part !== ""), params: Object.fromEntries(new URLSearchParams(match?.[2] ?? "")) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

import { go, hrefOf, place, services } from "../state/shell";
import type { Section } from "../model/place";
import { Icon, type UiIcon } from "./icons";

export const SECTIONS: readonly { section: Section; name: string; icon: UiIcon }[] = [
  { section: "map", name: "Map", icon: "graph" },
  { section: "cluster", name: "Cluster", icon: "cluster" },
  { section: "apps", name: "Services", icon: "services" },
  { section: "zookeeper", name: "ZooKeeper", icon: "sync" },
];

/** Where each section was left, so that coming back finds it as it was. */
const left = new Map<Section, { path: readonly string[]; params: Readonly<Record<string, string>> }>();

export function goToSection(section: Section): void {
  const current = place.peek();
  left.set(current.section, { path: current.path, params: current.params });
  // From within a section its own name leads to its first page.
  const to = current.section === section ? undefined : left.get(section);
  go(section, to?.path, to?.params);
}

function isOff(section: Section): boolean {
  const known = services.value;
  if (known === null) return false;
  return (section === "cluster" && !known.master.runs) || (section === "apps" && !known.scheduler.runs) || (section === "zookeeper" && !known.zksync.runs);
}

/** The sections of the app. */
export function Rail() {
  const current = place.value.section;
  return (
    <nav class="rail" aria-label="Sections">
      {SECTIONS.map(({ section, name, icon }, index) => (
        <a
          key={section}
          href={hrefOf(section)}
          class={isOff(section) ? "rail-link is-off" : "rail-link"}
          data-testid={`section-${section}`}
          aria-current={section === current ? "page" : undefined}
          title={`${name} (${index + 1})${isOff(section) ? ": does not run in this control plane" : ""}`}
          onClick={(event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
            event.preventDefault();
            goToSection(section);
          }}
        >
          <Icon name={icon} size={20} />
          <span>{name}</span>
          {isOff(section) && <span class="visually-hidden">does not run in this control plane</span>}
        </a>
      ))}
    </nav>
  );
}

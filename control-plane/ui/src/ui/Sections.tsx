import type { FunctionComponent } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useErrorBoundary } from "preact/hooks";
import type { Section } from "../model/place";
import { place } from "../state/shell";
import { Missing } from "./common/pieces";

type Loaded = { default: FunctionComponent };

/** Each section is fetched when it is looked at first. */
const LOADERS: Readonly<Record<Exclude<Section, "map">, () => Promise<Loaded>>> = {
  cluster: () => import("./cluster/ClusterSection"),
  apps: () => import("./services/ServicesSection"),
  zookeeper: () => import("./zookeeper/ZooKeeperSection"),
};

/** The page of the section that is not the map. */
export function SectionPage({ section }: { section: Exclude<Section, "map"> }) {
  const [loaded, setLoaded] = useState<{ section: Section; component: FunctionComponent } | null>(null);
  const [isBroken, setBroken] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const page = place.value.path.join("/");
  useEffect(() => {
    let isWanted = true;
    setBroken(false);
    LOADERS[section]().then(
      ({ default: component }) => isWanted && setLoaded({ section, component }),
      () => isWanted && setBroken(true),
    );
    return () => {
      isWanted = false;
    };
  }, [section]);
  useEffect(() => {
    if (box.current) box.current.scrollTop = 0;
    // What had the focus may be gone with the page before.
    if (document.activeElement === document.body || document.activeElement === null) box.current?.focus({ preventScroll: true });
  }, [section, page]);
  return (
    <div class="section-page" ref={box} tabIndex={-1} data-testid="section-page" data-section={section}>
      {isBroken ? (
        <Missing title="This part of the page cannot be fetched" text="The control plane was perhaps replaced by a newer one. Reload the page." />
      ) : loaded !== null && loaded.section === section ? (
        <Guarded key={`${section} ${page}`} of={loaded.component} />
      ) : null}
    </div>
  );
}

/** A page that fails takes nothing else with it. */
function Guarded({ of: Component }: { of: FunctionComponent }) {
  const [error, reset] = useErrorBoundary((failure: unknown) => console.error(failure));
  if (error === undefined) return <Component />;
  return (
    <div class="empty" data-testid="page-broken">
      <h2>This page is broken</h2>
      <p>{error instanceof Error ? error.message : "It met something that it did not expect."} This is a defect of the page; the rest of it goes on.</p>
      <button type="button" class="primary" onClick={reset}>
        Try again
      </button>
    </div>
  );
}

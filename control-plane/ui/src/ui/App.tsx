import { useEffect } from "preact/hooks";
import * as store from "../state/store";
import { Banner } from "./Banner";
import { Changes } from "./Changes";
import { Details } from "./Details";
import { EmptyState } from "./EmptyState";
import { GraphView } from "./GraphView";
import { Help } from "./Help";
import { Probes } from "./Probes";
import { TableView } from "./TableView";
import { TimeBar } from "./TimeBar";
import { TopBar } from "./TopBar";
import { ViewBar } from "./ViewBar";
import { Windows } from "./Windows";
import { isMapBuilt, place, question, section, setParams, go } from "../state/shell";
import { Dialogs } from "./common/Dialogs";
import { goToSection, Rail, SECTIONS } from "./Rail";
import { SectionPage } from "./Sections";

export function App() {
  useEffect(() => {
    window.addEventListener("keydown", onShortcut);
    return () => window.removeEventListener("keydown", onShortcut);
  }, []);
  const current = section.value;
  const isMap = current === "map";
  const isGraph = store.mode.value === "graph";
  const isSideOpen = store.isProbesOpen.value || store.isChangesOpen.value || store.topPanel.value !== null;
  return (
    <div class="app">
      <a class="skip-link" href="#main" onClick={focusMain}>
        Skip to the content
      </a>
      <TopBar />
      <div class="body">
        <Rail />
        <div class={isSideOpen && isMap ? "content is-beside-panel" : "content"}>
          {isMap && (
            <>
              <ViewBar />
              {store.isTimeOpen.value && <TimeBar />}
              <Banner />
            </>
          )}
          <main id="main" tabIndex={-1} class={isSideOpen && isMap ? "main with-side" : "main"}>
            {isMap && <h1 class="visually-hidden">{headingOfMap()}</h1>}
            {store.canDrawGraph && isMapBuilt.value && <GraphView isVisible={isGraph && isMap} />}
            {isMap && (
              <>
                {!isGraph && <TableView />}
                <EmptyState />
                {store.isProbesOpen.value ? <Probes /> : store.isChangesOpen.value ? <Changes /> : store.topPanel.value !== null ? <Details panel={store.topPanel.value} /> : null}
              </>
            )}
            {current !== "map" && <SectionPage section={current} />}
          </main>
          <Windows />
        </div>
      </div>
      {store.isHelpOpen.value && <Help />}
      <Dialogs />
    </div>
  );
}

/** What the map shows, for those who go by headings. */
function headingOfMap(): string {
  const current = store.view.value;
  if (current === null) return "Map";
  const { tab, description } = current;
  return tab === description ? `Map: ${tab.name}` : `Map: ${tab.name}, ${description.name}`;
}

function focusMain(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function onShortcut(event: KeyboardEvent): void {
  const target = event.target as HTMLElement | null;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target !== null && /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
  // What is typed into a terminal is the terminal's.
  if (target?.closest("[data-terminal]")) return;
  // Behind a question nothing happens.
  if (question.peek() !== null && event.key !== "Escape") return;
  const number = SECTIONS[Number(event.key) - 1];
  if (number !== undefined && /^[1-9]$/.test(event.key)) {
    goToSection(number.section);
    event.preventDefault();
    return;
  }
  if (section.peek() !== "map" && !"?tpEscape/".includes(event.key)) return;
  switch (event.key) {
    case "/": {
      // The map's search box has an ear of its own.
      const box = document.querySelector<HTMLInputElement>("[data-focus-key='/']");
      if (box === null) return;
      box.focus();
      box.select();
      break;
    }
    case "?":
      store.isHelpOpen.value = !store.isHelpOpen.value;
      break;
    case "Escape":
      escape();
      break;
    case "g":
      if (store.canDrawGraph) store.chosenMode.value = "graph";
      break;
    case "l":
      store.chosenMode.value = "table";
      break;
    case "p":
      store.togglePause();
      break;
    case "h":
      store.isTimeOpen.value = !store.isTimeOpen.value;
      break;
    case "t":
      store.toggleTheme();
      break;
    default:
      return;
  }
  event.preventDefault();
}

/** Closes what is on top: help, panel, search. */
function escape(): void {
  if (store.isHelpOpen.value) store.isHelpOpen.value = false;
  else if (question.peek() !== null) question.value = null;
  else if (section.peek() !== "map") leavePage();
  else if (store.isProbesOpen.value) store.isProbesOpen.value = false;
  else if (store.isChangesOpen.value) store.isChangesOpen.value = false;
  else if (store.topPanel.value !== null) store.back();
  else if (store.query.value !== "") store.query.value = "";
}

/** Out of the filter, out of the page, to the list that it belongs to. */
function leavePage(): void {
  const { section: current, path, params } = place.peek();
  if ((params["q"] ?? "") !== "") setParams({ q: "" });
  else if (path.length > 1) go(current, current === "cluster" ? path.slice(0, 1) : []);
}

import { useEvents } from "../../state/events";
import { place, services } from "../../state/shell";
import { sentence } from "../cluster/ClusterSection";
import { Missing } from "../common/pieces";
import { AppPage } from "./AppPage";
import { DeploymentsPage, EventsPage, QueuePage } from "./Deployments";
import { EditorPage } from "./Editor";
import { TreePage } from "./Tree";

/** What used to be Marathon's own pages. */
export default function ServicesSection() {
  const scheduler = services.value?.scheduler;
  if (scheduler !== undefined && !scheduler.runs) {
    return <Missing title="No scheduler runs in this control plane" text={`${sentence(scheduler.detail)} The pages of services are where their scheduler runs.`} testId="section-off" />;
  }
  if (scheduler !== undefined && !scheduler.ready) {
    return <Missing title="The scheduler does not serve yet" text={`${sentence(scheduler.detail)} This page looks again by itself.`} testId="section-off" />;
  }
  return <Pages />;
}

function Pages() {
  useEvents();
  const [page = "tree", ...rest] = place.value.path;
  const id = `/${rest.join("/")}`;
  switch (page) {
    case "tree":
      return <TreePage id="/" />;
    case "group":
      return <TreePage key={id} id={id} />;
    case "app":
      return <AppPage key={id} id={id} />;
    case "edit":
      return <EditorPage key={id} id={id === "/" ? null : id} />;
    case "deployments":
      return <DeploymentsPage />;
    case "queue":
      return <QueuePage />;
    case "events":
      return <EventsPage />;
    default:
      return <Missing title="There is no such page" text={`“${page}” is none of the pages of services.`} />;
  }
}

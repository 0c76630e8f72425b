import { place, services } from "../../state/shell";
import { Missing } from "../common/pieces";
import { AgentPage, AgentsPage } from "./Agents";
import { FrameworkPage, FrameworksPage } from "./Frameworks";
import { MaintenancePage } from "./Maintenance";
import { OffersPage, RolesPage } from "./Roles";
import { ContainerPage, TaskPage } from "./TaskPage";
import { TasksPage } from "./Tasks";

/** What used to be the pages of a Mesos master. */
export default function ClusterSection() {
  const master = services.value?.master;
  if (master !== undefined && !master.runs) {
    return <Missing title="No Mesos master runs in this control plane" text={`${sentence(master.detail)} The pages of a cluster are where its master runs.`} testId="section-off" />;
  }
  if (master !== undefined && !master.ready) {
    return <Missing title="The master does not serve yet" text={`${sentence(master.detail)} This page looks again by itself.`} testId="section-off" />;
  }
  const [page = "agents", id, task] = place.value.path;
  switch (page) {
    case "agents":
      return id === undefined ? <AgentsPage /> : <AgentPage key={id} id={id} />;
    case "frameworks":
      return id === undefined ? <FrameworksPage /> : <FrameworkPage key={id} id={id} />;
    case "tasks":
      return id === undefined || task === undefined ? <TasksPage /> : <TaskPage key={`${id} ${task}`} frameworkId={id} id={task} />;
    case "container":
      return <ContainerPage key={id} id={id ?? ""} />;
    case "roles":
      return <RolesPage />;
    case "offers":
      return <OffersPage />;
    case "maintenance":
      return <MaintenancePage />;
    default:
      return <Missing title="There is no such page" text={`“${page}” is none of the pages of a cluster.`} />;
  }
}

/** With a capital letter and a full stop. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  return `${trimmed.charAt(0).toUpperCase()}${trimmed.slice(1)}${/[.!?]$/.test(trimmed) ? "" : "."}`;
}

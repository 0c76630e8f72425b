#!/usr/bin/env python3
"""Writes the Grafana dashboards from the panel descriptions below: deploy/monitoring/dashboards.py [--check]

With --check nothing is written; it fails when a committed file is not what would be written. Only the standard library is used.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
OWN = 'namespace=~"$namespace"'
# Requests of people and their tools; those of the kubelet and of Prometheus say nothing about them.
ASKED = OWN + ',route!~"health|ready|metrics"'
CANARY = OWN + ',rollouts_pod_template_hash="$canary",route!~"health|ready|metrics"'
STABLE = OWN + ',rollouts_pod_template_hash="$stable",route!~"health|ready|metrics"'


def graph(title, unit, description, *targets, red=None):
    """A graph: targets are (expression, legend); `red` is where the alert's line is drawn."""
    return {"kind": "timeseries", "title": title, "unit": unit, "description": description, "targets": targets, "red": red}


def number(title, unit, description, expression, red=None):
    """One number, red from `red` upwards."""
    return {"kind": "stat", "title": title, "unit": unit, "description": description, "targets": [(expression, "")], "red": red}


def total(name, by=""):
    """Counters and gauges of the master and the scheduler: followers show 0, so the sum is the leader's."""
    return f"sum{f' by ({by})' if by else ''} ({name}{{{OWN}}})"


def rate(name, by="", more=""):
    return f"sum{f' by ({by})' if by else ''} (rate({name}{{{OWN}{more}}}[$__rate_interval]))"


def quantile(part, name, by="le", where=OWN):
    return f"histogram_quantile({part}, sum by ({by}) (rate({name}_bucket{{{where}}}[$__rate_interval])))"


def succeeded(where):
    name = "orchestrator_http_request_duration_seconds_count"
    failed = f'(sum(rate({name}{{{where},status_code=~"5.."}}[$__rate_interval])) or vector(0))'
    return f"1 - {failed} / (sum(rate({name}{{{where}}}[$__rate_interval])) > 0)"


TASKS = ["staging", "starting", "running", "killing", "unreachable"]
ENDS = ["finished", "failed", "killed", "lost", "error", "dropped", "gone"]

MESOS = [
    number("Leaders", "none", "Control planes that lead. Not 1: see the runbook NoLeader.", total("mesos_master_elected")),
    number("Agents active", "none", "Agents that get offers.", total("mesos_master_slaves_active")),
    number("Agents disconnected", "none", "Known agents without a connection.", total("mesos_master_slaves_disconnected"), red=1),
    number("Agents unreachable", "none", "Agents that were given up. See the runbook AgentsUnreachable.", total("mesos_master_slaves_unreachable"), red=1),
    number("Frameworks active", "none", "Frameworks that get offers.", total("mesos_master_frameworks_active")),
    number("Frameworks disconnected", "none", "Frameworks within their failover timeout.", total("mesos_master_frameworks_disconnected"), red=1),
    graph("Tasks that are not over", "none", "By state. A growing number of staging tasks: look at the agents' logs.",
          *[(total(f"mesos_master_tasks_{it}"), it) for it in TASKS]),
    graph("Tasks that ended, per second", "ops", "Failed, lost and error are the ones to look at.",
          *[(rate(f"mesos_master_tasks_{it}"), it) for it in ENDS]),
    graph("Allocated share", "percentunit", "Of what the agents have.",
          *[(f"max(mesos_master_{it}_percent{{{OWN}}})", it) for it in ("cpus", "mem", "disk", "gpus")], red=0.9),
    graph("CPUs", "none", "What there is, and what tasks have.", (total("mesos_master_cpus_total"), "total"), (total("mesos_master_cpus_used"), "used")),
    graph("Memory", "decmbytes", "What there is, and what tasks have.", (total("mesos_master_mem_total"), "total"), (total("mesos_master_mem_used"), "used")),
    graph("Disk", "decmbytes", "What there is, and what tasks have.", (total("mesos_master_disk_total"), "total"), (total("mesos_master_disk_used"), "used")),
    graph("Offers outstanding", "none", "Offers that frameworks hold without an answer.", (total("mesos_master_outstanding_offers"), "offers")),
    graph("Calls of frameworks, per second", "ops", "Many declines and no launches: offers do not fit.",
          (rate("mesos_master_messages_launch_tasks"), "launch"), (rate("mesos_master_messages_decline_offers"), "decline"),
          (rate("mesos_master_messages_kill_task"), "kill"), (rate("mesos_master_messages_revive_offers"), "revive")),
    graph("Status updates, per second", "ops", "Updates that came, and those that were no use.",
          (rate("mesos_master_messages_status_update"), "came"), (rate("mesos_master_invalid_status_updates"), "invalid")),
    graph("Agents registered and removed, per second", "ops", "Removals without registrations: nodes are lost.",
          (rate("mesos_master_slave_registrations"), "registered"), (rate("mesos_master_slave_reregistrations"), "registered again"),
          (rate("mesos_master_slave_removals"), "removed")),
]

MARATHON = [
    number("Connected to the master", "none", "1 while the scheduler has its master.", total("marathon_mesos_connected_gauge")),
    number("Apps", "none", "Apps that are defined.", total("marathon_apps_active_gauge")),
    number("Pods", "none", "Pods that are defined.", total("marathon_pods_active_gauge")),
    number("Groups", "none", "Groups that are defined.", total("marathon_groups_active_gauge")),
    number("Deployments under way", "none", "One that stays: see the runbook DeploymentStuck.", total("marathon_deployments_active_gauge")),
    number("Launches overdue", "none", "Instances that have been launching for longer than the launch timeout.", total("marathon_instances_launch_overdue_gauge"), red=1),
    graph("Instances", "none", "Running and on their way.", (total("marathon_instances_running_gauge"), "running"), (total("marathon_instances_staged_gauge"), "staged")),
    graph("Deployments, per second", "ops", "Begun, and dismissed because another one stood in the way.",
          (rate("marathon_deployments_counter"), "begun"), (rate("marathon_deployments_dismissed_counter"), "dismissed")),
    graph("Offers, per second", "ops", "Incoming offers that are never used: constraints or resources do not fit; ask /v2/queue.",
          (rate("marathon_mesos_offers_incoming_counter"), "incoming"), (rate("marathon_mesos_offers_used_counter"), "used"),
          (rate("marathon_mesos_offers_declined_counter"), "declined")),
    graph("Tasks launched, per second", "ops", "Against failures: an app that is launched over and over.",
          (rate("marathon_tasks_launched_counter"), "launched"), (rate("marathon_mesos_task_updates_task_failed_counter"), "failed"),
          (rate("marathon_mesos_task_updates_task_lost_counter"), "lost")),
    graph("Kills under way", "none", "Kills that were sent and not yet confirmed.",
          (total("marathon_instances_inflight_kills_gauge"), "instances"), (total("marathon_instances_inflight_kill_attempts_gauge"), "attempts")),
    graph("Answers of the API, per second", "ops", "By class.",
          *[(rate(f"marathon_http_responses_{it}xx_rate_meter"), f"{it}xx") for it in (2, 3, 4, 5)]),
    graph("Event streams", "none", "Clients of /v2/events.", (total("marathon_http_event_streams_active_gauge"), "open"),
          (rate("marathon_http_event_streams_dropped_counter"), "dropped per second")),
]

CONTAINERS = [
    number("Containers on the map", "none", "In any state.", f"max(monitoring_app_containers_total{{{OWN}}})"),
    number("Probes connected", "none", "Whose stream is open.", f"sum(monitoring_app_probes_connected{{{OWN}}})"),
    number("Probes that lack capabilities", "none", "See /api/v1/probes for the names.", f"max(orchestrator_probes_lacking_capabilities{{{OWN}}})", red=1),
    number("Completeness", "percentunit", "Share of connection ends seen by the kernels that reached the map.",
           f"sum(orchestrator_probe_ends_reported{{{OWN}}}) / (sum(orchestrator_probe_ends_seen{{{OWN}}}) > 0)"),
    graph("Containers by node", "none", "The ten nodes with most.", ('topk(10, probe_containers)', "{{instance}}")),
    graph("CPU of containers", "none", "Cores, the ten that use most (from cAdvisor).",
          ('topk(10, sum by (namespace, pod, container) (rate(container_cpu_usage_seconds_total{container!=""}[$__rate_interval])))', "{{namespace}}/{{pod}}/{{container}}")),
    graph("Memory of containers", "bytes", "The ten that hold most (from cAdvisor).",
          ('topk(10, sum by (namespace, pod, container) (container_memory_working_set_bytes{container!=""}))', "{{namespace}}/{{pod}}/{{container}}")),
    graph("Network of pods", "Bps", "Received, the ten with most (from cAdvisor).",
          ('topk(10, sum by (namespace, pod) (rate(container_network_receive_bytes_total[$__rate_interval])))', "{{namespace}}/{{pod}}")),
    graph("Restarts in the last hour", "none", "The ten with most (from kube-state-metrics).",
          ('topk(10, increase(kube_pod_container_status_restarts_total[1h]))', "{{namespace}}/{{pod}}/{{container}}")),
    graph("Ended because memory ran out, per second", "ops", "By node; the map says which process.", ('sum by (instance) (rate(probe_oom_kills_total[$__rate_interval]))', "{{instance}}")),
    graph("Flows and processes", "none", "In the tables of all probes.", ("sum(probe_flows)", "flows"), ("sum(probe_processes)", "processes"), ("sum(probe_listeners)", "listeners")),
    graph("Lost by probes, per second", "ops", "Zero is the normal state. See the runbook ProbeLosses.", ('sum by (cause) (rate(probe_lost_total[$__rate_interval]))', "{{cause}}"), red=1),
    graph("Runtimes that do not answer, per second", "ops", "Containers then have no names.", ('sum by (runtime) (rate(probe_runtime_failures_total[$__rate_interval]))', "{{runtime}}")),
    graph("Report lag", "s", "From a report's moment by the node's clock to its receipt; a node with a wrong clock stands out.",
          (quantile(0.5, "orchestrator_report_lag_seconds"), "half"), (quantile(0.99, "orchestrator_report_lag_seconds"), "99 %"), red=5),
    graph("CPU of probes", "percentunit", "Of one core, the ten that use most.", ('topk(10, rate(probe_cpu_seconds_total[$__rate_interval]))', "{{instance}}")),
    graph("Kubernetes collector", "none", "Objects known, by kind.", ("sum by (kind) (probe_kubernetes_objects)", "{{kind}}")),
]

ZOOKEEPER = [
    number("Links not in step", "none", "Links in another state than live.", f'sum(zk_sync_state{{{OWN},state!~"live|snapshot|starting"}})', red=1),
    number("Conflicts that wait", "none", "For an operator. See the runbook ZkConflictsOpen.", f"sum(zk_conflict_open{{{OWN}}})", red=1),
    number("Differences", "none", "Znodes in which the sides differed at the last verification.", f"sum(zk_verify_mismatch{{{OWN}}})", red=1),
    number("Since the last good verification", "s", "", f"time() - min(zk_verify_last_success_timestamp{{{OWN}}} > 0)"),
    graph("State of links", "none", "1 for the state that a link is in.", (f"zk_sync_state{{{OWN}}} == 1", "{{link}}: {{state}}")),
    graph("Phase of migrations", "none", "1 for the phase that a migration is in.", (f"zk_migration_phase{{{OWN}}} == 1", "{{link}}: {{phase}}")),
    graph("Lag", "ms", "99 of 100 changes of the last minute, by direction.", (f"max by (link, direction) (zk_sync_lag_p99_ms{{{OWN}}})", "{{link}} {{direction}}"), red=1000),
    graph("Backlog", "none", "Paths to be looked at, or on their way.", (f"max by (link) (zk_sync_backlog_paths{{{OWN}}})", "{{link}}")),
    graph("Written, per second", "ops", "By direction and operation.", (rate("zk_synced_nodes_total", "link, direction, op"), "{{link}} {{direction}} {{op}}")),
    graph("Changes told, per second", "ops", "By the watches of each side.", (rate("zk_sync_events_total", "link, side"), "{{link}} {{side}}")),
    graph("Conflicts decided, per second", "ops", "By kind and winner.", (rate("zk_conflict_count_total", "link, kind, winner"), "{{link}} {{kind}} {{winner}}"),
          (rate("zk_conflict_ambiguous_total", "link"), "{{link}} ambiguous")),
    graph("What else was counted, per second", "ops", "Among it the changes that were our own and were not copied back.", (rate("zk_sync_counted_total", "link, what"), "{{link}} {{what}}")),
    graph("Znodes", "none", "That both sides have, and that are not copied.", (f"max by (link) (zk_sync_pairs{{{OWN}}})", "{{link}} both"),
          (f"max by (link, reason) (zk_excluded_nodes{{{OWN}}})", "{{link}} not copied: {{reason}}")),
    graph("Transactions", "s", "How long the servers took, 99 of 100.", (quantile(0.99, "zk_sync_transaction_seconds", "le, link, direction"), "{{link}} {{direction}}")),
    graph("Followers in step", "none", "As ZooKeeper's leader says.", ("max(synced_followers)", "followers")),
    graph("Requests outstanding", "none", "At the servers of our ensemble.", ("outstanding_requests", "{{instance}}"), red=10),
    graph("Connections", "none", "To the servers of our ensemble.", ("num_alive_connections", "{{instance}}")),
]

CANARIES = [
    graph("Succeeded", "percentunit", "Requests that the revisions answered themselves. A revision that does not lead answers none: it carries them.",
          (succeeded(CANARY), "canary"), (succeeded(STABLE), "stable"), ("vector(0.95)", "least")),
    graph("P95", "s", "At most 1 s.", (quantile(0.95, "orchestrator_http_request_duration_seconds", where=CANARY), "canary"),
          (quantile(0.95, "orchestrator_http_request_duration_seconds", where=STABLE), "stable"), red=1),
    graph("P99", "s", "At most 2 s.", (quantile(0.99, "orchestrator_http_request_duration_seconds", where=CANARY), "canary"),
          (quantile(0.99, "orchestrator_http_request_duration_seconds", where=STABLE), "stable"), red=2),
    graph("Requests, per second", "reqps", "That the revisions answered themselves.",
          (f"sum by (rollouts_pod_template_hash) (rate(orchestrator_http_request_duration_seconds_count{{{ASKED}}}[$__rate_interval]))", "{{rollouts_pod_template_hash}}")),
    graph("Phase of the rollout", "none", "As Argo Rollouts says.", (f'rollout_info{{{OWN},name="orchestrator-control"}}', "{{phase}}")),
    graph("Replicas", "none", "As Argo Rollouts says.",
          (f'rollout_info_replicas_desired{{{OWN},name="orchestrator-control"}}', "desired"), (f'rollout_info_replicas_updated{{{OWN},name="orchestrator-control"}}', "updated"),
          (f'rollout_info_replicas_available{{{OWN},name="orchestrator-control"}}', "available")),
    graph("Phases of analyses", "none", "Inconclusive pauses, Failed aborts.", (f"sum by (phase) (analysis_run_info{{{OWN}}})", "{{phase}}")),
    graph("Answers of Nginx, per second", "reqps", "By class of the status, canary apart.",
          ('sum by (canary, status) (rate(nginx_ingress_controller_requests{ingress=~"orchestrator-control.*"}[$__rate_interval]))', "{{canary}} {{status}}")),
]

CONTROL_PLANE = [
    number("Ready replicas", "none", "Control planes that answer scrapes.", f"count(orchestrator_build_info{{{OWN}}})"),
    graph("Succeeded", "percentunit", "Requests without 5xx.", (succeeded(ASKED), "all"), ("vector(0.95)", "least")),
    graph("Requests, per second", "reqps", "By status.", (f"sum by (status_code) (rate(orchestrator_http_request_duration_seconds_count{{{ASKED}}}[$__rate_interval]))", "{{status_code}}")),
    graph("Latency", "s", "Until the head of the response was made.", (quantile(0.95, "orchestrator_http_request_duration_seconds", where=ASKED), "P95"),
          (quantile(0.99, "orchestrator_http_request_duration_seconds", where=ASKED), "P99"), red=2),
    graph("Reports, per second", "ops", "Applied, and rejected by reason.", (rate("orchestrator_reports_applied_total"), "applied"), (rate("orchestrator_reports_rejected_total", "reason"), "rejected: {{reason}}")),
    graph("WebSocket clients", "none", "And those refused.", (total("orchestrator_websocket_clients"), "connected"), (rate("orchestrator_websocket_refused_total"), "refused per second")),
    graph("Topology core", "percentunit", "Share of the time that it works.", (f"rate(orchestrator_driver_busy_milliseconds{{{OWN}}}[$__rate_interval]) / 1000", "{{instance}}"), red=0.8),
    graph("Nodes of views", "none", "Filters aside.", (f"max by (view) (monitoring_app_view_nodes{{{OWN}}})", "{{view}}")),
    graph("Edges of views", "none", "Filters aside.", (f"max by (view) (monitoring_app_view_edges{{{OWN}}})", "{{view}}")),
    graph("From a report to its being on the map", "s", "In the topology core.", (quantile(0.5, "orchestrator_report_apply_seconds"), "half"), (quantile(0.99, "orchestrator_report_apply_seconds"), "99 %")),
    graph("Pictures drawn", "s", "How long the pictures of a batch of changes took.", (quantile(0.5, "monitoring_app_render_seconds"), "half"), (quantile(0.99, "monitoring_app_render_seconds"), "99 %")),
    graph("Pushes late", "s", "How much later than due a page was sent its message: slow pages, or a busy control plane.", (quantile(0.5, "monitoring_app_push_seconds"), "half"), (quantile(0.99, "monitoring_app_push_seconds"), "99 %"), red=1),
    graph("Lag of probes", "s", "How old the last report of a probe was when it came, for the share of them that is named, and for the one that lags most.",
          (f"max by (quantile) (monitoring_app_probe_lag_seconds{{{OWN}}})", "{{quantile}}"), (f"max(monitoring_app_probe_lag_worst_seconds{{{OWN}}})", "worst")),
    graph("Probes that want attention", "none", "Connected; those that lack a right, that give up detail to stay within their budget; and those refused, per second.",
          (f"max(monitoring_app_probes_connected{{{OWN}}})", "connected"), (f"max(orchestrator_probes_lacking_capabilities{{{OWN}}})", "lack a right"),
          (f"sum by (level) (orchestrator_probes_overloaded{{{OWN}}})", "give up: {{level}}"), (rate("orchestrator_probe_streams_refused_total", "reason"), "refused: {{reason}}")),
    graph("Lost or refused, per second", "ops", "By what it was. Zero is the normal state.", (f"sum by (what) (rate(monitoring_app_drops{{{OWN}}}[$__rate_interval]))", "{{what}}")),
    graph("Size of reports", "bytes", "Unpacked.", (quantile(0.5, "monitoring_app_report_bytes"), "half"), (quantile(0.99, "monitoring_app_report_bytes"), "99 %")),
    graph("gRPC API", "s", "Calls, 99 of 100.", (quantile(0.99, "monitoring_app_grpc_call_seconds"), "99 %")),
    graph("Open streams", "none", "Of the gRPC API, pipes (terminals and logs), probes.", (total("monitoring_app_grpc_streams"), "gRPC"), (total("orchestrator_pipes"), "pipes"), (total("orchestrator_probe_streams"), "probes")),
    graph("Through pipes", "Bps", "By where it went.", (rate("orchestrator_pipe_bytes_total", "towards"), "{{towards}}")),
    graph("Controls, per second", "ops", "By what became of them.", (rate("orchestrator_controls_total", "outcome"), "{{outcome}}"), (rate("orchestrator_audit_failures_total"), "not written to the audit log")),
    graph("WebSockets ended, per second", "ops", "By reason; not_reading are clients that take nothing.", (rate("orchestrator_websocket_ended_total", "reason"), "{{reason}}")),
    graph("History", "bytes", "On disk.", (f"orchestrator_history_bytes{{{OWN}}}", "{{instance}}")),
    graph("History written", "Bps", "And events that wait for the disk, and were lost on the way there.", (rate("orchestrator_history_written_bytes_total"), "written"),
          (total("orchestrator_history_queue_events"), "events that wait"), (rate("orchestrator_history_events_lost"), "events lost, per second")),
    graph("Defects, per second", "ops", "Each is worth a report.", (rate("orchestrator_http_handler_panics_total"), "requests"), (rate("orchestrator_loop_panics_total", "loop"), "{{loop}}"),
          (rate("orchestrator_store_failures_total"), "store"), (rate("orchestrator_history_failures_total"), "history")),
]

ALL = {
    "mesos-cluster-overview": ("Mesos cluster overview", MESOS),
    "marathon-applications": ("Marathon applications", MARATHON),
    "container-monitoring": ("Container monitoring", CONTAINERS),
    "zookeeper-sync-status": ("ZooKeeper sync status", ZOOKEEPER),
    "canary-deployment": ("Canary deployment", CANARIES),
    "control-plane": ("Control plane", CONTROL_PLANE),
}


def panel(number_of, described, x, y, width, height):
    steps = [{"color": "green", "value": None}]
    if described["red"] is not None:
        steps.append({"color": "red", "value": described["red"]})
    custom = {"thresholdsStyle": {"mode": "line" if described["red"] is not None else "off"}} if described["kind"] == "timeseries" else {}
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {"datasource": source, "expr": expression, "legendFormat": legend, "refId": chr(ord("A") + at)}
        for at, (expression, legend) in enumerate(described["targets"])
    ]
    return {
        "id": number_of,
        "type": described["kind"],
        "title": described["title"],
        "description": described["description"],
        "datasource": source,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": described["unit"], "custom": custom, "thresholds": {"mode": "absolute", "steps": steps}}, "overrides": []},
        "targets": targets,
    }


def variable(name, query):
    return {"name": name, "type": "query", "query": query, "datasource": {"type": "prometheus", "uid": "${datasource}"}, "refresh": 2, "includeAll": False}


def dashboard(uid, title, described):
    panels, y = [], 0
    for kind, width, height in (("stat", 4, 4), ("timeseries", 12, 8)):
        rows = [it for it in described if it["kind"] == kind]
        across = 24 // width
        for at, it in enumerate(rows):
            panels.append(panel(len(panels) + 1, it, at % across * width, y + at // across * height, width, height))
        y += -(-len(rows) // across) * height
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        variable("namespace", "label_values(orchestrator_build_info, namespace)") | {"includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}},
    ]
    if uid == "canary-deployment":
        hashes = "label_values(orchestrator_build_info, rollouts_pod_template_hash)"
        variables += [variable("canary", hashes), variable("stable", hashes)]
    return {
        "id": None,
        "uid": f"orchestrator-{uid}",
        "title": f"Orchestrator: {title}",
        "tags": ["orchestrator"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }


def main():
    stale = []
    for uid, (title, described) in ALL.items():
        text = json.dumps(dashboard(uid, title, described), indent=1, ensure_ascii=False) + "\n"
        # The chart can only have what is in its own directory.
        for directory in (HERE / "dashboards", HERE.parent / "helm/orchestrator/files/dashboards"):
            path = directory / f"{uid}.json"
            if "--check" not in sys.argv:
                path.write_text(text)
            elif not path.exists() or path.read_text() != text:
                stale.append(str(path.relative_to(HERE.parent)))
    if stale:
        sys.exit(f"not what dashboards.py makes: {', '.join(stale)}")


if __name__ == "__main__":
    main()

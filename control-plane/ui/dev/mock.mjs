// A synthetic world that speaks the control plane's API, for work on the page without a control plane.
//
//   node dev/mock.mjs --port 4041 --hosts 3 --services 14 --processes 60 --churn 0.02 --prefix /scope/ --tasks 12000
//
// GET /mock/drop closes all WebSockets; /mock/down and /mock/up refuse and accept everything; /mock/kill?id= removes a node;
// /mock/unwatched and /mock/watched take all probes away and bring them back.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";
import { services as otherServices } from "./mock-services.mjs";

const flags = Object.fromEntries(
  process.argv
    .slice(2)
    .join(" ")
    .split("--")
    .filter(Boolean)
    .map((part) => part.trim().split(/\s+/)),
);
const PORT = Number(flags.port ?? 4041);
const HOSTS = Number(flags.hosts ?? 3);
const SERVICES = Number(flags.services ?? 14);
const REPLICAS = Number(flags.replicas ?? 2);
const PROCESSES = Number(flags.processes ?? 40);
const CHURN = Number(flags.churn ?? 0.05);
const TASKS = Number(flags.tasks ?? 300);
const EMPTY = flags.empty !== undefined;
const PREFIX = flags.prefix ?? "/";
const DIST = process.env.DIST ?? join(fileURLToPath(new URL(".", import.meta.url)), "..", "dist");

let seed = Number(flags.seed ?? 7);
const random = () => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 4294967296;
};
const pick = (list) => list[Math.floor(random() * list.length)];
const hex = (length) => Array.from({ length }, () => Math.floor(random() * 16).toString(16)).join("");

// ---- the world ----

const KINDS = [
  ["edge", "envoyproxy/envoy", "/usr/local/bin/envoy", 443],
  ["frontend", "shop/frontend", "/usr/bin/node", 8080],
  ["cart", "shop/cart", "/app/cart", 7070],
  ["catalogue", "shop/catalogue", "/app/catalogue", 7071],
  ["checkout", "shop/checkout", "/app/checkout", 7072],
  ["payment", "shop/payment", "/usr/bin/java", 7073],
  ["orders", "shop/orders", "/usr/bin/java", 7074],
  ["user", "shop/user", "/app/user", 7075],
  ["redis", "redis", "/usr/local/bin/redis-server", 6379],
  ["postgres", "postgres", "/usr/lib/postgresql/16/bin/postgres", 5432],
  ["rabbitmq", "rabbitmq", "/usr/lib/erlang/bin/beam.smp", 5672],
  ["search", "opensearchproject/opensearch", "/usr/bin/java", 9200],
  ["prometheus", "prom/prometheus", "/bin/prometheus", 9090],
  ["mailer", "shop/mailer", "/usr/bin/python3", 7076],
];
const LINKS = [
  ["edge", "frontend"],
  ["frontend", "cart"],
  ["frontend", "catalogue"],
  ["frontend", "checkout"],
  ["frontend", "user"],
  ["cart", "redis"],
  ["catalogue", "postgres"],
  ["catalogue", "search"],
  ["checkout", "payment"],
  ["checkout", "orders"],
  ["checkout", "cart"],
  ["orders", "postgres"],
  ["orders", "rabbitmq"],
  ["user", "postgres"],
  ["mailer", "rabbitmq"],
  ["prometheus", "frontend"],
  ["prometheus", "cart"],
  ["prometheus", "orders"],
];

const hosts = Array.from({ length: EMPTY ? 0 : HOSTS }, (_, index) => ({ name: ["web-1", "web-2", "db-1", "build-1", "edge-1"][index] ?? `node-${index + 1}` }));
/** @type {Map<string, any>} */
const containers = new Map();
/** @type {Map<string, any>} */
const processes = new Map();
const services = [];
let nextPid = 800;

function addProcess(host, name, container) {
  nextPid += 1 + Math.floor(random() * 40);
  const process = { id: `${host.name};${nextPid}`, pid: nextPid, host, name, container, out: new Set(), cpu: random() ** 5 * 40, memory: random() ** 3 * 1.5e9 + 4e6, sent: 0, received: 0 };
  processes.set(process.id, process);
  return process;
}

function addContainer(service, host, state = "running") {
  const key = hex(64);
  const container = {
    id: `${key};<container>`,
    key,
    name: `${service.name}-${service.instances.length + 1}`,
    image: service.image,
    tag: pick(["1.27.1", "7.2", "latest", "2024.11.3", "v3.1.0"]),
    host,
    state,
    service,
    created: Date.now() - random() * 9e8,
    cpu: random() ** 4 * 50,
    memory: random() ** 2 * 1e9 + 1e7,
    ip: `172.18.${Math.floor(random() * 4)}.${2 + Math.floor(random() * 250)}`,
  };
  containers.set(container.id, container);
  service.instances.push(container);
  if (state === "running") container.process = addProcess(host, service.program, container);
  return container;
}

for (let index = 0; index < SERVICES && hosts.length > 0; index += 1) {
  const [name, image, program, port] = KINDS[index % KINDS.length];
  const round = Math.floor(index / KINDS.length);
  const service = { name: round === 0 ? name : `${name}-${round + 1}`, base: name, round, image, program, port, instances: [] };
  services.push(service);
  const count = Math.max(1, Math.round(REPLICAS * (0.5 + random())));
  for (let replica = 0; replica < count; replica += 1) addContainer(service, pick(hosts));
}
for (let index = 0; index < 3 && hosts.length > 0; index += 1) addContainer(pick(services), pick(hosts), "exited");
const system = ["/usr/lib/systemd/systemd", "/usr/sbin/sshd", "/usr/bin/dockerd", "/usr/bin/containerd", "/usr/sbin/cron", "/usr/bin/node_exporter", "/usr/sbin/chronyd", "/usr/bin/curl", "/usr/bin/bash", "/usr/bin/python3"];
for (let index = 0; index < PROCESSES && hosts.length > 0; index += 1) {
  const process = addProcess(pick(hosts), pick(system), null);
  if (index % 2 === 0 && services.length > 0) {
    const service = pick(services);
    const target = pick(service.instances)?.process;
    if (target) process.out.add(target.id);
  }
}
const internetIn = new Set();
const internetOut = new Set();
function connect() {
  for (const [from, to] of LINKS) {
    for (const service of services.filter((item) => item.base === from)) {
      const target = services.find((item) => item.base === to && item.round === service.round) ?? services.find((item) => item.base === to);
      if (!target) continue;
      for (const source of service.instances) {
        if (!source.process) continue;
        for (const end of target.instances) if (end.process && (source.process.out.has(end.process.id) || random() < 0.75)) source.process.out.add(end.process.id);
      }
    }
  }
  for (const service of services) {
    for (const item of service.instances) {
      if (service.base === "edge" && item.process) internetIn.add(item.process.id);
      if ((service.base === "payment" || service.base === "mailer") && item.process) internetOut.add(item.process.id);
    }
  }
}
connect();

const samples = new Map();
function sample(key, value) {
  const list = samples.get(key) ?? [];
  list.push({ date: new Date().toISOString(), value });
  if (list.length > 60) list.shift();
  samples.set(key, list);
  return list;
}

const wobble = (value, low, high) => Math.min(high, Math.max(low, value * (0.85 + random() * 0.3) + (random() - 0.5) * 0.2));
let tick = 0;
function step() {
  tick += 1;
  for (const item of processes.values()) {
    if (random() < 0.3) item.cpu = wobble(item.cpu, 0, 100);
    if (random() < 0.1) item.memory = wobble(item.memory, 1e6, 4e9);
    item.sent += Math.floor(random() * 40_000 * item.out.size);
    item.received += Math.floor(random() * 90_000 * item.out.size);
  }
  for (const item of containers.values()) {
    if (item.state === "running") item.cpu = wobble(item.cpu, 0, 100);
  }
  if (random() < CHURN * 10 && hosts.length > 0) {
    const curl = addProcess(pick(hosts), pick(["/usr/bin/curl", "/usr/bin/psql", "/usr/bin/git"]), null);
    curl.shortLived = Date.now() + 6_000 + random() * 20_000;
    const target = pick([...containers.values()].filter((item) => item.process))?.process;
    if (target) curl.out.add(target.id);
  }
  for (const item of processes.values()) {
    if (item.shortLived && item.shortLived < Date.now()) processes.delete(item.id);
  }
  if (random() < CHURN && services.length > 0) {
    const service = pick(services);
    if (service.instances.length > 1 && random() < 0.5) {
      const item = service.instances.pop();
      containers.delete(item.id);
      if (item.process) processes.delete(item.process.id);
    } else {
      addContainer(service, pick(hosts));
      connect();
    }
  }
  for (const item of processes.values()) for (const target of item.out) if (!processes.has(target)) item.out.delete(target);
}

// ---- views ----

const metric = (id, label, format, value, max, key) => ({ id, label, format, value: Math.floor(value * 100) / 100, priority: 1, samples: null, min: 0, max, url: "", key });
const seconds = (since) => String(Math.floor((Date.now() - since) / 1000));

function processNode(item, detailed) {
  return {
    id: item.id,
    label: item.name,
    labelMinor: item.container ? `${item.host.name} (${item.container.name}:${item.pid})` : `${item.host.name} (${item.pid})`,
    rank: item.name,
    shape: "square",
    metadata: [
      { id: "pid", label: "PID", value: String(item.pid), priority: 1, dataType: "number" },
      { id: "cmdline", label: "Command", value: `${item.name} --config /etc/${item.name.split("/").pop()}.conf --log-level info`, priority: 2 },
      { id: "ppid", label: "Parent PID", value: "1", priority: 3, dataType: "number" },
      { id: "threads", label: "# Threads", value: String(1 + (item.pid % 40)), priority: 4, dataType: "number" },
    ],
    parents: [...(item.container ? [{ id: item.container.id, label: item.container.name, topologyId: "containers" }] : []), hostParent(item.host)],
    metrics: [
      metric("process_cpu_usage_percent", "CPU", "percent", item.cpu, 400, `${item.id} cpu`),
      metric("process_memory_usage_bytes", "Memory", "filesize", item.memory, 16e9, `${item.id} mem`),
      metric("open_files_count", "Open files", "integer", item.pid % 300, 1024, `${item.id} files`),
    ],
    adjacency: detailed ?? [],
  };
}
const hostParent = (host) => ({ id: `${host.name};<host>`, label: host.name, topologyId: "hosts" });

function containerNode(item) {
  const running = item.state === "running";
  return {
    id: item.id,
    label: item.name,
    labelMinor: item.host.name,
    rank: item.image,
    shape: "hexagon",
    metadata: [
      { id: "docker_image_tag", label: "Image tag", value: item.tag, priority: 1 },
      { id: "docker_image_name", label: "Image name", value: item.image, priority: 2 },
      { id: "docker_container_command", label: "Command", value: item.service.program, priority: 3 },
      { id: "docker_container_state_human", label: "State", value: running ? "Up 2 hours" : "Exited (137) 5 minutes ago", priority: 4 },
      ...(running ? [{ id: "docker_container_uptime", label: "Uptime", value: seconds(item.created), priority: 5, dataType: "duration" }] : []),
      { id: "docker_container_networks", label: "Networks", value: "shop_default", priority: 7 },
      { id: "docker_container_ips", label: "IPs", value: item.ip, priority: 8 },
      { id: "docker_container_ports", label: "Ports", value: `${item.service.port}/tcp`, priority: 9 },
      { id: "docker_container_created", label: "Created", value: new Date(item.created).toISOString(), priority: 10, dataType: "datetime" },
      { id: "docker_container_id", label: "ID", value: item.key, priority: 11, truncate: 12 },
    ],
    parents: [{ id: `${item.image};<container_image>`, label: item.image, topologyId: "containers-by-image" }, hostParent(item.host)],
    metrics: running
      ? [metric("docker_cpu_total_usage", "CPU", "percent", item.cpu, 100, `${item.id} cpu`), metric("docker_memory_usage", "Memory", "filesize", item.memory, 4e9, `${item.id} mem`)]
      : [],
    tables: [
      {
        id: "docker_label_",
        label: "Docker labels",
        type: "property-list",
        columns: null,
        rows: [
          ["com.docker.compose.project", "shop"],
          ["com.docker.compose.service", item.service.name],
          ["org.opencontainers.image.source", `https://git.example.com/${item.image}`],
          ["org.opencontainers.image.revision", item.key.slice(0, 40)],
        ].map(([label, value]) => ({ id: `label_${label}`, entries: { label, value } })),
      },
      {
        id: "docker_env_",
        label: "Environment variables",
        type: "property-list",
        columns: null,
        rows: [["PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], ["LOG_LEVEL", "info"], ["DB_PASSWORD", "***"]].map(([label, value]) => ({ id: `label_${label}`, entries: { label, value } })),
      },
    ],
    adjacency: [],
  };
}

const INTERNET = {
  "in-theinternet": { id: "in-theinternet", label: "The Internet", labelMinor: "Inbound connections", rank: "in-theinternet", shape: "cloud", pseudo: true },
  "out-theinternet": { id: "out-theinternet", label: "The Internet", labelMinor: "Outbound connections", rank: "out-theinternet", shape: "cloud", pseudo: true },
};

/** Groups the process graph by a function of a process; `null` drops it. */
function grouped(keyOf, nodeOf) {
  const nodes = new Map();
  const edges = new Map();
  const put = (key, make) => {
    if (!nodes.has(key)) nodes.set(key, make());
    return key;
  };
  const edge = (from, to) => {
    if (!edges.has(from)) edges.set(from, new Set());
    edges.get(from).add(to);
  };
  for (const item of processes.values()) {
    const key = keyOf(item);
    if (key !== null) put(key, () => nodeOf(key, item));
  }
  for (const item of processes.values()) {
    const from = keyOf(item);
    if (from === null) continue;
    for (const target of item.out) {
      const other = processes.get(target);
      const to = other ? keyOf(other) : null;
      if (to !== null && to !== undefined) edge(from, to);
    }
    if (internetIn.has(item.id)) edge(put("in-theinternet", () => ({ ...INTERNET["in-theinternet"] })), from);
    if (internetOut.has(item.id)) edge(from, put("out-theinternet", () => ({ ...INTERNET["out-theinternet"] })));
  }
  for (const [from, targets] of edges) nodes.get(from).adjacency = [...targets].sort();
  return nodes;
}

const uncontained = (host) => ({ id: `pseudo:uncontained:${host.name}`, label: "Uncontained", labelMinor: host.name, rank: `uncontained:${host.name}`, shape: "square", stack: true, pseudo: true });

function render(view, params) {
  const has = (group, fallback) => params.get(group) ?? ([...params.keys()].length > 0 ? fallback : "");
  let nodes;
  let filtered = 0;
  const drop = (test) => {
    for (const [id, node] of nodes) {
      if (test(node)) {
        nodes.delete(id);
        filtered += 1;
      }
    }
    for (const node of nodes.values()) if (node.adjacency) node.adjacency = node.adjacency.filter((id) => nodes.has(id));
  };
  switch (view) {
    case "processes":
      nodes = grouped((item) => item.id, (_, item) => processNode(item));
      if (has("unconnected", "hide") === "hide") dropUnconnected(drop, nodes);
      break;
    case "processes-by-name":
      nodes = grouped(
        (item) => item.name,
        (key) => ({ id: key, label: key, labelMinor: plural([...processes.values()].filter((item) => item.name === key).length, "process", "processes"), rank: key, shape: "square", stack: true, adjacency: [] }),
      );
      if (has("unconnected", "hide") === "hide") dropUnconnected(drop, nodes);
      break;
    case "containers":
      nodes = grouped((item) => item.container?.id ?? `pseudo:uncontained:${item.host.name}`, (_, item) => (item.container ? containerNode(item.container) : uncontained(item.host)));
      for (const item of containers.values()) if (!nodes.has(item.id)) nodes.set(item.id, containerNode(item));
      containerFilters(drop, has);
      break;
    case "containers-by-image":
      nodes = grouped(
        (item) => (item.container ? `${item.container.image};<container_image>` : `pseudo:uncontained:${item.host.name}`),
        (key, item) =>
          item.container
            ? { id: key, label: item.container.image, labelMinor: plural([...containers.values()].filter((other) => other.image === item.container.image).length, "container", "containers"), rank: item.container.image, shape: "hexagon", stack: true, metadata: [{ id: "container", label: "# Containers", value: "2", dataType: "number" }], adjacency: [] }
            : uncontained(item.host),
      );
      containerFilters(drop, has);
      break;
    case "containers-by-hostname":
      nodes = grouped((item) => item.container?.service.name ?? null, (key, item) => ({ id: key, label: key, labelMinor: "1 container", rank: item.container.image, shape: "hexagon", stack: true, adjacency: [] }));
      break;
    case "hosts":
      nodes = grouped((item) => `${item.host.name};<host>`, (key, item) => hostNode(item.host));
      break;
    default:
      nodes = new Map();
  }
  const list = [...nodes.values()];
  return {
    nodes,
    stats: {
      node_count: list.length,
      nonpseudo_node_count: list.filter((node) => !node.pseudo).length,
      edge_count: list.reduce((sum, node) => sum + (node.adjacency?.length ?? 0), 0),
      filtered_nodes: filtered,
    },
  };
}
const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;
function hostNode(host) {
  return {
    id: `${host.name};<host>`,
    label: host.name,
    labelMinor: "example.com",
    rank: "example.com",
    shape: "circle",
    metadata: [
      { id: "kernel_version", label: "Kernel version", value: "6.8.0-45-generic", priority: 1 },
      { id: "uptime", label: "Uptime", value: "1834211", priority: 2, dataType: "duration" },
      { id: "host_name", label: "Hostname", value: host.name, priority: 11 },
      { id: "os", label: "OS", value: "linux", priority: 12 },
      { id: "local_networks", label: "Local networks", value: "10.0.0.0/24, 172.17.0.0/16, fe80::/64", priority: 13 },
    ],
    metrics: [metric("host_cpu_usage_percent", "CPU", "percent", 18 + random() * 30, 100, `${host.name} cpu`), metric("host_mem_usage_bytes", "Memory", "filesize", 9.1e9 + random() * 4e8, 33e9, `${host.name} mem`), metric("load1", "Load (1m)", "", 1.4 + random(), 2, `${host.name} load`)],
    adjacency: [],
  };
}
function dropUnconnected(drop, nodes) {
  const connected = new Set();
  for (const node of nodes.values()) {
    for (const target of node.adjacency ?? []) {
      if (target === node.id) continue;
      connected.add(node.id);
      connected.add(target);
    }
  }
  drop((node) => !connected.has(node.id));
}
function containerFilters(drop, has) {
  if (has("pseudo", "hide") === "hide") drop((node) => node.pseudo && !node.id.endsWith("theinternet"));
  const stopped = has("stopped", "running");
  const stateOf = (node) => containers.get(node.id)?.state;
  if (stopped === "running") drop((node) => stateOf(node) === "exited");
  if (stopped === "stopped") drop((node) => !node.pseudo && stateOf(node) !== "exited");
  if (has("system", "application") === "system") drop((node) => !node.pseudo && !/prometheus/.test(node.label));
  if (has("system", "application") === "application") drop((node) => /weavescope/.test(node.label));
}

const UNCONNECTED = [{ id: "unconnected", defaultValue: "hide", options: [{ value: "show", label: "Show unconnected" }, { value: "hide", label: "Hide unconnected" }] }];
const CONTAINER_OPTIONS = [
  { id: "system", defaultValue: "application", options: [{ value: "all", label: "All" }, { value: "system", label: "System containers" }, { value: "application", label: "Application containers" }] },
  { id: "stopped", defaultValue: "running", options: [{ value: "stopped", label: "Stopped containers" }, { value: "running", label: "Running containers" }, { value: "both", label: "Both" }] },
  { id: "pseudo", defaultValue: "hide", options: [{ value: "show", label: "Show uncontained" }, { value: "hide", label: "Hide uncontained" }] },
];
function viewList(params) {
  const entry = (id, name, rank, hide, options, subs) => ({
    name,
    rank,
    hide_if_empty: hide,
    options,
    url: `/api/topology/${id}`,
    ...(subs ? { sub_topologies: subs } : {}),
    stats: isUnwatched ? { node_count: 0, nonpseudo_node_count: 0, edge_count: 0, filtered_nodes: 0 } : render(id, params).stats,
  });
  return [
    entry("containers", "Containers", 2, false, CONTAINER_OPTIONS, [entry("containers-by-hostname", "by DNS name", 0, false, CONTAINER_OPTIONS), entry("containers-by-image", "by image", 0, false, CONTAINER_OPTIONS)]),
    entry("hosts", "Hosts", 4, false, null, [entry("weave", "Weave Net", 0, false, null)]),
    entry("pods", "Pods", 3, true, []),
    entry("processes", "Processes", 1, true, UNCONNECTED, [entry("processes-by-name", "by name", 0, true, UNCONNECTED)]),
    entry("swarm-services", "Services", 3, true, []),
    entry("ecs-tasks", "Tasks", 3, true, []),
  ];
}

function details(view, id, params) {
  const all = render(view, new URLSearchParams());
  const node = all.nodes.get(id);
  if (!node) return null;
  const metrics = (node.metrics ?? []).map(({ key, ...row }) => ({ ...row, samples: samples.get(key) ?? [] }));
  const shown = render(view, params).nodes;
  shown.set(id, node);
  const row = (other, port) => ({
    id: `${other.id}---${port}`,
    nodeId: other.id,
    label: other.label,
    labelMinor: other.labelMinor,
    metadata: [{ id: "port", label: "", value: String(port) }, { id: "count", label: "", value: String(1 + (other.id.length % 9)) }],
  });
  const columns = [{ id: "port", label: "Port", defaultSort: false, dataType: "number" }, { id: "count", label: "Count", defaultSort: true, dataType: "number" }];
  const inbound = [...shown.values()].filter((other) => other.adjacency?.includes(id)).map((other) => row(other, containers.get(id)?.service.port ?? 8080));
  const outbound = (node.adjacency ?? []).map((target) => shown.get(target)).filter(Boolean).map((other) => row(other, containers.get(other.id)?.service.port ?? 443));
  const children = [];
  const own = [...processes.values()].filter((item) => (view === "containers" ? item.container?.id === id : view === "hosts" ? `${item.host.name};<host>` === id : view === "containers-by-image" ? `${item.container?.image};<container_image>` === id : view === "processes-by-name" ? item.name === id : false));
  const ownContainers = [...containers.values()].filter((item) => (view === "hosts" ? `${item.host.name};<host>` === id : view === "containers-by-image" ? `${item.image};<container_image>` === id : false));
  if (ownContainers.length > 0) {
    children.push({ id: "", label: "Containers", topologyId: "containers", columns: [{ id: "docker_cpu_total_usage", label: "CPU", defaultSort: false, dataType: "number" }, { id: "docker_memory_usage", label: "Memory", defaultSort: false, dataType: "number" }], nodes: ownContainers.map(containerNode) });
  }
  if (own.length > 0) {
    children.push({ id: "", label: "Processes", topologyId: "processes", columns: [{ id: "pid", label: "PID", defaultSort: false, dataType: "number" }, { id: "process_cpu_usage_percent", label: "CPU", defaultSort: false, dataType: "number" }, { id: "process_memory_usage_bytes", label: "Memory", defaultSort: false, dataType: "number" }], nodes: own.map((item) => processNode(item)) });
  }
  return {
    node: {
      ...node,
      metrics,
      controls: controlsOf(id),
      children,
      connections: [
        { id: "incoming-connections", topologyId: view, label: "Inbound", columns, connections: inbound },
        { id: "outgoing-connections", topologyId: view, label: "Outbound", columns, connections: outbound },
      ],
    },
  };
}

function flows(params) {
  const chosen = [...processes.values()].filter((item) => {
    if (params.get("container")) return item.container?.key === params.get("container");
    return item.host.name === params.get("host") && String(item.pid) === params.get("pid");
  });
  const list = [];
  for (const item of chosen) {
    for (const target of item.out) {
      const other = processes.get(target);
      list.push(flow(item, other, "client"));
    }
    for (const other of processes.values()) if (other.out.has(item.id)) list.push(flow(item, other, "server"));
    if (internetOut.has(item.id)) list.push({ ...flow(item, item, "client"), serverAddress: "2a02:26f0:3500:11::1724:9d12", serverPort: 443, peers: ["out-theinternet"], failed: 3 });
  }
  const limit = Number(params.get("limit") ?? 100);
  return { flows: list.slice(0, limit), next: list.length > limit ? limit : null };
}
function flow(item, other, direction) {
  const client = direction === "client" ? item : other;
  const server = direction === "client" ? other : item;
  const opened = 3 + (item.pid * 7 + other.pid) % 400;
  return {
    host: item.host.name,
    pid: item.pid,
    processStartTime: 1_000_000,
    processName: item.name,
    containerId: item.container?.key ?? null,
    cgroupId: 1,
    direction,
    protocol: "tcp",
    clientAddress: client.container?.ip ?? "10.0.0.5",
    serverAddress: server.container?.ip ?? "10.0.0.6",
    serverPort: server.container?.service.port ?? 8080,
    originalServer: null,
    origin: "event",
    opened,
    closed: opened - (opened % 6),
    failed: opened % 97 === 0 ? 2 : 0,
    active: opened % 6,
    bytesSent: item.sent + opened * 900,
    bytesReceived: item.received + opened * 2100,
    retransmits: opened % 13 === 0 ? opened % 29 : 0,
    rttMicrosAverage: 180 + (opened % 50) * 17,
    rttMicrosMax: 2_400 + (opened % 50) * 170,
    firstSeen: new Date(Date.now() - 3e6).toISOString(),
    lastActive: new Date().toISOString(),
    peers: [other.id],
  };
}

function probeList() {
  return hosts.map((host, index) => {
    const low = index === 1;
    return {
      id: hex(16),
      hostname: host.name,
      version: "0.1.0",
      connected: index !== 4,
      lastSeen: new Date(Date.now() - (index === 4 ? 80_000 : 400)).toISOString(),
      sequence: tick,
      capture: {
        rung: low ? 3 : 1,
        description: low ? "netlink and /proc polling" : "eBPF: tracepoints and fentry with BTF",
        reason: low ? "the kernel refused to load programs: permission denied (CAP_BPF is missing)" : "",
        blindSpots: low ? ["connections that live for less than a second", "bytes and retransmits of connections that were closed between two looks"] : [],
        hooks: ["inet_sock_set_state", "tcp_connect", "inet_csk_accept", "tcp_retransmit_skb", "sched_process_exec", "sched_process_exit"].map((name) => ({ name, error: low ? "permission denied" : null })),
      },
      losses: { ringRecords: { process: index === 2 ? 128 : 0 }, flowsUncounted: 0, socketsUnowned: 3, tableFull: 0, reportsMerged: 0, endsSeen: 120_400, endsReported: index === 2 ? 120_272 : 120_400, completeness: index === 2 ? 0.99894 : 1 },
      counts: { processes: [...processes.values()].filter((item) => item.host === host).length, containers: [...containers.values()].filter((item) => item.host === host).length, flows: 240 + index * 31 },
    };
  });
}

// ---- controls and pipes ----

const KNOWN = [
  ["docker_exec_container", "Exec shell", "fa fa-terminal", 2],
  ["docker_pause_container", "Pause", "fa fa-pause", 5],
  ["docker_logs_container", "Logs", "fa fa-file-text", 9],
  ["docker_kill_container", "Kill", "fa fa-bolt", 10, "Kill this container? Its processes end at once."],
];
const controlsOf = (id) =>
  id.endsWith("<container>") ? KNOWN.map(([control, human, icon, rank, confirmation]) => ({ probeId: "p1", nodeId: id, id: control, human, icon, rank, ...(confirmation ? { confirmation } : {}) })) : [];
/** Closed pipes, and every call, for whoever checks. */
const closed = new Set();
const calls = [];

async function callControl(request, [, , , nodeId, control]) {
  let body = "";
  for await (const chunk of request) body += chunk;
  calls.push({ nodeId, control, body: body === "" ? null : JSON.parse(body) });
  if (control === "docker_exec_container") return [200, { pipe: `pipe-${calls.length}1`, raw_tty: true, resize_tty_control: "docker_resize_exec_tty" }];
  if (control === "docker_logs_container") return [200, { pipe: `pipe-${calls.length}2` }];
  if (control === "docker_pause_container") return [400, "Container is already paused"];
  return [200, {}];
}

/** `…1` is a terminal that gives back what is typed, `…2` are logs. */
function openPipe(client, pipe) {
  const say = (text) => client.send(Buffer.from(text));
  if (pipe.endsWith("2")) for (let line = 0; line < 60; line += 1) say(`GET /item/${line} 200\n`);
  else {
    say("/ # ");
    client.on("message", (data) => {
      const text = String(data);
      if (text.includes("\u0004")) {
        closed.add(pipe);
        client.close();
      } else say(text.replace("\r", "\r\n/ # "));
    });
  }
}

// ---- serving ----

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
// ---- search: as much of the language as pages need to be looked at ----

const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const textsOf = (node) => [["id", node.id], ["label", node.label], ["labelminor", node.labelMinor], ...(node.metadata ?? []).map((row) => [fold(row.label).replace(/[^a-z0-9]/g, ""), row.value])];

/** Whether a node answers. Throws what the server would say of a query that is none. */
function answers(query, node) {
  if (/(^| )(AND|OR|NOT)$/.test(query)) throw new Error(`an operator of the query has no operand, or a parenthesis has no partner, at character ${query.length + 1}`);
  if (query.includes(" OR ")) return query.split(" OR ").some((part) => answers(part, node));
  if (query.includes(" AND ")) return query.split(" AND ").every((part) => answers(part, node));
  if (query.startsWith("NOT ")) return !answers(query.slice(4), node);
  const colon = /^([^:]+):\s*([^:]+)$/.exec(query);
  const words = fold(colon ? colon[2] : query.replace(/^"(.*)"$/, "$1")).split("|");
  return textsOf(node).some(([name, text]) => (!colon || name.includes(fold(colon[1]))) && words.some((word) => fold(text).includes(word)));
}

const VIEW_IDS = ["hosts", "containers-by-image", "containers", "processes-by-name", "processes"];

function search(params) {
  const query = params.get("q") ?? "";
  if (query.trim() === "") throw new Error("there is nothing to look for in the query at character 1");
  const found = VIEW_IDS.flatMap((view) => [...render(view, new URLSearchParams()).nodes.values()].filter((node) => answers(query, node)).map((node) => ({ view, node })));
  const from = Number(params.get("after") ?? 0);
  const to = from + Number(params.get("limit") ?? 50);
  const totals = {};
  for (const { view } of found) totals[view] = (totals[view] ?? 0) + 1;
  const hits = found.slice(from, to).map(({ view, node }) => {
    const at = fold(node.label).indexOf(fold(query));
    const matches = at < 0 ? [] : [{ field: "label", text: node.label, skipped: 0, ranges: [[at, at + query.length]] }];
    return { view, id: node.id, label: node.label, labelMinor: node.labelMinor, shape: node.shape, stack: node.stack === true, pseudo: node.pseudo === true, score: 1, matches };
  });
  return { total: found.length, totals, hits, next: to < found.length ? String(to) : null };
}

/** The nodes of a view that answer every query of a request. */
function answering(view, params) {
  const queries = params.getAll("q").filter((query) => query !== "");
  if (isUnwatched) return new Map();
  return new Map([...render(view, params).nodes].filter(([, node]) => queries.every((query) => answers(query, node))));
}

let isDown = false;
let isUnwatched = false;
const others = otherServices({ tasks: TASKS, containerName: "mesos-0f0a1b2c-0000-4000-8000-0123456789ab" });

const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  const json = (value, status = 200) => {
    response.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-cache" });
    response.end(JSON.stringify(value, (key, item) => (key === "key" ? undefined : item)));
  };
  if (url.pathname === "/mock/down" || url.pathname === "/mock/up") {
    isDown = url.pathname.endsWith("down");
    if (isDown) {
      for (const socket of sockets.clients) socket.terminate();
      others.drop();
    }
    return json(isDown);
  }
  if (url.pathname === "/mock/unwatched" || url.pathname === "/mock/watched") {
    isUnwatched = url.pathname.endsWith("unwatched");
    return json(isUnwatched);
  }
  if (url.pathname === "/mock/drop") {
    for (const socket of sockets.clients) socket.terminate();
    return json(true);
  }
  if (url.pathname === "/mock/kill") {
    const id = url.searchParams.get("id");
    const item = containers.get(id);
    if (item?.process) processes.delete(item.process.id);
    return json(containers.delete(id) || processes.delete(id));
  }
  if (isDown) return request.socket.destroy();
  if (!url.pathname.startsWith(PREFIX)) return json("not here", 404);
  const path = `/${url.pathname.slice(PREFIX.length)}`;
  const segments = path.split("/").slice(1).map((part) => decodeURIComponent(part.replaceAll("+", " ")));
  if (path === "/api") return json({ id: "5f2c", version: "0.1.0", hostname: "control-1", plugins: [], capabilities: { historic_reports: false } });
  if (path === "/api/search") {
    try {
      return json(search(url.searchParams));
    } catch (error) {
      return json(error.message, 400);
    }
  }
  if (path === "/api/topology") return json(viewList(url.searchParams));
  if (path === "/api/v1/flows") return json(flows(url.searchParams));
  if (path === "/api/v1/probes") {
    const departed = hosts.map((host, index) => ({ id: `departed-${index}`, hostname: host.name, leftAt: new Date(Date.now() - 18_000).toISOString(), reason: ["lost", "goodbye"][index % 2] }));
    return json(isUnwatched ? { probes: [], departed } : { probes: probeList(), departed: [] });
  }
  if (path === "/api/probes") return json([]);
  if (path === "/mock-calls") return json(calls);
  if (path === "/mock-changes") return json(others.changes);
  if (path === "/mock-append") return json(others.append(`${url.searchParams.get("text")}\n`));
  if (path.startsWith("/api/v1/")) {
    let body = "";
    for await (const chunk of request) body += chunk;
    const parsed = body === "" ? null : body.startsWith("{") || body.startsWith("[") ? JSON.parse(body) : body;
    const answer = await others.answer(request.method, path, url.searchParams, parsed, response);
    if (answer === null) return;
    if (answer !== undefined) {
      response.writeHead(answer[0], { "Content-Type": "application/json" });
      return response.end(JSON.stringify(answer[1]));
    }
  }
  if (segments[0] === "api" && segments[1] === "control" && request.method === "POST") {
    const [status, value] = await callControl(request, segments);
    return json(value, status);
  }
  if (segments[0] === "api" && segments[1] === "pipe") {
    if (request.method === "POST") closed.add(segments[2]);
    response.writeHead(request.method === "POST" ? 200 : closed.has(segments[2]) ? 404 : 204);
    return response.end();
  }
  if (segments[0] === "api" && segments[1] === "topology" && segments[3]) {
    const found = details(segments[2], segments[3], url.searchParams);
    if (found) return json(found);
    response.writeHead(404, { "Content-Type": "text/plain" });
    return response.end("404 page not found\n");
  }
  try {
    const file = normalize(join(DIST, path === "/" ? "index.html" : path));
    if (!file.startsWith(DIST)) throw new Error("outside");
    const body = await readFile(file);
    response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream" });
    response.end(body);
  } catch {
    response.writeHead(404);
    response.end("404 page not found\n");
  }
});

const sockets = new WebSocketServer({ noServer: true });
server.on("upgrade", (request, socket, head) => {
  const url = new URL(request.url, "http://localhost");
  const match = /^\/api\/topology\/([^/]+)\/ws$/.exec(`/${url.pathname.slice(PREFIX.length)}`);
  const pipe = /^\/api\/pipe\/([^/]+)$/.exec(`/${url.pathname.slice(PREFIX.length)}`);
  if (!isDown && pipe) return sockets.handleUpgrade(request, socket, head, (client) => openPipe(client, pipe[1]));
  if (isDown || !match) return socket.destroy();
  try {
    answering(match[1], url.searchParams);
  } catch {
    return socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
  }
  sockets.handleUpgrade(request, socket, head, (client) => {
    let before = null;
    const send = () => {
      const after = new Map([...answering(match[1], url.searchParams)].map(([id, node]) => [id, JSON.stringify(node, (key, item) => (key === "key" ? undefined : item))]));
      const add = [];
      const update = [];
      const remove = [];
      for (const [id, text] of after) {
        if (!before?.has(id)) add.push(text);
        else if (before.get(id) !== text) update.push(text);
      }
      for (const id of before?.keys() ?? []) if (!after.has(id)) remove.push(JSON.stringify(id));
      const list = (items) => (items.length > 0 ? `[${items.join(",")}]` : "null");
      client.send(`{"add":${list(add)},"update":${list(update)},"remove":${list(remove)}${before === null ? ',"reset":true' : ""}}`);
      before = after;
    };
    send();
    const timer = setInterval(send, 1_000);
    client.on("close", () => clearInterval(timer));
  });
});

for (let index = 0; index < 40; index += 1) step();
setInterval(() => {
  step();
  for (const item of processes.values()) sample(`${item.id} cpu`, item.cpu), sample(`${item.id} mem`, item.memory);
  for (const item of containers.values()) sample(`${item.id} cpu`, item.cpu), sample(`${item.id} mem`, item.memory);
  for (const host of hosts) sample(`${host.name} cpu`, 18 + random() * 30), sample(`${host.name} mem`, 9.1e9 + random() * 4e8), sample(`${host.name} load`, 1.4 + random());
}, 1_000);
server.listen(PORT, "127.0.0.1", () => process.stdout.write(`http://127.0.0.1:${PORT}${PREFIX}\n`));

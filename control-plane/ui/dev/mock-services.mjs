// The Mesos master, the scheduler and the ZooKeeper service of the synthetic world. Some of what they say is hostile: names that are markup, fields of
// the wrong kind, labels without end. `changes` keeps what the page asked to be changed.

export const MARKUP = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`;
const MASTER = "0b1c2d3e-0000-4000-8000-00000000000a";
const FRAMEWORK = `${MASTER}-0000`;
const now = () => Date.now() / 1000;
const STATES = ["TASK_RUNNING", "TASK_RUNNING", "TASK_RUNNING", "TASK_STAGING", "TASK_FAILED", "TASK_FINISHED", "TASK_UNREACHABLE"];

export function services({ tasks: taskCount, containerName }) {
  const changes = [];
  const begun = now();
  const agents = Array.from({ length: 40 }, (_, index) => ({
    id: `${MASTER}-S${index}`,
    hostname: index === 3 ? MARKUP : `node-${String(index).padStart(2, "0")}`,
    pid: `slave(1)@10.0.0.${index}:5051`,
    active: index !== 5,
    deactivated: false,
    version: "1.11.0",
    registered_time: begun - 3_600,
    resources: { cpus: 16, mem: 65_536, disk: 500_000, gpus: 0, ports: "[31000-32000]" },
    used_resources: { cpus: (index * 7) % 16, mem: ((index * 7919) % 60) * 1_000, disk: 0, gpus: 0 },
    offered_resources: { cpus: 1, mem: 1_024, disk: 0, gpus: 0 },
    reserved_resources: index === 7 ? { web: { cpus: 2, mem: 2_048 } } : {},
    attributes: { rack: `r${index % 4}`, ...(index === 3 ? { [MARKUP]: MARKUP } : {}) },
    capabilities: ["MULTI_ROLE"],
    TASK_RUNNING: Math.floor(taskCount / 40),
    framework_ids: [FRAMEWORK],
  }));
  // What no master should say, and one that was taken for one once did.
  agents.push({ id: null, hostname: 7, pid: null, resources: [], used_resources: "x", attributes: null, registered_time: "soon" });
  const tasks = Array.from({ length: taskCount }, (_, index) => {
    const state = STATES[index % STATES.length];
    const at = begun - index;
    return {
      id: index === 0 ? "shop_web.instance-1._app.1" : `shop_web.instance-${index + 1}._app.1`,
      name: index === 11 ? MARKUP : `web-${index}`,
      framework_id: FRAMEWORK,
      executor_id: "",
      slave_id: agents[index % 40].id,
      state,
      role: "web",
      resources: { cpus: 0.1, mem: 32, disk: 0, gpus: 0, ports: `[${31_000 + (index % 1_000)}-${31_000 + (index % 1_000)}]` },
      labels: index === 12 ? Array.from({ length: 5_000 }, (_, label) => ({ key: `label-${label}`, value: "x".repeat(200) })) : [{ key: "team", value: MARKUP }],
      statuses: [
        { state: "TASK_STARTING", timestamp: at - 1 },
        { state, timestamp: at, container_status: { container_id: { value: index === 0 ? containerName.replace("mesos-", "") : `c-${index}` } } },
        ...(index === 13 ? [null, 7, { state: null, timestamp: "x" }] : []),
      ],
    };
  });
  const framework = { framework_info: { id: { value: FRAMEWORK }, name: "marathon", user: "root", roles: ["web"], webui_url: "javascript:window.hacked=1", failover_timeout: 604_800 }, active: true, connected: true, registered_time: { nanoseconds: begun * 1e9 }, offers: [{ id: { value: "o-1" }, agent_id: { value: agents[0].id }, allocation_info: { role: "web" }, resources: [{ name: "cpus", scalar: { value: 1 } }, { name: "mem", scalar: { value: 64 } }, { name: "ports", ranges: { range: [{ begin: 1, end: 2 }] } }] }, null] };
  const app = (id, fields = {}) => ({
    id,
    cmd: "sleep 1000",
    instances: 3,
    cpus: 0.1,
    mem: 32,
    labels: {},
    version: "2026-01-01T00:00:00.000Z",
    tasksStaged: 0,
    tasksRunning: 3,
    tasksHealthy: 3,
    tasksUnhealthy: 0,
    deployments: [],
    tasks: tasks.slice(0, 3).map((task) => ({ id: task.id, state: "TASK_RUNNING", host: "node-00", slaveId: task.slave_id, ports: [31_000], healthCheckResults: [{ alive: true }], version: "2026-01-01T00:00:00.000Z", startedAt: new Date(begun * 1000).toISOString() })),
    ...fields,
  });
  const apps = new Map(
    [
      app("/shop/web", { healthChecks: [{}], lastTaskFailure: { host: MARKUP, message: MARKUP.repeat(40), state: "TASK_FAILED", timestamp: new Date().toISOString(), taskId: "x" } }),
      app("/shop/cart", { instances: 4, tasksHealthy: 0, tasksUnhealthy: 1, tasksRunning: 2 }),
      app("/infra/huge", { instances: 2, cpus: 64, tasksRunning: 0, tasksHealthy: 0, deployments: [{ id: "d-1" }], tasks: [] }),
      app("/odd", { cmd: MARKUP, labels: { [MARKUP]: MARKUP }, instances: null, container: "x", tasks: [null, 7, {}] }),
    ].map((it) => [it.id, it]),
  );
  const pod = {
    id: "/shop/jobs",
    spec: { id: "/shop/jobs", version: "2026-01-01T00:00:00.000Z", scaling: { kind: "fixed", instances: 1 }, containers: [{ name: "main", exec: { command: { shell: "exit 4" } }, resources: { cpus: 0.1, mem: 32 } }] },
    status: "DEGRADED",
    instances: [{ id: "shop_jobs.instance-1", status: "PENDING", agentHostname: MARKUP, containers: [{ name: "main", status: "TASK_FAILED", termination: { exitCode: 4, message: `exited with status 4 ${MARKUP}` } }] }, null],
    terminationHistory: [{ instanceID: "shop_jobs.instance-1", terminatedAt: new Date().toISOString(), message: MARKUP, containers: [{ containerId: "x", lastKnownState: "TASK_FAILED", termination: { exitCode: 4, message: `exited with status 4 ${MARKUP}` } }] }],
  };
  const group = (id) => {
    const below = [...apps.values()].filter((it) => it.id.slice(0, it.id.lastIndexOf("/")) === (id === "/" ? "" : id));
    const groups = new Set([...apps.keys()].map((it) => it.split("/").slice(0, -1).join("/")).filter((it) => it !== "" && it.slice(0, it.lastIndexOf("/")) === (id === "/" ? "" : id)));
    return { id, apps: below, groups: [...groups].map(group), pods: id === "/shop" ? [pod] : null };
  };
  const reasons = (pairs) => pairs.map(([reason, declined]) => ({ reason, declined, processed: 9 }));
  const queue = [
    {
      app: { id: "/infra/huge" },
      count: 2,
      delay: { timeLeftSeconds: 0, overdue: true },
      since: new Date().toISOString(),
      processedOffersSummary: { processedOffersCount: 9, unusedOffersCount: 9, rejectSummaryLastOffers: reasons([["InsufficientCpus", 2], ["UnfulfilledConstraint", 1]]), rejectSummaryLaunchAttempt: reasons([["InsufficientCpus", 6], ["UnfulfilledConstraint", 3]]) },
      lastUnusedOffers: [{ offer: { hostname: MARKUP, resources: [{ name: "cpus", scalar: 4 }] }, reason: ["InsufficientCpus"], timestamp: new Date().toISOString() }],
    },
  ];
  const link = {
    definition: { id: "old-to-new", a: { connect: "old-1:2181" }, b: { connect: "new-1:2181" }, mode: "both", strategy: "manual" },
    role: "leading",
    detail: "",
    status: { state: "live", mode: "both", pairs: 1_000, backlog: 3, oldest_ms: 4, connected: { a: true, b: true }, scanning: { a: null, b: null }, zxid: { a: 99, b: 98 }, open_conflicts: 2, held_deletes: 0, blocked: [[MARKUP, MARKUP]], blocked_total: 1, excluded: { filtered: 4 }, counters: {} },
    lag: { a: { changes: 5, p50_ms: 2, p99_ms: 20, max_ms: 21 }, b: { changes: 0 } },
  };
  const conflicts = [
    { id: 7, key: "/app/config", kind: "update", base: { a: { version: 1, mzxid: 1 }, b: { version: 1, mzxid: 1 } }, first_seen_ms: Date.now(), last_change_ms: 1 },
    { id: 8, key: `/app/${MARKUP}`, kind: "create", base: null, first_seen_ms: Date.now(), last_change_ms: 1 },
  ];
  const side = (text, mzxid) => ({ mzxid, version: 2, mtime: Date.now(), size: text.length, text, hash: `h${mzxid}`, acl: ["world:anyone"] });
  const files = [
    { path: "/sandbox/stdout", size: 0, mode: "-rw-r--r--", mtime: Math.floor(begun), uid: "root", gid: "root" },
    { path: `/sandbox/${MARKUP}`, size: 3, mode: "-rw-r--r--", mtime: Math.floor(begun), uid: "root", gid: "root" },
    { path: "/sandbox/data", size: 4_096, mode: "drwxr-xr-x", mtime: Math.floor(begun), uid: "root", gid: "root" },
  ];
  let log = Array.from({ length: 3_000 }, (_, line) => `line ${line} ${MARKUP}`).join("\n");
  const streams = new Set();
  const tell = (kind, value) => {
    for (const stream of streams) stream.write(`event: ${kind}\r\ndata: ${JSON.stringify(value)}\r\n\r\n`);
  };

  /** `[status, value]`, or nothing when the path is none of ours. */
  return {
    changes,
    /** Ends every event stream, as a control plane that is restarted does. */
    drop: () => {
      for (const stream of streams) stream.destroy();
    },
    /** Adds to the file that is followed. */
    append: (text) => (log += text),
    async answer(method, path, query, body, response) {
      if (method !== "GET" && !path.endsWith("/api/v1/mesos/api/v1")) changes.push({ method, path, query: Object.fromEntries(query), body });
      if (path === "/api/v1/services") return [200, Object.fromEntries(["master", "scheduler", "zksync"].map((name) => [name, { runs: true, ready: true, detail: null }]))];
      if (path === "/api/v1/mesos/state-summary") return [200, { cluster: "mock", slaves: agents, frameworks: [{ id: FRAMEWORK, TASK_RUNNING: 9, used_resources: { cpus: 3, mem: 1_000 }, slave_ids: [] }, null] }];
      if (path === "/api/v1/mesos/tasks") {
        const wanted = query.get("task_id");
        const named = wanted === null ? tasks : tasks.filter((it) => it.id === wanted);
        const withWords = (it) => ({ ...it, statuses: it.statuses?.map((status) => (status?.state === "TASK_RUNNING" ? { ...status, message: MARKUP, reason: "REASON_X" } : status)) });
        const found = query.get("words") === "true" ? named.map(withWords) : named;
        const offset = Number(query.get("offset") ?? 0);
        return [200, { tasks: found.slice(offset, offset + Number(query.get("limit") ?? 100)) }];
      }
      if (path === "/api/v1/mesos/roles") return [200, { roles: [{ name: "web", weight: 2, quota: { guarantee: { cpus: 4 }, limit: { cpus: 8 }, consumed: { cpus: 3 } }, allocated: { cpus: 3 }, frameworks: [FRAMEWORK] }, { name: MARKUP, quota: null }, null] }];
      if (path === "/api/v1/mesos/maintenance/status") return [200, { draining_machines: [] }];
      if (path === "/api/v1/mesos/maintenance/schedule") return [200, { windows: null }];
      if (path === "/api/v1/mesos/api/v1" && method === "POST") {
        if (body.type === "GET_FRAMEWORKS") return [200, { get_frameworks: { frameworks: [framework, {}], completed_frameworks: null } }];
        changes.push({ method, path, body });
        return [202, null];
      }
      if (path.startsWith("/api/v1/mesos/")) return [200, null];
      if (/^\/api\/v1\/agents\/.*\/files\/browse$/.test(path)) return [200, files];
      if (/^\/api\/v1\/agents\/.*\/files\/read$/.test(path)) {
        const offset = Number(query.get("offset"));
        return [200, offset < 0 ? { data: "", offset: log.length } : { data: log.slice(offset, offset + Math.min(65_536, Number(query.get("length")))), offset }];
      }
      if (path === "/api/v1/marathon/v2/events") {
        response.writeHead(200, { "Content-Type": "text/event-stream" });
        response.write(": hello\r\n\r\n");
        streams.add(response);
        response.on("close", () => streams.delete(response));
        return null;
      }
      if (path === "/api/v1/marathon/v2/groups") return [200, group("/")];
      if (path.startsWith("/api/v1/marathon/v2/groups/")) return [200, group(`/${path.slice("/api/v1/marathon/v2/groups/".length)}`)];
      if (path === "/api/v1/marathon/v2/pods/shop/jobs::status") return [200, pod];
      if (path === "/api/v1/marathon/v2/autoscale") return [200, { apps: [{ appId: "/shop/web", policy: { min: 1, max: 9 } }, null] }];
      if (path === "/api/v1/marathon/v2/queue") return [200, { queue }];
      if (path === "/api/v1/marathon/v2/deployments") return [200, [{ id: "d-1", version: new Date().toISOString(), affectedApps: ["/infra/huge"], currentStep: 1, totalSteps: 3, currentActions: [{ action: "ScaleApplication", app: "/infra/huge" }] }, null]];
      if (path.startsWith("/api/v1/marathon/v2/deployments/")) return [200, { deploymentId: "d-2" }];
      if (path === "/api/v1/marathon/v2/apps" && method === "POST") {
        if (!(body.instances >= 0)) return [422, { message: "Object is not valid", details: [{ path: "/instances", errors: [`must be at least 0 ${MARKUP}`] }] }];
        apps.set(body.id, app(body.id, { ...body, tasks: [], tasksRunning: 0, tasksHealthy: 0 }));
        tell("api_post_event", { appDefinition: { id: body.id } });
        return [201, apps.get(body.id)];
      }
      const of = /^\/api\/v1\/marathon\/v2\/apps\/(.*?)(\/versions(?:\/(.*))?|\/autoscale|\/restart|\/tasks\/.*)?$/.exec(path);
      if (of) {
        const found = apps.get(`/${of[1]}`);
        if (!found) return [404, { message: `App '/${of[1]}' does not exist` }];
        if (of[2] === "/versions") return [200, { versions: ["2026-01-01T00:00:00.000Z", "2025-12-01T00:00:00.000Z"] }];
        if (of[3]) return [200, { ...found, cpus: of[3].startsWith("2025") ? 0.5 : found.cpus }];
        if (of[2] === "/autoscale") return of[1] === "shop/web" ? [200, { policy: { min: 1, max: 9 }, appId: "/shop/web", origin: "api", decisions: [null, { at: new Date().toISOString(), action: "scaleUp", currentInstances: 3, desiredInstances: 5, instances: 5, bounds: { min: 1, max: 9 }, signals: [{ signal: "cpu", target: 0.6, average: 0.92, instancesSeen: 3, instancesMissing: 0, instancesNeeded: 5 }], reason: `cpu 92 % ${MARKUP}` }] }] : [404, { message: "no policy" }];
        if (method === "GET") return [200, { app: found }];
        if (method === "DELETE" && !of[2]) apps.delete(found.id);
        if (method === "PUT") {
          if (found.deployments.length > 0 && query.get("force") !== "true") return [409, { message: "App is locked by one or more deployments.", deployments: found.deployments }];
          if (query.get("partialUpdate") === "false") for (const key of ["env", "healthChecks", "labels"]) delete found[key];
          Object.assign(found, body);
        }
        tell("deployment_info", { plan: { steps: [{ actions: [{ app: found.id }] }] } });
        return [200, { version: "x", deploymentId: "d-3" }];
      }
      if (path === "/api/v1/zksync/links") return [200, [link, {}, null]];
      if (path === "/api/v1/zksync/links/old-to-new") return [200, link];
      if (path === "/api/v1/zksync/links/old-to-new/conflicts") return [200, { conflicts, total: conflicts.length }];
      const conflict = /^\/api\/v1\/zksync\/links\/old-to-new\/conflicts\/(\d+)(\/resolve)?$/.exec(path);
      if (conflict) {
        const at = conflicts.findIndex((it) => it.id === Number(conflict[1]));
        if (at < 0) return [404, "there is no such conflict"];
        if (conflict[2]) {
          conflicts.splice(at, 1);
          link.status.open_conflicts = conflicts.length;
          return [202, "it will be carried out"];
        }
        return [200, { conflict: conflicts[at], base_hash: conflicts[at].base ? "h0" : null, a: side(`left\n${MARKUP}`, 5), b: side("right", 6) }];
      }
      if (path === "/api/v1/zksync/links/old-to-new/resolutions") return [200, { resolutions: [] }];
      if (path === "/api/v1/zksync/links/old-to-new/verifications") return [200, { started_ms: Date.now(), took_ms: 12, found: { equal: false, differing: 1, differences: [{ path: MARKUP, kind: "data" }], nodes_a: 5, nodes_b: 5, root_a: "aa", root_b: "bb" }, excluded: {}, counters: [] }];
      if (path === "/api/v1/zksync/migrations/old-to-new")
        return [200, { migration: { plan: {}, phase: "drain", since_ms: Date.now(), paused: false, waiting_for: MARKUP, history: [{ at_ms: Date.now(), phase: "switch", text: MARKUP }] }, holders: [{ host: "node-00", pid: 1, process: MARKUP, container: null, server: "old-1:2181", connections: 2 }], holders_unknown: null, verification: null, preparation: null, progress: { percent: 99 } }];
      if (path.startsWith("/api/v1/zksync/")) return [202, "done"];
      return undefined;
    },
  };
}

// The JSON of the control plane, field by field. Optional fields are those that the server leaves out when they are empty.

/** Numbers of a view after filtering. */
export interface ViewStats {
  node_count: number;
  nonpseudo_node_count: number;
  edge_count: number;
  filtered_nodes: number;
}

export interface ViewOption {
  value: string;
  label: string;
}

/** A group of alternatives; `union` groups allow several values at once. */
export interface OptionGroup {
  id: string;
  defaultValue: string;
  options?: ViewOption[];
  selectType?: string;
  noneLabel?: string;
}

/** One entry of `GET api/topology`. It has no id: that is the last segment of `url`. */
export interface ViewDescription {
  name: string;
  rank: number;
  hide_if_empty: boolean;
  options: OptionGroup[] | null;
  url: string;
  sub_topologies?: ViewDescription[];
  stats: ViewStats;
}

export interface MetadataRow {
  id: string;
  label: string;
  value: string;
  priority?: number;
  dataType?: string;
  truncate?: number;
}

export interface Parent {
  id: string;
  label: string;
  topologyId: string;
}

export interface Sample {
  date: string;
  value: number;
}

export interface MetricRow {
  id: string;
  label: string;
  format?: string;
  group?: string;
  value: number;
  valueEmpty?: boolean;
  priority?: number;
  samples: Sample[] | null;
  min: number;
  max: number;
  url?: string;
}

export interface TableColumn {
  id: string;
  label: string;
  dataType: string;
}

export interface Table {
  id: string;
  label: string;
  type: string;
  columns: TableColumn[] | null;
  rows: { id: string; entries: Record<string, string> }[];
  truncationCount?: number;
}

/** A node as a view shows it. */
export interface NodeSummary {
  id: string;
  label: string;
  labelMinor: string;
  rank: string;
  shape?: string;
  tag?: string;
  stack?: boolean;
  pseudo?: boolean;
  metadata?: MetadataRow[];
  parents?: Parent[];
  metrics?: MetricRow[];
  tables?: Table[];
  adjacency?: string[];
}

export interface Column {
  id: string;
  label: string;
  defaultSort: boolean;
  dataType: string;
}

export interface ChildGroup {
  id: string;
  label: string;
  nodes: NodeSummary[] | null;
  topologyId: string;
  columns: Column[];
}

export interface ConnectionRow {
  id: string;
  nodeId: string;
  label: string;
  labelMinor?: string;
  metadata: MetadataRow[];
}

export interface ConnectionTable {
  id: string;
  topologyId: string;
  label: string;
  columns: Column[];
  connections: ConnectionRow[];
}

/** Something that can be done with a node. */
export interface Control {
  probeId: string;
  nodeId: string;
  id: string;
  human: string;
  icon: string;
  confirmation?: string;
  rank: number;
}

/** What a control answered. */
export interface ControlReply {
  pipe?: string;
  raw_tty?: boolean;
  resize_tty_control?: string;
  removedNode?: string;
}

/** A node with everything that its panel shows. */
export interface NodeDetails extends NodeSummary {
  controls?: Control[];
  children?: ChildGroup[];
  connections?: ConnectionTable[];
}

/** One message of a view's WebSocket. */
export interface Delta {
  add: NodeSummary[] | null;
  update: NodeSummary[] | null;
  remove: string[] | null;
  reset?: boolean;
}

/** One end of a group of connections, with its totals. */
export interface Flow {
  host: string;
  pid: number | null;
  processStartTime: number | null;
  processName: string | null;
  containerId: string | null;
  cgroupId: number;
  direction: "client" | "server";
  protocol: string;
  clientAddress: string;
  serverAddress: string;
  serverPort: number;
  originalServer?: string | null;
  clientName?: string | null;
  serverName?: string | null;
  /** Where connections were taken, when that is elsewhere than the server's address. */
  translations?: { server: string; client: string | null; connections: number | null; source: string }[];
  /** How many flows this one sums up; the peer's address is unspecified then. */
  others?: number;
  applications?: {
    protocol: string;
    requests: number;
    errors: number;
    latencyMicrosAverage: number | null;
    latencyMicrosMax: number | null;
  }[];
  origin: string;
  opened: number;
  closed: number;
  failed: number;
  active: number;
  bytesSent: number;
  bytesReceived: number;
  retransmits: number;
  rttMicrosAverage: number | null;
  rttMicrosMax: number | null;
  firstSeen: string;
  lastActive: string;
  peers: string[];
}

export interface FlowPage {
  flows: Flow[];
  next: number | null;
}

export interface ProbeLosses {
  ringRecords?: Record<string, number>;
  flowsUncounted?: number;
  socketsUnowned?: number;
  tableFull?: number;
  reportsMerged?: number;
  endsSeen?: number;
  endsReported?: number;
  completeness?: number | null;
  /** By cause, for what has no field of its own. */
  other?: Record<string, number>;
}

/** A probe of any kind. */
export interface ProbeName {
  id: string;
  hostname: string;
  version: string;
}

export interface Probe {
  id: string;
  hostname: string;
  version: string;
  connected: boolean;
  lastSeen: string;
  sequence: number;
  capture: {
    rung: number;
    description: string;
    reason: string;
    blindSpots: string[];
    hooks: { name: string; error?: string | null }[];
    /** 0: everything is told at once. */
    overloadLevel?: number;
    missingCapabilities?: string[];
  };
  losses: ProbeLosses;
  counts: { processes: number; containers: number; flows: number; recordsRefused?: number };
}

/** A probe whose nodes left the map. */
export interface DepartedProbe {
  id: string;
  hostname: string;
  leftAt: string;
  /** `goodbye`, `lost`, or `silent` for one of Weave Scope. */
  reason: string;
}

/** `GET api/v1/probes`. */
export interface ProbeList {
  probes: Probe[];
  /** The latest first. Older control planes do not say it. */
  departed?: DepartedProbe[];
}

/** `GET api`. */
export interface ServerInfo {
  id: string;
  version: string;
  hostname: string;
  /** E.g. `historic_reports`: whether `timestamp` shows the past. */
  capabilities?: Record<string, boolean>;
  newVersion?: { version: string; downloadUrl: string };
}

/** A page of what a search found in all views. */
export interface SearchPage {
  total: number;
  /** How many nodes answer, by view. */
  totals: Record<string, number>;
  hits: SearchHit[];
  next: string | null;
}

export interface SearchHit {
  view: string;
  id: string;
  label: string;
  labelMinor: string;
  shape: string;
  stack: boolean;
  pseudo: boolean;
  score: number;
  matches: SearchMatch[];
}

/** Where a node was found. Places count Unicode characters. */
export interface SearchMatch {
  field: string;
  text: string;
  skipped: number;
  ranges: [number, number][];
}

/** How far back the map can be seen. */
export interface HistoryInfo {
  enabled: boolean;
  from: string | null;
  to: string | null;
  gaps: { from: string; to: string; eventsLost: number }[];
  problem: string | null;
}

/** What is different between two moments of a view. */
export interface ChangePage {
  view: string;
  from: string;
  to: string;
  appeared: number;
  vanished: number;
  changed: number;
  changes: NodeChange[];
  next: string | null;
}

export interface NodeChange {
  kind: "appeared" | "vanished" | "changed";
  id: string;
  label: string;
  labelMinor: string;
  fields: { field: string; before: string; after: string }[];
  connected: string[];
  disconnected: string[];
}

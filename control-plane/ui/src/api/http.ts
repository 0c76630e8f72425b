import { list, record, records, text, texts } from "../model/safe";
import { pageDirectory } from "./client";

/** What is wrong with one field of what was sent. */
export interface FieldError {
  /** As the API names it: `/instances`, `/container/docker/image`, `/portDefinitions(0)/port`. */
  path: string;
  errors: string[];
}

/** A reply that was not a success, in the words of the API. */
export class ApiError extends Error {
  constructor(
    /** 0 when there was no reply. */
    readonly status: number,
    message: string,
    readonly fields: readonly FieldError[] = [],
    /** Deployments that lock what was to be changed. */
    readonly deployments: readonly string[] = [],
    /** The reply as it came. */
    readonly body: unknown = null,
  ) {
    super(message);
  }
}

export interface Ask {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Sent as JSON. */
  json?: unknown;
  /** Sent as a form. */
  form?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
  timeoutMs?: number;
}

const TIMEOUT_MS = 30_000;
const MESSAGE_MAX = 2_000;

/** Asks the control plane; `path` is relative to the page. JSON comes back parsed, anything else as text. */
export async function ask(path: string, { method, json, form, signal, timeoutMs }: Ask = {}): Promise<unknown> {
  const headers: Record<string, string> = { Accept: "application/json" };
  let body: string | undefined;
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(json);
  } else if (form !== undefined) {
    headers["Content-Type"] = "application/x-www-form-urlencoded";
    body = new URLSearchParams(form).toString();
  }
  const timeout = AbortSignal.timeout(timeoutMs ?? TIMEOUT_MS);
  let response: Response;
  let raw: string;
  try {
    response = await fetch(new URL(path, pageDirectory(window.location.href)), {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers,
      body: body ?? null,
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    raw = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, timeout.aborted ? "The control plane took too long to answer." : "The control plane does not answer.");
  }
  const value = parsed(raw);
  if (!response.ok) throw apiError(response.status, value);
  return value;
}

function parsed(raw: string): unknown {
  if (raw === "") return null;
  try {
    return JSON.parse(raw) as unknown;
  } catch {
    return raw;
  }
}

/** The words of an error in each API's shape: a bare string, a text, or an object with a message and details. */
export function apiError(status: number, value: unknown): ApiError {
  if (typeof value === "string" && value.trim() !== "") return new ApiError(status, value.trim().slice(0, MESSAGE_MAX), [], [], value);
  const object = record(value);
  const fields = records(object["details"]).map((detail) => ({ path: text(detail["path"]), errors: errorsOf(detail["errors"]) }));
  const message = text(object["message"]) || `The control plane answered ${status}.`;
  const deployments = records(object["deployments"]).map((item) => text(item["id"]));
  return new ApiError(status, message.slice(0, MESSAGE_MAX), fields.filter((field) => field.errors.length > 0), deployments, value);
}

function errorsOf(value: unknown): string[] {
  const plain = texts(value);
  return plain.length > 0 ? plain : list(value).map((item) => text(record(item)["error"])).filter((item) => item !== "");
}

/** What to tell a person about any failure. */
export function messageOf(error: unknown): string {
  if (error instanceof ApiError) return error.message;
  return error instanceof Error && error.message !== "" ? error.message : "Something went wrong in the page.";
}

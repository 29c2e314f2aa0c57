// One HTTP call with its times. Throws nothing: what went wrong stands in the outcome.

import { events } from "./sse.js";

/** Where the gateway is, also behind a proxy that gives it a path of its own. */
export const base = typeof document === "undefined" ? "" : new URL(".", document.baseURI).href;

/**
 * Make a call. `path` is relative ("v1/models"); `body` is FormData, or a value sent as JSON.
 * `streamed`: told of each event, and says whether it was the last. `signal` aborts.
 * The outcome: {status, headers, answer | text, failure, first, total}, times in milliseconds.
 */
export async function call(path, { body, key, signal, streamed } = {}) {
  const outcome = { status: 0, headers: new Headers(), failure: null, first: null, total: 0 };
  const began = performance.now();
  const first = () => { outcome.first ??= performance.now() - began; };
  try {
    const response = await fetch(base + path, request(body, key, signal));
    outcome.status = response.status;
    outcome.headers = response.headers;
    await (streamed && isStream(response) ? follow(response, outcome, streamed, first) : whole(response, outcome, first));
  } catch (error) {
    outcome.failure = failed(error, outcome);
  }
  outcome.total = performance.now() - began;
  return outcome;
}

function request(body, key, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const options = { headers, signal, credentials: "omit", cache: "no-store" };
  if (body === undefined) return options;
  if (body instanceof FormData) return { ...options, method: "POST", body };
  headers["content-type"] = "application/json";
  return { ...options, method: "POST", body: JSON.stringify(body) };
}

function isStream(response) {
  return response.ok && (response.headers.get("content-type") ?? "").startsWith("text/event-stream");
}

async function whole(response, outcome, first) {
  const text = await response.text();
  first();
  outcome.text = text;
  outcome.answer = parsed(text);
  if (!response.ok) outcome.failure = told(outcome.answer, `HTTP status ${response.status}`);
}

async function follow(response, outcome, streamed, first) {
  let ended = false;
  for await (const data of events(response.body)) {
    first();
    const event = data === "[DONE]" ? data : parsed(data);
    if (event?.error) {
      outcome.failure = { ...told(event, "error"), title: "The stream broke off with an error" };
      return;
    }
    ended = streamed(event) || ended;
  }
  if (!ended) outcome.failure = broken("The connection ended before the stream had.");
}

function failed(error, outcome) {
  if (error.name === "AbortError") return { title: "Stopped by you", message: "", stopped: true };
  if (outcome.status === 0) return { title: "The gateway cannot be reached", message: String(error.message) };
  return broken(String(error.message));
}

function broken(message) {
  return { title: "The stream broke off; what stands above is not the whole answer", message };
}

/** The gateway's own words for an error. */
function told(answer, otherwise) {
  const error = answer?.error;
  if (!error) return { title: otherwise, message: "" };
  const { message, ...rest } = error;
  return { title: otherwise, message: String(message ?? ""), rest };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // no JSON: a transcript as plain text, or a proxy's page
  }
}

// Below each call: what failed, its figures, and the same call for other clients.

import { base } from "./call.js";
import { byId, element, time } from "./dom.js";
import { snippets } from "./snippets.js";

const SHOWN = 4000; // characters of a snippet that are laid out; copying takes all

/** Shows a call's outcome; `call` is as snippets.js has it, `usage` as the gateway told it. */
export function showResult(place, outcome, call, usage) {
  place.replaceChildren(
    ...(outcome.failure ? [failure(outcome.failure)] : []),
    figures(outcome, usage),
    copies(call),
  );
}

/** An error box: the gateway's own words, with all members of its error object. */
export function failure({ title, message, rest, stopped }) {
  const members = Object.entries(rest ?? {}).filter(([, value]) => value !== null);
  return element(
    "div",
    { className: stopped ? "turn" : "error", role: "alert" },
    element("strong", {}, title),
    message ? element("p", { className: "text" }, message) : null,
    members.length > 0 ? definitions(members.map(([name, value]) => [name, said(value)])) : null,
  );
}

function figures({ status, headers, first, total }, usage) {
  const rows = [
    ["First chunk", time(first)],
    ["Total", time(total)],
    ["Usage", usage ? said(usage) : "not told"],
    ["Endpoint", headers.get("x-tetrad-endpoint") ?? "none"],
    ["Model", headers.get("x-tetrad-model") ?? "none"],
    ["Request id", headers.get("x-request-id") ?? "none"],
    ["Status", status ? String(status) : "none"],
  ];
  const wait = headers.get("retry-after");
  if (wait !== null) rows.push(["Retry after", `${wait} s`]);
  return definitions(rows);
}

function said(value) {
  if (typeof value !== "object" || value === null) return String(value);
  return Object.entries(value)
    .filter(([, item]) => item !== null)
    .map(([name, item]) => `${name} ${typeof item === "object" ? `(${said(item)})` : item}`)
    .join(", ");
}

function definitions(rows) {
  const parts = rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  return element("dl", {}, ...parts);
}

function copies(call) {
  const place = { url: base, grpc: byId("grpc").value, tls: document.documentElement.dataset.grpcTls === "true" };
  const all = Object.entries(snippets(call, place)).map(([name, text]) => copy(name, text));
  return element("details", {}, element("summary", {}, "The same call to copy"), ...all);
}

function copy(name, text) {
  const shown = text.length > SHOWN ? `${text.slice(0, SHOWN)}… (copying takes all of it)` : text;
  const pre = element("pre", { tabIndex: 0, ariaLabel: `The call with ${name}` }, shown);
  const button = element("button", { type: "button", ariaLabel: `Copy the call with ${name}` }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text)) ? "Copied" : selected(pre, text);
  });
  return element("div", {}, element("div", { className: "row" }, element("h2", {}, name), button), pre);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // not over plain HTTP on another host, nor against the user's will
  }
}

/** Where the page may not write to the clipboard, the text is selected for Ctrl+C. */
function selected(pre, text) {
  pre.textContent = text;
  getSelection().selectAllChildren(pre);
  return "Selected: press Ctrl+C";
}

// The list of models, their health, and how long calls took as this page has measured it.

import { call } from "./call.js";
import { RPC, TYPES } from "./contract.js";
import { byId, element, table, time } from "./dom.js";
import { failure } from "./result.js";

/** Model name to the outcome of its last call that went well. */
export const latencies = new Map();

/** The smallest calls that tell how long a model takes; sound has none that means anything. */
const SMALLEST = {
  [TYPES.chat]: ["chat", { messages: [{ role: "user", content: "Hello" }], max_tokens: 1 }],
  [TYPES.embed]: ["embed", { input: ["Hello"] }],
  [TYPES.rerank]: ["rerank", { query: "Hello", documents: ["Hello"] }],
};

let known = [];
let health = {};

/** Ask for the models and their health, and fill the table and all model lists. */
export async function refresh() {
  const key = byId("key").value.trim();
  byId("models-state").textContent = "Asking …";
  const [listed, ready] = await Promise.all([call("v1/models", { key }), call("ready")]);
  known = listed.answer?.data ?? [];
  health = ready.answer?.models ?? {};
  byId("models-error").replaceChildren(...(listed.failure ? [failure(listed.failure)] : []));
  byId("models-state").textContent =
    `Gateway: ${ready.answer?.status ?? "no answer"}; /ready answered in ${time(ready.total)}, ` +
    `/v1/models in ${time(listed.total)}; ${known.length} models.`;
  showModels();
  fillLists();
}

/** Draw the table anew, with the times measured by now. */
export function showModels() {
  const heads = ["Model", "Type", "Health", "Providers", "First chunk", "Total", "Measure"];
  byId("models-table").replaceChildren(table("Models that this key may use", heads, known.map(row)));
}

function row(model) {
  const last = latencies.get(model.id);
  const state = model.ready ? element("span", { className: "good" }, "ready") : element("span", { className: "bad" }, "not ready");
  const names = model.aliases?.length ? `${model.id} (${model.aliases.join(", ")})` : model.id;
  return [names, model.type, state, providers(model), time(last?.first), time(last?.total), measure(model)];
}

function providers(model) {
  const states = Object.entries(health[model.id]?.providers ?? {});
  return states.map(([name, ready]) => `${name}: ${ready ? "ready" : "not ready"}`).join("; ") || "–";
}

function measure(model) {
  if (!(model.type in SMALLEST)) return "by a transcription";
  const button = element("button", { type: "button", ariaLabel: `Measure ${model.id}` }, "Measure");
  button.addEventListener("click", async () => {
    button.disabled = true;
    const [kind, body] = SMALLEST[model.type];
    const key = byId("key").value.trim();
    const outcome = await call(RPC[kind].path, { key, body: { model: model.id, ...body } });
    if (!outcome.failure) latencies.set(model.id, outcome);
    showModels();
    byId("models-error").replaceChildren(...(outcome.failure ? [failure(outcome.failure)] : []));
    byId("models-table").querySelector(`[aria-label="Measure ${CSS.escape(model.id)}"]`)?.focus();
  });
  return button;
}

function fillLists() {
  for (const form of document.querySelectorAll("form[data-operation]")) {
    const list = form.elements.model;
    const chosen = list.value;
    const fitting = known.filter((model) => model.type === TYPES[form.dataset.operation]);
    list.replaceChildren(...fitting.map((model) => element("option", { value: model.id }, model.id)));
    if (fitting.some((model) => model.id === chosen)) list.value = chosen;
  }
}

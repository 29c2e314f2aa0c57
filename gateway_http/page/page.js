// The playground: starts its parts, and moves between them. The key never leaves `#key`.

import { start as startChat } from "./chat.js";
import { byId } from "./dom.js";
import { start as startEmbed } from "./embed.js";
import { refresh, showModels } from "./models.js";
import { start as startRerank } from "./rerank.js";
import { start as startTranscribe } from "./transcribe.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const KEYS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

function select(chosen) {
  for (const tab of tabs) {
    const on = tab === chosen;
    tab.ariaSelected = String(on);
    tab.tabIndex = on ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !on;
  }
  if (chosen.id === "tab-models") showModels();
}

function move(event) {
  const step = KEYS[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const last = tabs.length - 1;
  let next = tabs.indexOf(event.currentTarget) + step;
  if (Number.isFinite(step)) next = (next + tabs.length) % tabs.length;
  const tab = tabs[Math.min(Math.max(next, 0), last)];
  select(tab);
  tab.focus();
}

/** The gRPC face's address as it is called from where the page came from. */
function grpcAddress() {
  const told = document.documentElement.dataset.grpc;
  const colon = told.lastIndexOf(":");
  const host = told.slice(0, colon);
  return ["0.0.0.0", "[::]"].includes(host) ? location.hostname + told.slice(colon) : told;
}

for (const tab of tabs) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", move);
}
byId("grpc").value = grpcAddress();
byId("models-refresh").addEventListener("click", refresh);
byId("key").addEventListener("change", refresh);
for (const start of [startChat, startEmbed, startRerank, startTranscribe]) start();
refresh();

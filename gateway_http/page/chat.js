// Chat: a conversation with streaming, images, tools and answers by a schema.

import { byId, dataUrl, element } from "./dom.js";
import { Operation } from "./operation.js";
import { Turn } from "./turn.js";

const op = new Operation("chat");
const log = byId("chat-log");
let history = [];
let open = []; // inputs for the answers of tools that the model has called

export function start() {
  op.onSubmit(send);
  op.fields.message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) op.form.requestSubmit();
  });
  byId("chat-clear").addEventListener("click", () => {
    op.stop();
    [history, open] = [[], []];
    log.replaceChildren();
    op.result.replaceChildren();
    op.fields.message.focus();
  });
}

async function send() {
  const said = await saidNow();
  const body = { ...request(), messages: [...system(), ...history, ...said] };
  if (body.messages.length === 0 || said.length === 0) throw new Error("Write a message first.");
  said.forEach(showSaid);
  const turn = new Turn(add("assistant", body.model));
  const conversation = history;
  const streamed = (event) => follow(turn, event);
  const outcome = await op.run(body, { streamed, usage: (answer) => answer?.usage ?? turn.usage });
  if (!outcome.failure && outcome.text !== undefined) turn.whole(outcome.answer);
  if (conversation === history) settle(outcome, said, turn); // else there is a new one by now
}

/** What stays in the conversation: a turn that failed leaves it, and its text can be sent again. */
function settle({ failure }, said, turn) {
  const kept = !failure || (failure.stopped && turn.text !== "");
  if (kept) {
    history.push(...said, turn.message());
    op.fields.message.value = "";
    op.fields.images.value = "";
    open.forEach(({ input }) => { input.disabled = true; });
    open = turn.calls.map((call) => askTool(turn.place, call));
  } else {
    turn.note(`${failure.stopped ? "Stopped by you" : "Failed"}: not sent along with the next message.`);
  }
  if (failure?.stopped && kept) turn.note("Stopped by you.");
  follow(turn, null);
}

function follow(turn, event) {
  log.scrollTop = log.scrollHeight;
  return turn.event(event);
}

async function saidNow() {
  const answers = open.map(({ call, input }) => ({ role: "tool", tool_call_id: call.id, content: input.value }));
  const text = op.fields.message.value;
  const images = await Promise.all([...op.fields.images.files].map(dataUrl));
  if (text.trim() === "" && images.length === 0) return answers;
  const parts = images.map((url) => ({ type: "image_url", image_url: { url } }));
  const content = parts.length > 0 ? [{ type: "text", text }, ...parts] : text;
  return [...answers, { role: "user", content }];
}

function system() {
  const text = op.fields.system.value.trim();
  return text === "" ? [] : [{ role: "system", content: text }];
}

function request() {
  const stream = op.fields.stream.checked;
  const schema = op.json("schema", "JSON schema of the answer");
  const all = {
    model: op.model,
    stream: stream || undefined,
    stream_options: stream ? { include_usage: true } : undefined,
    temperature: op.number("temperature"),
    max_tokens: op.number("limit"),
    tools: toolList(op.json("tools", "Tools")),
    response_format: schema && { type: "json_schema", json_schema: { name: "answer", schema, strict: true } },
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

function toolList(tools) {
  if (tools !== undefined && !Array.isArray(tools)) throw new Error("Tools: a JSON list is expected.");
  return tools;
}

function showSaid({ role, content }) {
  const parts = typeof content === "string" ? [{ type: "text", text: content }] : content;
  const place = add(role, role === "tool" ? "tool" : "you");
  for (const part of parts) {
    place.append(
      part.type === "text"
        ? element("div", { className: "text" }, part.text)
        : element("img", { src: part.image_url.url, alt: "the image that was sent" }),
    );
  }
}

function add(role, name) {
  const place = element("div", { className: `turn ${role}` }, element("strong", {}, name));
  log.append(place);
  return place;
}

function askTool(place, call) {
  const input = element("textarea", { rows: 2, className: "code" });
  place.append(element("label", {}, `Answer of ${call.function.name} (goes with the next message)`, input));
  return { call, input };
}

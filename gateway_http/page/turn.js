// One answer of a model as it grows: its text, reasoning and tool calls.

import { element } from "./dom.js";

/** Shows itself in `place`. */
export class Turn {
  text = "";
  reasoning = "";
  refusal = "";
  calls = [];
  usage = null;
  #shown = {};

  constructor(place) {
    this.place = place;
  }

  /** Take a chunk of a stream; says whether it is the end. */
  event(chunk) {
    if (chunk === "[DONE]") return true;
    if (chunk?.usage) this.usage = chunk.usage;
    const choice = chunk?.choices?.find(({ index }) => !index);
    if (choice) this.#take(choice.delta ?? {}, choice.finish_reason);
    return false;
  }

  /** Take a whole answer. */
  whole(answer) {
    const choice = answer?.choices?.[0];
    if (choice) this.#take(choice.message ?? {}, choice.finish_reason);
  }

  /** What goes into the conversation. */
  message() {
    const message = { role: "assistant", content: this.text };
    return this.calls.length > 0 ? { ...message, tool_calls: this.calls } : message;
  }

  /** A remark of the page on this turn. */
  note(text) {
    this.place.append(element("small", {}, text));
  }

  #take(part, finish) {
    this.#grow("reasoning", part.reasoning ?? part.reasoning_content);
    this.#grow("text", part.content);
    this.#grow("refusal", part.refusal);
    (part.tool_calls ?? []).forEach((call, position) => this.#call(call, call.index ?? position));
    if (finish && finish !== "stop" && finish !== "tool_calls") this.note(`Ended: ${finish}.`);
  }

  #grow(name, more) {
    if (typeof more !== "string" || more === "") return;
    this[name] += more;
    this.#place(name).append(more);
  }

  #call(part, index) {
    const call = (this.calls[index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
    if (part.id) call.id = part.id;
    call.function.name += part.function?.name ?? "";
    call.function.arguments += part.function?.arguments ?? "";
    this.#place(`call ${index}`, "pre").textContent = `${call.function.name}(${call.function.arguments})`;
  }

  #place(name, kind = "div") {
    if (!this.#shown[name]) {
      this.#shown[name] = element(kind, { className: `text ${name}` });
      this.place.append(this.#shown[name]);
    }
    return this.#shown[name];
  }
}

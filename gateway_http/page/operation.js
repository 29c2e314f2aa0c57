// What the forms of all four operations share: model lists, running one call at a time, stop.

import { call } from "./call.js";
import { RPC, TYPES } from "./contract.js";
import { byId } from "./dom.js";
import { latencies } from "./models.js";
import { failure, showResult } from "./result.js";

/** The form and the places around it of one operation. */
export class Operation {
  #running = null;
  #sent = false;

  constructor(kind) {
    this.kind = kind;
    this.panel = byId(kind);
    this.form = this.panel.querySelector("form");
    this.fields = this.form.elements;
    this.result = this.panel.querySelector(".result");
    this.answer = this.panel.querySelector(".answer");
    this.form.querySelector(".stop").addEventListener("click", () => this.stop());
  }

  /** End the call that runs, if one does. */
  stop() {
    this.#running?.abort();
  }

  /** Call `act` on submit; one that throws has its message shown. */
  onSubmit(act) {
    this.form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (this.#running) return;
      this.#sent = false;
      this.result.replaceChildren();
      try {
        await act();
      } catch (error) {
        const title = this.#sent ? "The answer cannot be shown" : "Nothing was sent";
        this.result.prepend(failure({ title, message: error.message }));
      }
    });
  }

  /**
   * Make the call and show its figures. `body` is as the REST face takes it; `sound`: a File or
   * Blob for transcriptions. `streamed` is told of events; `usage` reads it from what was told.
   */
  async run(body, { streamed, sound, usage = (answer) => answer?.usage } = {}) {
    const key = byId("key").value.trim();
    this.#running = new AbortController();
    this.#sent = true;
    this.#state(true, "Waiting for the gateway …");
    try {
      const options = { body: sound ? formOf(body, sound) : body, key, signal: this.#running.signal };
      if (body.stream) options.streamed = (event) => this.#event(event, streamed);
      const outcome = await call(RPC[this.kind].path, options);
      const made = { kind: this.kind, body, keyed: key !== "", file: sound && nameOf(sound) };
      showResult(this.result, outcome, made, usage(outcome.answer));
      if (!outcome.failure) latencies.set(body.model, outcome);
      return outcome;
    } finally {
      this.#running = null;
      this.#state(false, "");
    }
  }

  #event(event, streamed) {
    this.#say("Receiving …");
    return streamed(event);
  }

  #state(running, text) {
    this.form.querySelector(".stop").disabled = !running;
    this.form.querySelector("[type=submit]").disabled = running;
    this.panel.ariaBusy = String(running);
    this.#say(text);
  }

  #say(text) {
    const state = this.form.querySelector(".state");
    if (state.textContent !== text) state.textContent = text;
  }

  /** The model that is chosen. Throws if there is none. */
  get model() {
    const { value } = this.fields.model;
    if (!value) throw new Error(`There is no model of type ${TYPES[this.kind]} that this key may use.`);
    return value;
  }

  /** A number field as a number; undefined if it is empty. */
  number(name) {
    const { value } = this.fields[name];
    return value === "" ? undefined : Number(value);
  }

  /** A JSON field's value; undefined if it is empty. Throws if it is no JSON. */
  json(name, what) {
    const text = this.fields[name].value.trim();
    if (text === "") return undefined;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`${what}: ${error.message}`, { cause: error });
    }
  }
}

/** The name under which a sound is sent. */
export function nameOf(sound) {
  return sound.name ?? "recording";
}

function formOf(body, sound) {
  const form = new FormData();
  // The model comes first: the gateway may then pass a large file on while it arrives.
  for (const [name, value] of Object.entries(body)) form.append(name, String(value));
  form.append("file", sound, nameOf(sound));
  return form;
}

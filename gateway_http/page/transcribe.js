// Transcription of a file, or of what the microphone recorded.

import { byId, element } from "./dom.js";
import { Operation } from "./operation.js";

const op = new Operation("transcribe");
const button = byId("record");
let recorded = null;
let recorder = null;

export function start() {
  op.onSubmit(send);
  op.fields.file.addEventListener("change", () => choose(null));
  button.addEventListener("click", () => (recorder ? recorder.stop() : record()));
}

async function send() {
  const sound = recorded ?? op.fields.file.files[0];
  if (!sound) throw new Error("Choose a file or record something.");
  const language = op.fields.language.value.trim();
  const stream = op.fields.stream.checked;
  const body = { model: op.model, ...(language && { language }), ...(stream && { stream }) };
  const text = element("div", { className: "text" });
  op.answer.replaceChildren(text);
  let usage = null;
  const streamed = (event) => {
    usage = event?.usage ?? usage;
    return grow(text, event);
  };
  const outcome = await op.run(body, { sound, streamed, usage: (answer) => answer?.usage ?? usage });
  if (!outcome.failure && outcome.text !== undefined) text.textContent = outcome.answer?.text ?? outcome.text;
}

/** An event of the stream; the last one holds the whole text. */
function grow(text, event) {
  if (event?.type === "transcript.text.delta") text.append(event.delta);
  if (event?.type !== "transcript.text.done") return event === "[DONE]";
  text.textContent = event.text;
  return true;
}

async function record() {
  let microphone;
  try {
    // Browsers offer it over HTTPS and on this very machine only.
    if (!navigator.mediaDevices) throw new Error("this page did not come over HTTPS");
    microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    say(`The microphone cannot be used: ${error.message}`);
    return;
  }
  const pieces = [];
  recorder = new MediaRecorder(microphone);
  recorder.addEventListener("dataavailable", ({ data }) => pieces.push(data));
  recorder.addEventListener("stop", () => {
    microphone.getTracks().forEach((track) => track.stop());
    keep(pieces, recorder.mimeType);
    recorder = null;
  });
  recorder.start();
  mark(true, "Recording …");
}

/** The recording takes the place of a file that was chosen. */
function keep(pieces, type) {
  const ending = type.includes("mp4") ? "mp4" : type.includes("ogg") ? "ogg" : "webm";
  op.fields.file.value = "";
  choose(new File(pieces, `recording.${ending}`, { type }));
  mark(false, "Recorded. Press Transcribe.");
}

function choose(recording) {
  recorded = recording;
  const sound = recording ?? op.fields.file.files[0];
  const player = byId("sound");
  if (player.src) URL.revokeObjectURL(player.src);
  player.hidden = !sound;
  if (sound) player.src = URL.createObjectURL(sound);
  else player.removeAttribute("src");
  if (!recording) say("");
}

function mark(on, text) {
  button.ariaPressed = String(on);
  button.textContent = on ? "Stop recording" : "Record the microphone";
  say(text);
}

function say(text) {
  byId("record-state").textContent = text;
}

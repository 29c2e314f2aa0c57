// The same call for other clients, as text to copy. Pure: knows no page and never sees a key.

import { messageOf, RPC } from "./contract.js";

const KEY = "TETRAD_API_KEY";

/**
 * A call: {kind: "chat" | "embed" | "rerank" | "transcribe", body, file: name | undefined, keyed}.
 * A place: {url: of the gateway with "/" at its end, grpc: host:port, tls}.
 */
export function snippets(call, place) {
  return {
    curl: curl(call, place),
    "OpenAI SDK": sdk(call, place),
    grpcurl: grpcurl(call, place),
    "Python gRPC": pythonGrpc(call, place),
  };
}

/** A word for a POSIX shell. */
export function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A JSON value as Python writes it. */
export function python(value, indent = 0) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (value instanceof Source) return value.text;
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = " ".repeat(indent + 4);
  const list = Array.isArray(value);
  const items = list
    ? value.map((item) => python(item, indent + 4))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${python(item, indent + 4)}`);
  const [open, close] = list ? "[]" : "{}";
  if (items.length === 0) return open + close;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${" ".repeat(indent)}${close}`;
}

/** Python that stands as it is. */
class Source {
  constructor(text) {
    this.text = text;
  }
}

function curl({ kind, body, file, keyed }, { url }) {
  const head = [`curl -N ${quoted(url + RPC[kind].path)}`];
  if (keyed) head.push(`-H "authorization: Bearer $${KEY}"`);
  if (kind === "transcribe") {
    const fields = Object.entries(body).map(([name, value]) => `-F ${quoted(`${name}=${value}`)}`);
    return [...head, ...fields, `-F ${quoted(`file=@${file}`)}`].join(" \\\n  ");
  }
  return [...head, "-H 'content-type: application/json'", `-d ${quoted(JSON.stringify(body))}`].join(" \\\n  ");
}

function keywords(values) {
  return Object.entries(values).map(([name, value]) => `    ${name}=${python(value, 4)},\n`).join("");
}

function sdk({ kind, body, file, keyed }, { url }) {
  const key = keyed ? `os.environ["${KEY}"]` : '"none"';
  const lines = [
    ...(keyed ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${url}v1`)}, api_key=${key})`,
  ];
  const values = file === undefined ? body : { ...body, file: new Source(`open(${JSON.stringify(file)}, "rb")`) };
  return `${lines.join("\n")}\n${SDK[kind](values)}`;
}

const SDK = {
  chat: (body) =>
    `answer = client.chat.completions.create(\n${keywords(body)})\n` +
    (body.stream
      ? 'for chunk in answer:\n    if chunk.choices:\n        print(chunk.choices[0].delta.content or "", end="", flush=True)\n'
      : "print(answer.choices[0].message)\n"),
  embed: (body) =>
    `answer = client.embeddings.create(\n${keywords(body)})\n` +
    "print([len(one.embedding) for one in answer.data], answer.usage)\n",
  rerank: (body) =>
    `answer = client.post("/rerank", cast_to=object, body=${python(body)})\nprint(answer)\n`,
  transcribe: (body) =>
    `answer = client.audio.transcriptions.create(\n${keywords(body)})\n` +
    (body.stream ? "for event in answer:\n    print(event)\n" : "print(answer)\n"),
};

function method(kind, body) {
  return body.stream ? RPC[kind].streaming : RPC[kind].unary;
}

function grpcurl({ kind, body, file, keyed }, { grpc, tls }) {
  const options = [
    ...(tls ? [] : ["-plaintext"]),
    ...(keyed ? [`-H "authorization: Bearer $${KEY}"`] : []),
  ];
  const target = `${grpc} tetrad.v1.${RPC[kind].service}/${method(kind, body)}`;
  const json = JSON.stringify(messageOf(kind, body));
  if (file === undefined) return ["grpcurl", ...options, `-d ${quoted(json)}`, target].join(" \\\n  ");
  // The sound may be longer than an argument can be: it goes in on standard input.
  const members = json.slice(0, -1).replaceAll("\\", "\\\\").replaceAll("%", "%%");
  const format = `${members},"file":{"data":"%s"}}`;
  const sound = `printf ${quoted(format)} "$(base64 < ${quoted(file)} | tr -d '\\n')"`;
  return `${sound} |\n  ${["grpcurl", ...options, "-d @", target].join(" ")}`;
}

function pythonGrpc({ kind, body, file, keyed }, { grpc, tls }) {
  const { service, module, request } = RPC[kind];
  const fields = messageOf(kind, body);
  if (file !== undefined) fields.file = { data: new Source(`open(${JSON.stringify(file)}, "rb").read()`) };
  const channel = tls ? `secure_channel("${grpc}", grpc.ssl_channel_credentials())` : `insecure_channel("${grpc}")`;
  const metadata = keyed ? `, metadata=[("authorization", f"Bearer {os.environ['${KEY}']}")]` : "";
  const made = `stub.${method(kind, body)}(request${metadata})`;
  const answer = body.stream ? `    for event in ${made}:\n        print(event)\n` : `    print(${made})\n`;
  return (
    `${keyed ? "import os\n\n" : ""}import grpc\nfrom tetrad.v1 import ${module}_pb2, ${module}_pb2_grpc\n\n` +
    `request = ${module}_pb2.${request}(\n${keywords(fields)})\n` +
    `with grpc.${channel} as channel:\n` +
    `    stub = ${module}_pb2_grpc.${service}Stub(channel)\n${answer}`
  );
}

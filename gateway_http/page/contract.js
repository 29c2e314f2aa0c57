// What the page knows of the contract tetrad.v1: names of RPCs, and JSON bodies as messages. Pure.

/** REST path and RPC of each operation. */
export const RPC = {
  chat: rpc("v1/chat/completions", "Chat", "Chat", "StreamChat"),
  embed: rpc("v1/embeddings", "Embed", "Embed"),
  rerank: rpc("v1/rerank", "Rerank", "Rerank"),
  transcribe: rpc("v1/audio/transcriptions", "Transcribe", "Transcribe", "StreamTranscribe"),
};

function rpc(path, name, unary, streaming) {
  return { path, service: `${name}Service`, module: `${name.toLowerCase()}_service`, request: `${name}Request`, unary, streaming };
}

/** The model types that an operation serves. */
export const TYPES = {
  chat: "text-generation",
  embed: "text-embeddings-inference",
  transcribe: "automatic-speech-recognition",
  rerank: "text-classification",
};

/** A REST body as the fields of its message, in the names of the .proto files. */
export function messageOf(kind, body) {
  const { stream, ...rest } = body; // which RPC it is says that already
  return MESSAGES[kind](rest);
}

const MESSAGES = {
  chat: (body) => ({
    ...body,
    messages: body.messages.map((message) => ({ ...message, content: content(message.content) })),
    ...(body.tools && { tools: body.tools.map(tool) }),
    ...(body.response_format && { response_format: format(body.response_format) }),
  }),
  embed: (body) => ({ ...body, input: { texts: { texts: body.input } } }),
  rerank: (body) => ({
    ...body,
    query: { text: body.query },
    documents: body.documents.map((text) => ({ text })),
  }),
  transcribe: (body) => body,
};

const jsonText = (value) => ({ json: JSON.stringify(value) });

function content(value) {
  if (typeof value === "string") return { text: value };
  return { parts: { parts: value.map(({ type, ...part }) => part) } };
}

function tool(value) {
  if (value.type !== "function" || typeof value.function !== "object") return { other: jsonText(value) };
  const { parameters, ...rest } = value.function;
  return { function: { ...rest, ...(parameters !== undefined && { parameters: jsonText(parameters) }) } };
}

function format({ type, json_schema: named }) {
  if (!named) return { type };
  const { schema, ...rest } = named;
  return { type, json_schema: { ...rest, schema: jsonText(schema) } };
}

// Makes the examples of openapi.json ones that can be sent as they are: with names of models that the
// gateway has (where it lists them without a key), and forms without invented values.

const TYPES = {
  Chat: "text-generation",
  Embed: "text-embeddings-inference",
  Transcribe: "automatic-speech-recognition",
  Rerank: "text-classification",
};

export async function models() {
  try {
    const answer = await fetch("v1/models");
    return answer.ok ? (await answer.json()).data : [];
  } catch {
    return [];
  }
}

// Swagger UI fills a form by its members' own examples, and with "string" where there are none.
export function fill(spec) {
  for (const verbs of Object.values(spec.paths)) {
    for (const operation of Object.values(verbs)) {
      const form = operation.requestBody?.content["multipart/form-data"];
      const value = Object.values(form?.examples ?? {})[0]?.value ?? {};
      for (const [member, schema] of Object.entries(form?.schema.properties ?? {})) {
        if (schema.format !== "binary") {
          schema.example = value[member] ?? (schema.type === "array" ? [] : "");
        }
      }
    }
  }
}

export function name(spec, listed) {
  const known = new Set(listed.flatMap((model) => [model.id, ...(model.aliases ?? [])]));
  const first = (type) => listed.find((model) => type === undefined || model.type === type)?.id;
  for (const verbs of Object.values(spec.paths)) {
    for (const operation of Object.values(verbs)) {
      const there = first(TYPES[operation.tags[0]]);
      for (const holder of places(operation)) {
        if (there !== undefined && !known.has(holder.get())) {
          holder.set(there);
        }
      }
    }
  }
}

function* places(operation) {
  for (const content of Object.values(operation.requestBody?.content ?? {})) {
    for (const { value } of Object.values(content.examples ?? {})) {
      if (value.model !== undefined) {
        yield { get: () => value.model, set: (to) => { value.model = to; } };
      }
    }
  }
  for (const parameter of operation.parameters ?? []) {
    if (parameter.name === "model") {
      yield { get: () => parameter.example, set: (to) => { parameter.example = to; } };
    }
  }
}

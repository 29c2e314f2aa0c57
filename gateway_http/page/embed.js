// Embeddings, and how near the texts are to each other.

import { element, lines, table } from "./dom.js";
import { Operation } from "./operation.js";
import { similarities } from "./vectors.js";

const op = new Operation("embed");
const CLOSE = 0.5; // from here on a cell stands out

export function start() {
  op.onSubmit(async () => {
    const input = lines(op.fields.texts);
    if (input.length === 0) throw new Error("Write at least one text.");
    const dimensions = op.number("dimensions");
    const body = { model: op.model, input, encoding_format: "float", ...(dimensions && { dimensions }) };
    op.answer.replaceChildren();
    const { answer, failure } = await op.run(body);
    if (!failure) show(input, answer?.data ?? []);
  });
}

function show(texts, data) {
  const vectors = data.toSorted((a, b) => a.index - b.index).map((one) => one.embedding);
  const heads = ["Text", ...texts.map((_, index) => String(index + 1))];
  const rows = similarities(vectors).map((row, index) => [`${index + 1}. ${texts[index]}`, ...row.map(cell)]);
  const size = element("p", {}, `${vectors.length} vectors of ${vectors[0]?.length ?? 0} numbers each.`);
  op.answer.replaceChildren(table("Similarity (cosine)", heads, rows), size);
}

function cell(value) {
  return element("td", { className: value >= CLOSE ? "number close" : "number" }, value.toFixed(3));
}

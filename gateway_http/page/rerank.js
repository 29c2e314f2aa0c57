// Rerank: documents in the order of their relevance to a query.

import { element, lines, table } from "./dom.js";
import { Operation } from "./operation.js";

const op = new Operation("rerank");

export function start() {
  op.onSubmit(async () => {
    const documents = lines(op.fields.documents);
    const top = op.number("top");
    const query = op.fields.query.value;
    if (query.trim() === "" || documents.length === 0) throw new Error("Write a query and at least one document.");
    const body = { model: op.model, query, documents, ...(top && { top_n: top }) };
    op.answer.replaceChildren();
    const { answer, failure } = await op.run(body);
    if (!failure) show(documents, answer?.results ?? []);
  });
}

function show(documents, results) {
  const rows = results.map(({ index, relevance_score: score }, rank) => [
    String(rank + 1),
    documents[index],
    element("td", { className: "number" }, score.toFixed(4)),
    element("td", { className: "number" }, String(index + 1)),
  ]);
  op.answer.replaceChildren(table("Documents by relevance", ["Rank", "Document", "Score", "Was"], rows));
}

// Arithmetic on embeddings. Pure.

/** Cosine of two vectors of one length; NaN where one is zero. */
export function cosine(a, b) {
  let dot = 0;
  let left = 0;
  let right = 0;
  for (let i = 0; i < a.length; i += 1) {
    dot += a[i] * b[i];
    left += a[i] * a[i];
    right += b[i] * b[i];
  }
  return dot / Math.sqrt(left * right);
}

/** Cosine of each with each. */
export function similarities(vectors) {
  return vectors.map((one) => vectors.map((other) => cosine(one, other)));
}

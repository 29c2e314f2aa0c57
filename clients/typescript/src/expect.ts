// What a case says of its outcome, and whether it came out so.
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

export interface Expectation {
  status: string;
  message?: string;
  responses: JsonValue[];
  any_order?: boolean;
  headers?: JsonObject;
  trailers?: JsonObject;
  details?: JsonValue[];
}

export interface Outcome {
  status: string;
  message: string;
  responses: JsonValue[];
  headers: JsonObject;
  trailers: JsonObject;
  details: JsonValue[];
}

const TOLERANCE = 1e-6;

const isObject = (value: JsonValue | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Whether a value has at least what the pattern has. */
export function matches(pattern: JsonValue, value: JsonValue | undefined): boolean {
  if (Array.isArray(pattern)) {
    return (
      Array.isArray(value) &&
      value.length === pattern.length &&
      pattern.every((one, index) => matches(one, value[index]))
    );
  }
  if (isObject(pattern)) {
    return isObject(value) && Object.entries(pattern).every(([name, one]) => matches(one, value[name]));
  }
  if (typeof pattern === "number") {
    return (
      typeof value === "number" &&
      Math.abs(pattern - value) <= TOLERANCE * Math.max(Math.abs(pattern), Math.abs(value))
    );
  }
  return pattern === value;
}

/** What is not as expected; "" means nothing. */
export function wrong(expect: Expectation, got: Outcome): string {
  const find = (pattern: JsonValue, values: JsonValue[]) => values.find((one) => matches(pattern, one));
  let responses: JsonValue[] = got.responses;
  if (expect.any_order && responses.length === expect.responses.length) {
    responses = expect.responses.map((pattern) => find(pattern, got.responses) ?? null);
  }
  const checks: Record<keyof Outcome, boolean> = {
    status: expect.status === got.status,
    message: (expect.message ?? got.message) === got.message,
    responses: matches(expect.responses, responses),
    headers: matches(expect.headers ?? {}, got.headers),
    trailers: matches(expect.trailers ?? {}, got.trailers),
    details: (expect.details ?? []).every((pattern) => find(pattern, got.details) !== undefined),
  };
  const faults = (Object.keys(checks) as (keyof Outcome)[])
    .filter((name) => !checks[name])
    .map((name) => `${name}: ${JSON.stringify(got[name]).slice(0, 1000)}`);
  return faults.length ? `${faults.join("; ")} (status ${got.status}: ${got.message})` : "";
}

// Runs cases against a gateway: node dist/src/conformance.js address service_config case...
// What a case says is told in tests/conformance/README.md.
import { readFileSync } from "node:fs";
import {
  createRegistry,
  fromBinary,
  fromJson,
  toJson,
  type DescMethod,
  type JsonObject,
  type JsonValue,
  type Message,
} from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { file_google_rpc_error_details } from "../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../gen/google/rpc/status_pb.js";
import { ChatService } from "../gen/tetrad/v1/chat_service_pb.js";
import { EmbedService } from "../gen/tetrad/v1/embed_service_pb.js";
import { file_tetrad_v1_error_details } from "../gen/tetrad/v1/error_details_pb.js";
import { ModelService } from "../gen/tetrad/v1/model_service_pb.js";
import { RerankService } from "../gen/tetrad/v1/rerank_service_pb.js";
import { TranscribeService } from "../gen/tetrad/v1/transcribe_service_pb.js";
import { connect } from "./client.js";
import { wrong, type Expectation, type Outcome } from "./expect.js";

interface Case {
  name: string;
  method: string;
  requests: JsonValue[];
  metadata?: Record<string, string>;
  fill?: number;
  compression?: string;
  deadline_ms?: number;
  cancel?: { after_ms?: number; after_messages?: number };
  expect: Expectation;
}

const SERVICES = [ChatService, EmbedService, ModelService, RerankService, TranscribeService];
const registry = createRegistry(...SERVICES, file_google_rpc_error_details, file_tetrad_v1_error_details);
const ALGORITHMS: Record<string, grpc.compressionAlgorithms> = { gzip: grpc.compressionAlgorithms.gzip };

// What grpc-js offers of a call, whatever its kind.
type Call = grpc.ClientUnaryCall & grpc.ClientDuplexStream<Message, Message>;
type Invoke = (...given: unknown[]) => Call;

function metadataOf(given: Record<string, string>): grpc.Metadata {
  const metadata = new grpc.Metadata();
  for (const [name, value] of Object.entries(given)) metadata.set(name, value);
  return metadata;
}

function shown(metadata: grpc.Metadata | undefined): JsonObject {
  return Object.fromEntries(
    Object.entries(metadata?.getMap() ?? {}).map(([name, value]) => [name, value.toString()]),
  );
}

function detailsOf(trailers: grpc.Metadata): JsonValue[] {
  const [packed] = trailers.get("grpc-status-details-bin");
  if (!(packed instanceof Buffer)) return [];
  return fromBinary(StatusSchema, packed).details.map((detail) => {
    const message = anyUnpack(detail, registry);
    const schema = message && registry.getMessage(message.$typeName);
    if (!schema) throw new Error(`a detail that no type is known of: ${detail.typeUrl}`);
    return { "@type": detail.typeUrl, ...(toJson(schema, message, { registry }) as JsonObject) };
  });
}

function methodOf(path: string): DescMethod {
  const method = SERVICES.flatMap((service) => service.methods as DescMethod[]).find(
    (one) => `${one.parent.typeName}/${one.name}` === path,
  );
  if (!method) throw new Error(`${path} is not in the contract`);
  return method;
}

async function call(address: string, config: string, one: Case): Promise<Outcome> {
  const method = methodOf(one.method);
  const requests = one.requests.map((request) => fromJson(method.input, request, { registry }));
  const client = connect(method.parent, address, {
    "grpc.service_config": config,
    "grpc.max_receive_message_length": 64 << 20,
    "grpc.default_compression_algorithm": ALGORITHMS[one.compression ?? ""],
  });
  const invoke = (client as unknown as Record<string, Invoke>)[method.localName]!.bind(client);
  const metadata = metadataOf(one.metadata ?? {});
  const options = { deadline: Date.now() + (one.deadline_ms ?? 30_000) };
  const responses: JsonValue[] = [];
  let headers: grpc.Metadata | undefined;
  let timer: NodeJS.Timeout | undefined;
  const status = await new Promise<grpc.StatusObject>((resolve) => {
    const took = (answer: Message) => {
      responses.push(toJson(method.output, answer, { registry }));
      if (responses.length === one.cancel?.after_messages) started.cancel();
    };
    const started = ((): Call => {
      switch (method.methodKind) {
        case "unary":
          // The status event tells of errors too.
          return invoke(requests[0], metadata, options, (_: unknown, answer?: Message) => {
            if (answer) took(answer);
          });
        case "server_streaming":
          return invoke(requests[0], metadata, options);
        default:
          return invoke(metadata, options);
      }
    })();
    started.on("metadata", (initial: grpc.Metadata) => (headers = initial));
    if (method.methodKind === "unary") {
      started.on("status", (ended: grpc.StatusObject) => setImmediate(resolve, ended));
    } else {
      started.on("data", took);
      started.on("error", () => undefined); // the status event tells
      started.on("status", (ended: grpc.StatusObject) => setImmediate(resolve, ended));
    }
    if (method.methodKind === "bidi_streaming") {
      for (const request of requests) started.write(request);
      started.end();
    }
    if (one.cancel?.after_ms) timer = setTimeout(() => started.cancel(), one.cancel.after_ms);
  });
  clearTimeout(timer);
  client.close();
  return {
    status: grpc.status[status.code],
    message: status.details,
    responses,
    headers: shown(headers),
    trailers: shown(status.metadata),
    details: detailsOf(status.metadata),
  };
}

function read(file: string): Case[] {
  const raw: Case[] = JSON.parse(readFileSync(file, "utf8"));
  return raw.map((one) =>
    JSON.parse(JSON.stringify(one), (_, value) =>
      value === "$FILL" ? "x".repeat(one.fill ?? 0) : value,
    ),
  );
}

const [address, config, ...files] = process.argv.slice(2);
if (!address || !config) throw new Error("usage: conformance address service_config case...");
const policies = readFileSync(config, "utf8");
for (const one of files.flatMap(read)) {
  const fault = wrong(one.expect, await call(address, policies, one));
  if (fault) process.exitCode = 1;
  console.log(fault ? `FAILED ${one.name}: ${fault}` : `ok ${one.name}`);
}

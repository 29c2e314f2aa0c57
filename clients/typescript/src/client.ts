// A grpc-js client of a generated service: the one place where protobuf-es and grpc-js meet.
import { fromBinary, toBinary, type DescService, type DescMethod } from "@bufbuild/protobuf";
import type { DescMethodStreaming, DescMethodUnary, Message, MessageShape } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";

/** How grpc-js is told of a method. */
export function definition(method: DescMethod): grpc.MethodDefinition<Message, Message> {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: (message) => Buffer.from(toBinary(method.input, message)),
    requestDeserialize: (data) => fromBinary(method.input, data),
    responseSerialize: (message) => Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (data) => fromBinary(method.output, data),
  };
}

type Unary<M> =
  M extends DescMethodUnary<infer I, infer O>
    ? (
        request: MessageShape<I>,
        metadata: grpc.Metadata,
        options: grpc.CallOptions,
        done: grpc.requestCallback<MessageShape<O>>,
      ) => grpc.ClientUnaryCall
    : never;
type Streaming<M> =
  M extends DescMethodStreaming<infer I, infer O>
    ? M["methodKind"] extends "server_streaming"
      ? (
          request: MessageShape<I>,
          metadata?: grpc.Metadata,
          options?: grpc.CallOptions,
        ) => grpc.ClientReadableStream<MessageShape<O>>
      : (
          metadata?: grpc.Metadata,
          options?: grpc.CallOptions,
        ) => grpc.ClientDuplexStream<MessageShape<I>, MessageShape<O>>
    : never;

/** The methods of a service, typed by its descriptor. */
export type Client<S extends DescService> = grpc.Client & {
  [N in keyof S["method"]]: S["method"][N] extends DescMethodUnary
    ? Unary<S["method"][N]>
    : Streaming<S["method"][N]>;
};

/** Connects to one service. Calls go by the names in the protos, first letter small. */
export function connect<S extends DescService>(
  service: S,
  address: string,
  options: grpc.ClientOptions = {},
): Client<S> {
  const methods = Object.fromEntries(
    service.methods.map((method) => [method.localName, definition(method)]),
  );
  const Made = grpc.makeClientConstructor(methods, service.typeName);
  return new Made(address, grpc.credentials.createInsecure(), options) as unknown as Client<S>;
}

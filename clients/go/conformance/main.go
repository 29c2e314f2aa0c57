// Command conformance runs cases against a gateway: conformance address service_config case...
// What a case says is told in tests/conformance/README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // so that details are decoded to their types
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "tetrad.dev/gen/tetrad/v1"
)

type testCase struct {
	Name        string
	Method      string
	Requests    []json.RawMessage
	Metadata    map[string]string
	Fill        int
	Compression string
	DeadlineMS  int `json:"deadline_ms"`
	Cancel      struct {
		AfterMS       int `json:"after_ms"`
		AfterMessages int `json:"after_messages"`
	}
	Expect expectation
}

type outcome struct {
	status, message   string
	responses         []any
	headers, trailers map[string]any
	details           []any
}

const maxMessage = 64 << 20

func main() {
	config, err := os.ReadFile(os.Args[2])
	check(err)
	connection, err := grpc.NewClient(os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(string(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	check(err)
	defer connection.Close()
	failed := false
	for _, file := range os.Args[3:] {
		cases, err := read(file)
		check(err)
		for _, one := range cases {
			got, err := call(connection, one)
			check(err)
			if fault := one.Expect.wrong(got); fault != "" {
				failed = true
				fmt.Printf("FAILED %s: %s\n", one.Name, fault)
			} else {
				fmt.Printf("ok %s\n", one.Name)
			}
		}
	}
	if failed {
		os.Exit(1)
	}
}

// read gives the cases of a file, each with its "$FILL" replaced.
func read(file string) ([]testCase, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	cases := make([]testCase, len(raw))
	for i, text := range raw {
		var size struct{ Fill int }
		if err := json.Unmarshal(text, &size); err != nil {
			return nil, err
		}
		filled := strings.ReplaceAll(string(text), `"$FILL"`, `"`+strings.Repeat("x", size.Fill)+`"`)
		if err := json.Unmarshal([]byte(filled), &cases[i]); err != nil {
			return nil, err
		}
	}
	return cases, nil
}

func method(path string) (protoreflect.MethodDescriptor, error) {
	name := protoreflect.FullName(strings.ReplaceAll(path, "/", "."))
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil, err
	}
	return found.(protoreflect.MethodDescriptor), nil
}

// message makes an empty message of the generated type.
func message(kind protoreflect.MessageDescriptor) (proto.Message, error) {
	found, err := protoregistry.GlobalTypes.FindMessageByName(kind.FullName())
	if err != nil {
		return nil, err
	}
	return found.New().Interface(), nil
}

// call makes the call of a case; an error means that the case could not be tried.
func call(connection *grpc.ClientConn, one testCase) (*outcome, error) {
	described, err := method(one.Method)
	if err != nil {
		return nil, err
	}
	requests := make([]proto.Message, len(one.Requests))
	for i, text := range one.Requests {
		if requests[i], err = message(described.Input()); err != nil {
			return nil, err
		}
		if err := protojson.Unmarshal(text, requests[i]); err != nil {
			return nil, err
		}
	}
	deadline := 30 * time.Second
	if one.DeadlineMS > 0 {
		deadline = time.Duration(one.DeadlineMS) * time.Millisecond
	}
	ctx, release := context.WithTimeout(metadata.NewOutgoingContext(context.Background(), metadata.New(one.Metadata)), deadline)
	defer release()
	if one.Cancel.AfterMS > 0 {
		defer time.AfterFunc(time.Duration(one.Cancel.AfterMS)*time.Millisecond, release).Stop()
	}
	var headers, trailers metadata.MD
	options := []grpc.CallOption{grpc.Header(&headers), grpc.Trailer(&trailers)}
	if one.Compression != "" {
		options = append(options, grpc.UseCompressor(one.Compression))
	}
	var messages []proto.Message
	if described.IsStreamingServer() {
		messages, err = stream(ctx, release, connection, one, described, requests, options)
	} else {
		var answer proto.Message
		if answer, err = message(described.Output()); err != nil {
			return nil, err
		}
		if err = connection.Invoke(ctx, "/"+one.Method, requests[0], answer, options...); err == nil {
			messages = append(messages, answer)
		}
	}
	return told(status.Convert(err), messages, headers, trailers)
}

// stream sends all requests while it receives; err is the call's status.
func stream(ctx context.Context, release func(), connection *grpc.ClientConn, one testCase,
	described protoreflect.MethodDescriptor, requests []proto.Message, options []grpc.CallOption,
) (messages []proto.Message, err error) {
	kind := &grpc.StreamDesc{ServerStreams: true, ClientStreams: described.IsStreamingClient()}
	opened, err := connection.NewStream(ctx, kind, "/"+one.Method, options...)
	if err != nil {
		return nil, err
	}
	go func() {
		for _, request := range requests {
			if opened.SendMsg(request) != nil {
				return // RecvMsg tells why
			}
		}
		opened.CloseSend()
	}()
	for {
		answer, err := message(described.Output())
		if err != nil {
			return messages, err
		}
		if err := opened.RecvMsg(answer); errors.Is(err, io.EOF) {
			return messages, nil
		} else if err != nil {
			return messages, err
		}
		messages = append(messages, answer)
		if len(messages) == one.Cancel.AfterMessages {
			release()
		}
	}
}

func told(ended *status.Status, messages []proto.Message, headers, trailers metadata.MD) (*outcome, error) {
	got := &outcome{
		status:   name(ended.Code()),
		message:  ended.Message(),
		headers:  firsts(headers),
		trailers: firsts(trailers),
	}
	for _, answer := range messages {
		value, err := plain(answer)
		if err != nil {
			return nil, err
		}
		got.responses = append(got.responses, value)
	}
	for i, detail := range ended.Details() {
		decoded, ok := detail.(proto.Message)
		if !ok {
			return nil, fmt.Errorf("a detail that no type is known of: %v", detail)
		}
		value, err := plain(decoded)
		if err != nil {
			return nil, err
		}
		value.(map[string]any)["@type"] = ended.Proto().Details[i].TypeUrl
		got.details = append(got.details, value)
	}
	return got, nil
}

// plain gives a message as the JSON values of encoding/json.
func plain(message proto.Message) (value any, err error) {
	text, err := protojson.Marshal(message)
	if err == nil {
		err = json.Unmarshal(text, &value)
	}
	return value, err
}

func firsts(all metadata.MD) map[string]any {
	found := map[string]any{}
	for name, values := range all {
		found[name] = values[0]
	}
	return found
}

// name gives a code as the protocol spells it: DEADLINE_EXCEEDED, not DeadlineExceeded.
func name(code codes.Code) string {
	for _, spelt := range []string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
		"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
		"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	} {
		var known codes.Code
		if known.UnmarshalJSON([]byte(`"`+spelt+`"`)) == nil && known == code {
			return spelt
		}
	}
	return code.String()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

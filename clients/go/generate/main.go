// Command generate writes gen/ from the contract's descriptor set: the plugins that go.mod pins are fed
// with it as protoc would feed them, so that neither protoc nor buf is needed.
package main

import (
	"bytes"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const descriptors = "../../gen/tetrad.binpb"

func main() {
	data, err := os.ReadFile(descriptors)
	check(err)
	set := &descriptorpb.FileDescriptorSet{}
	check(proto.Unmarshal(data, set))
	request := &pluginpb.CodeGeneratorRequest{
		Parameter: proto.String("module=tetrad.dev"),
		ProtoFile: set.File,
	}
	for _, file := range set.File {
		if strings.HasPrefix(file.GetName(), "tetrad/") {
			request.FileToGenerate = append(request.FileToGenerate, file.GetName())
		}
	}
	sent, err := proto.Marshal(request)
	check(err)
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		check(generate(plugin, sent))
	}
}

func generate(plugin string, request []byte) error {
	command := exec.Command("go", "tool", plugin)
	command.Stdin = bytes.NewReader(request)
	command.Stderr = os.Stderr
	answer, err := command.Output()
	if err != nil {
		return err
	}
	response := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(answer, response); err != nil {
		return err
	}
	if response.GetError() != "" {
		log.Fatalf("%s: %s", plugin, response.GetError())
	}
	for _, file := range response.File {
		if err := os.MkdirAll(filepath.Dir(file.GetName()), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file.GetName(), []byte(file.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

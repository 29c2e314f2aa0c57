// Command hello chats with a gateway: hello [address] [model] [text].
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	tetradv1 "tetrad.dev/gen/tetrad/v1"
)

func main() {
	given := []string{"127.0.0.1:50051", "chat", "Hello"}
	copy(given, os.Args[1:])
	connection, err := grpc.NewClient(given[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	defer connection.Close()
	stream, err := tetradv1.NewChatServiceClient(connection).StreamChat(context.Background(), &tetradv1.ChatRequest{
		Model: &given[1],
		Messages: []*tetradv1.ChatMessage{{
			Role:    proto.String("user"),
			Content: &tetradv1.Content{Form: &tetradv1.Content_Text{Text: given[2]}},
		}},
	})
	check(err)
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
		for _, choice := range chunk.Choices {
			fmt.Print(choice.GetDelta().GetContent().GetText())
		}
	}
	fmt.Println()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

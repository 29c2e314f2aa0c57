// Chats with a gateway: node dist/src/hello.js [address] [model] [text].
import { create } from "@bufbuild/protobuf";
import { ChatRequestSchema, ChatService } from "../gen/tetrad/v1/chat_service_pb.js";
import { connect } from "./client.js";

const [address = "127.0.0.1:50051", model = "chat", text = "Hello"] = process.argv.slice(2);
const chat = connect(ChatService, address);
const request = create(ChatRequestSchema, {
  model,
  messages: [{ role: "user", content: { form: { case: "text", value: text } } }],
});
for await (const chunk of chat.streamChat(request)) {
  for (const choice of chunk.choices) {
    const form = choice.delta?.content?.form;
    if (form?.case === "text") process.stdout.write(form.value);
  }
}
console.log();
chat.close();

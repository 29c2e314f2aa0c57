"""A chat with a gateway: python hello.py [address] [model] [text]."""

import sys

import grpc
from tetrad.v1 import chat_service_pb2, chat_service_pb2_grpc

address, model, text = [*sys.argv[1:], *("127.0.0.1:50051", "chat", "Hello")[len(sys.argv) - 1 :]]
with grpc.insecure_channel(address) as channel:
    request = chat_service_pb2.ChatRequest(model=model)
    request.messages.add(role="user").content.text = text
    for chunk in chat_service_pb2_grpc.ChatServiceStub(channel).StreamChat(request):
        for choice in chunk.choices:
            print(choice.delta.content.text, end="", flush=True)
print()

"""The gRPC face: grpc.aio bound from the descriptors, bytes in and bytes out."""

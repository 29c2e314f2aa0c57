"""Tetrad: a gRPC-first gateway for chat, embeddings, transcription and reranking."""

"""Requests in, tokens out: continuous batching over one model."""

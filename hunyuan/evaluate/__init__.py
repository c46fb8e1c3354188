"""Benchmarks: any model, identical tasks, every item kept, every figure with its provenance."""

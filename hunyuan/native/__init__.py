"""Compiled kernels: a decoder that reads quantised weights as they are stored."""

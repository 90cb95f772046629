"""Benchmarks: speed against peers, and the claims of papers repeated; README.md is the index with the figures."""

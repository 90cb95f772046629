"""Completion level: probes and reward models."""

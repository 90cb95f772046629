"""REWARDS to an object that gives value to tokens, features, completions or models."""

"""Best and worst of N samples as pseudo-labelled pairs that teach a reward model (West-of-N)."""

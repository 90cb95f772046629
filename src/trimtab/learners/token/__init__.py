"""Token level: what is learned is a policy."""

"""Tables of what every model earned on every prompt: what routers learn from and are measured on."""

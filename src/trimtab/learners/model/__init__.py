"""Model level: routers."""

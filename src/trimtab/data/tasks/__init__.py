"""Named tasks to PROMPTS, one function a task, and examples put in front of them."""

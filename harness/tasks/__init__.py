"""Questions: tasks with their prompts, answer checks, rewards and protocols. Imports no torch."""

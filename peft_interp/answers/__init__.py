"""What the task model writes after prompts: many answers at once, rewards on them, and what a prompt changes in them."""

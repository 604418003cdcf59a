"""What the task model writes after prompts: many answers at once, and rewards on them."""

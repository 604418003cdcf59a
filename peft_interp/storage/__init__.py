"""Files that survive a kill: one or several replaced as a whole, complete checkpoints, one run in a folder."""

"""Training: the state and its update, checkpoints, what a run leaves in its workdir, the loop."""

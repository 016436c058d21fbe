"""Training steps, optimizers, checkpoints and callbacks."""

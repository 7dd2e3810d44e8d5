"""The stages of training: configuration, losses, the loop, checkpoints."""

"""Training: the stream, the model, the loop, checkpoints and export."""

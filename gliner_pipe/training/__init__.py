"""The training loop and everything it composes: data, optimization, validation, checkpoints, loggers."""

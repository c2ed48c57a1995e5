"""Train and evaluate constant-memory language agents (MEM1) with PyTorch Lightning."""

__version__ = "0.1.0"

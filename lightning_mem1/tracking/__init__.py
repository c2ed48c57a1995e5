"""MLflow: the logger, artifacts, run metadata, a trained policy as a model."""

"""Tracking of runs, metrics and models: the MLflow database of the project, or a server."""

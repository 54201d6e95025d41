"""Where runs, metrics and models are kept: the MLflow database of the project, or a server."""

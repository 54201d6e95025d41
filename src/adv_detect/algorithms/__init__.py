"""Pure functions on tensors: features, representatives, trajectories, attacks, detectors, metrics."""

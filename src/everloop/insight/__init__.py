"""What happened inside a model and during a run."""

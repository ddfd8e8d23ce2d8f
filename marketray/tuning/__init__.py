"""Two-stage tuning of all families at once on Ray Tune."""

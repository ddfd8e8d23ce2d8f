"""Market forecasts you can trust: tuned on Ray, chosen on evidence, served with Ray Serve."""

__version__ = "0.1.0"

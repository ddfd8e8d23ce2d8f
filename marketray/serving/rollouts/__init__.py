"""A new model takes over: what the slots did, the gates, the steps, the evidence and the way back."""

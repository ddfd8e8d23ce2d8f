"""Features: one catalog of definitions, one kernel that evaluates them, one stage that puts it on Ray."""

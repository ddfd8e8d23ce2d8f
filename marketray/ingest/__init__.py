"""From a source to bronze: sources, schemas, quality checks, quarantine and the stage on Ray."""

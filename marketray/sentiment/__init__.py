"""From articles to sentiment that was knowable at the time."""

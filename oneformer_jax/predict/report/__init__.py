"""An evaluation as a page to look at."""

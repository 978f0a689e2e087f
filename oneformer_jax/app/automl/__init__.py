"""AutoML: which keys a search varies and how far, the algorithms, trials as trainings, and what a study leaves."""

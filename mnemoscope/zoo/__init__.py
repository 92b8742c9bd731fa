"""The embedded models and corpus, and how they were made: data, no code that the rest imports."""

"""Where data sets and stores are, and what the cache holds."""

"""Stage three: runs in, a report of metrics out."""

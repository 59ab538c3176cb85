"""What `nucseg distill` is made of: what is learned from, who learns, where it is kept, and how it is told."""

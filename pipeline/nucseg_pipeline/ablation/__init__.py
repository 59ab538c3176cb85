"""What `nucseg ablate` is made of: the recipe of a table, its runs, and the table itself."""

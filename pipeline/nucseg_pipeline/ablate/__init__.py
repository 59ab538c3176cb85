"""Tables of an ablation study: the recipe, its runs, and the table that compares them."""

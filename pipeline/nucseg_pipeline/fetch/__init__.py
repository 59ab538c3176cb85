"""`nucseg fetch`: download data sets and weights, verify them, and put them where the other stages look."""

"""The tests of nucseg, in folders that mirror the packages, and what several of them share."""

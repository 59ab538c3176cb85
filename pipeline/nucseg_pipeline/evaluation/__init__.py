"""Scores of runs on test sets, shared by reports and ablation tables."""

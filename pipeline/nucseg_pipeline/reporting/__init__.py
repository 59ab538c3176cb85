"""What a report is made of: which images, scores, comparisons, findings, and the files that tell them."""

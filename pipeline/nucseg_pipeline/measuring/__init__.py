"""What `nucseg fidelity` is made of: how images move, what they truly embed to, what was found, and what to do."""

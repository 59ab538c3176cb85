"""Locks, atomic writes and publication of result folders."""

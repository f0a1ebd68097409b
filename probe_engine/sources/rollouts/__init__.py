"""Rollouts from disk or from a live object: read, dated, tokenised, grouped, made into units."""

"""Slow, obvious twins of the estimators, and a model small enough to list all that it can say."""

"""One file for each family of checks. A check takes what it looks at and returns findings."""

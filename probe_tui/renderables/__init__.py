"""Drawing as pure functions: report data in, rows of text out, none wider than asked.

Left and negative always mean that entropy falls. Colour only repeats what a glyph or a word says.
"""

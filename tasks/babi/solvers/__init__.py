"""What follows from the text of a story, worked out from the text alone.

``reading.py`` turns sentences into what they say; the other files answer the questions of a family of tasks each.
Nothing here uses the generator, but for the names of the events that both speak of.
"""

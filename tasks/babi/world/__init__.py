"""A small world of people, places and things, and the stories that each of the 20 tasks tells of it.

``dice.py`` draws, ``events.py`` says what can happen, ``simulation.py`` lets it happen, ``book.py`` writes it down,
``wording.py`` has the sentences that several tasks share; the other files hold a family of tasks each, a function a
task. The tasks are those of Weston et al. 2015 (https://arxiv.org/abs/1502.05698). What the paper leaves open (who acts
how often, what is asked when) was measured on the files published with it; "as published" marks what nobody would
expect from the paper.
"""

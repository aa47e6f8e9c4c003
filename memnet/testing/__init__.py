"""Conformance checks: does a scheme, or a cell, keep what its base class promises? Made to be used on your own classes.

In a test of your package, with ``MyAddressing(key_size)`` a scheme of yours:

    from memnet.testing import check_addressing

    def test_my_addressing():
        check_addressing(MyAddressing)

The checks need nothing but torch and raise an ``AssertionError`` that says which promise was broken. They leave the
global random state as it was.
"""

from memnet.testing.addressing import check_addressing
from memnet.testing.cell import check_cell

__all__ = ["check_addressing", "check_cell"]

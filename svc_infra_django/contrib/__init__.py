"""Bridges to other packages, one folder each. Nothing else of the suite imports them."""

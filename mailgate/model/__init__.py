"""The words of the house as frozen values: addresses, messages, states, outcomes.

Imports nothing of mailgate; everything else may import it.
"""

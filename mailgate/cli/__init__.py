"""The command line: each command loads the configuration and calls one room.

Nothing here decides; modules import what they need inside their commands, so
that ``--help`` stays quick.
"""

"""Faults at full size: kills, outages, rates and restarts, with the figures that were seen."""

"""From due to claimed: which recipients go next, and through which relay."""

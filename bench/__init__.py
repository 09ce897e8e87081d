"""Measures mailgate beside the plain pattern. Run it: ``./dev bench``; read README.md first."""

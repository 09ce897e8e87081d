"""What operators do, shared by every face: resend, cancel, replay, discard."""

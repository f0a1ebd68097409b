"""What the screen is made of: each panel shows a `ScreenState` and computes nothing of its own."""
